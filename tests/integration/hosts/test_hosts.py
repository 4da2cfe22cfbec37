"""Hosts over their lives: crawled, connected, dropped, woken, banned; and what survives a restart."""

import resource
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NoReturn

import gevent
import gevent.event
import pytest
from prometheus_client import REGISTRY

from relay.atproto.hostname import Endpoint
from relay.hosts import backlog, crawl_checks, dialler, hosts, subscriber
from relay.hosts.host import Host
from relay.hosts.hosts import Hosts
from relay.hosts.lifecycle import Status
from relay.kit import metrics
from relay.kit.errors import CrawlRefused, HostUnknown, RelayError, StoreError
from relay.net import websocket_client
from relay.net.gathering import Gathering
from relay.net.http import GuardedHttp
from relay.net.websocket_connection import Timing
from relay.store import hosts as table
from relay.store.database import Transaction
from relay.store.hosts import HostRow
from relay.stream.cursors import CursorBook
from tests.support.blocks import cbor
from tests.support.fake_relay import LOCAL, Relay
from tests.support.hosts import EmptyLog
from tests.support.pds import CLOSE, FakePds, error_frame, identity_frame, sync_frame, websocket_frame
from tests.support.present import present
from tests.support.repo import frame
from tests.support.wait import PATIENCE, until


def crawl(running: Hosts, pds: FakePds) -> None:
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: pds.hostname in running.connected())


def refusal(running: Hosts, hostname: str, admin: bool = True) -> tuple[str, int]:
    with pytest.raises(CrawlRefused) as caught:
        running.new_hosts.request(hostname, admin=admin)
    return caught.value.name, caught.value.status


def no_database(*_: object) -> NoReturn:
    raise StoreError("store-unavailable")


def row(relay: Relay, pds: FakePds) -> HostRow:
    return present(relay.db.read(table.by_hostname, pds.hostname))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new host's few events are all of them after a tenth of a second."""
    monkeypatch.setattr(backlog, "PAUSE_SECONDS", 0.1)


def test_a_crawled_host_is_checked_stored_connected_and_read_from_its_first_event(relay: Relay, pds: FakePds) -> None:
    pds.events = [(seq, identity_frame(seq)) for seq in range(1, 6)]
    running = relay.start()
    crawl(running, pds)
    assert any("describeServer" in request for request in pds.requests)
    assert pds.cursors == ["0"]
    pds.publish(6, identity_frame(6))
    pds.publish(9, identity_frame(9))
    until(lambda: relay.sink.seqs(pds) == [1, 2, 3, 4, 5, 6, 9])
    stored = row(relay, pds)
    assert (stored.status, stored.no_ssl, stored.account_limit, stored.trusted) == ("active", True, 100, False)


def test_a_dropped_connection_resumes_from_the_cursor(relay: Relay, pds: FakePds, quick_retries: None) -> None:
    running = relay.start()
    crawl(running, pds)
    pds.publish(10, identity_frame(10))
    until(lambda: relay.sink.seqs(pds) == [10])
    pds.events += [(11, identity_frame(11)), (12, identity_frame(12))]
    pds.hang_up()
    until(lambda: relay.sink.seqs(pds) == [10, 11, 12])
    assert pds.cursors == ["0", "10"]


def test_a_seq_that_does_not_rise_is_dropped_and_the_stream_goes_on(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    for seq in (5, 5, 3, 6):
        pds.publish(seq, identity_frame(seq))
    until(lambda: relay.sink.seqs(pds) == [5, 6])
    assert [reason for _, _, reason in relay.sink.rejected] == ["seq-not-rising"] * 2
    assert relay.host(pds).cursor.position == 6


@pytest.mark.parametrize("way", ["error", "close"])
def test_the_words_of_one_host_keep_no_hosts_state_from_being_stored(relay: Relay, pds: FakePds, way: str) -> None:
    """PostgreSQL takes no NUL, and all hosts are stored together."""
    running = relay.start()
    crawl(running, pds)
    words = "\0 \x1b[2J \n"
    last = error_frame(words, words) if way == "error" else b""
    pds.unframed[1] = websocket_frame(last) if last else websocket_frame((1000).to_bytes(2) + words.encode(), CLOSE)
    pds.publish(1, b"")
    until(lambda: "\ufffd" in (row(relay, pds).last_error or ""))
    assert (row(relay, pds).last_error or "").isprintable()
    running.block(pds.hostname)
    assert row(relay, pds).status == "banned"


def test_one_message_never_stops_a_host(relay: Relay, pds: FakePds) -> None:
    """Whatever it is, what comes behind it is read, on the same connection."""
    running = relay.start()
    crawl(running, pds)
    bad = [
        frame("#identity", {"seq": 1, "did": 7, "time": "2026-11-24T00:00:00.000Z"}),
        b"",
        b"\xff\xff\xff",
        cbor({"op": 1, "t": "#identity"}) + b"\xa1\x63seq\xc1\x02",
        b"\xa2\x62op\x01\x61t" + cbor("#identity") + cbor({"seq": 5}),
        identity_frame(6) + b"x" * 5_000_000,
    ]
    for seq, message in enumerate(bad, 1):
        pds.publish(2 * seq - 1, message)
        pds.publish(2 * seq, identity_frame(2 * seq))
    until(lambda: relay.sink.seqs(pds) == [2, 4, 6, 8, 10, 12])
    assert len(relay.sink.rejected) == len(bad)
    assert relay.sink.rejected[-1][2] == "message-too-big"
    assert pds.cursors == ["0"] and running.connected() == [pds.hostname]


@pytest.mark.parametrize("gap", [1, 6])
def test_a_message_that_ends_the_connection_is_asked_for_again_and_then_stepped_over(
    relay: Relay, pds: FakePds, quick_retries: None, gap: int
) -> None:
    """Nobody can tell where the next message begins: no such length can be waited for."""
    running = relay.start()
    crawl(running, pds)
    pds.publish(10, identity_frame(10))
    until(lambda: relay.sink.seqs(pds) == [10])
    pds.unframed[10 + gap] = b"\x82\x7f" + (1 << 62).to_bytes(8)
    pds.publish(10 + gap, b"")
    pds.publish(30, identity_frame(30))
    until(lambda: relay.sink.seqs(pds) == [10, 30])
    asked = [int(cursor or -1) - 10 for cursor in pds.cursors[1:]]
    assert asked == [0, 1, 2, 4, 8][: len(asked)] and asked[-1] >= gap
    assert relay.host(pds).skip == 0


@pytest.mark.parametrize("said", [b"\x03", b"\x03\xed", b"\x07\xd0", b"\x03\xe8\xff"], ids=repr)
def test_a_goodbye_in_wrong_words_is_a_goodbye(relay: Relay, pds: FakePds, quick_retries: None, said: bytes) -> None:
    """All that came before it was read, so the next connection asks from there."""
    running = relay.start()
    crawl(running, pds)
    pds.publish(10, identity_frame(10))
    until(lambda: relay.sink.seqs(pds) == [10])
    pds.on_stream = lambda sock: sock.sendall(websocket_frame(said, 0x8))
    pds.hang_up()
    until(lambda: len(pds.cursors) > 5)
    assert set(pds.cursors[1:]) == {"10"}
    assert present(relay.host(pds).row.last_error).startswith("closed: ")


def test_a_host_that_sends_little_else_is_backed_off_and_moves_on(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "UNREADABLE_ALLOWED", 10)
    running = relay.start()
    crawl(running, pds)
    pds.publish(1, identity_frame(1))
    until(lambda: relay.sink.seqs(pds) == [1])
    for seq in range(2, 40):
        pds.publish(seq, b"\xff")
    pds.publish(40, identity_frame(40))
    until(lambda: relay.sink.seqs(pds) == [1, 40])
    assert pds.cursors[1:] == ["11", "21", "31"]
    assert relay.host(pds).row.failures == 3
    assert present(relay.host(pds).row.last_error).startswith("frames-unreadable: 10 messages in a minute")
    assert "cannot be read" in running.report(pds.hostname).advice or running.connected()


def test_a_host_whose_last_messages_cannot_be_read_starts_live(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "UNREADABLE_ALLOWED", 10)
    monkeypatch.setattr(dialler, "OUTSTANDING_SECONDS", 0.05)
    running = relay.start()
    crawl(running, pds)
    pds.publish(1, identity_frame(1))
    until(lambda: relay.sink.seqs(pds) == [1])
    # Two messages for one number: the cursor is put ahead of the host's last one.
    for number in range(10):
        pds.publish(2 + number // 2, b"\xff")
    until(lambda: pds.cursors[-2:] == ["11", None])
    until(running.connected)
    pds.publish(7, identity_frame(7))
    until(lambda: relay.sink.seqs(pds) == [1, 7])


def test_unknown_kinds_are_ignored(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    pds.publish(1, frame("#tomorrow", {"seq": 1}))
    pds.publish(2, frame("#info", {"name": "OutdatedCursor"}))
    pds.publish(3, cbor({"op": 7}) + cbor({}))
    pds.publish(4, identity_frame(4))
    until(lambda: relay.sink.seqs(pds) == [4])
    assert relay.sink.rejected == []


def test_failures_lead_to_offline_persist_and_a_crawl_request_wakes_the_host_at_once(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.hosts.lifecycle.LONGEST_DELAY_SECONDS", 0.01)
    pds.refuse_upgrade = 503
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: running.report(pds.hostname).host.status is Status.OFFLINE, 10)
    status = running.report(pds.hostname)
    assert status.host.row.failures == 15
    assert status.host.row.last_error == "handshake-refused: HTTP 503 Status"
    assert "WebSocket" in status.advice
    relay.stop()
    assert (row(relay, pds).status, row(relay, pds).failures) == ("offline", 15)

    running = relay.start()
    gevent.sleep(0.1)
    assert running.report(pds.hostname).host.status is Status.OFFLINE
    assert present(running.report(pds.hostname).next_attempt_at) > time.time() + 3600
    pds.refuse_upgrade = None
    crawl(running, pds)
    assert running.report(pds.hostname).host.status is Status.ACTIVE
    assert running.report(pds.hostname).host.row.failures == 0


def test_a_host_is_left_alone_for_as_long_as_it_asks(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.hosts.lifecycle.FIRST_DELAY_SECONDS", 0.01)
    pds.refuse_upgrade, pds.refusal_headers = 429, {"Retry-After": "3"}
    running = relay.start()
    asked = time.monotonic()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: running.report(pds.hostname).host.row.failures == 1)
    # A crawl request does not change that.
    running.new_hosts.request(pds.url, admin=True)
    pds.refusal_headers = {}
    until(lambda: len(pds.user_agents) > 1)
    assert time.monotonic() - asked >= 3.0
    pds.refuse_upgrade = None
    until(running.connected)


def test_a_host_that_asks_for_a_day_is_tried_before(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.hosts.lifecycle.LONGEST_DELAY_SECONDS", 0.1)
    pds.refuse_upgrade, pds.refusal_headers = 503, {"Retry-After": "86400"}
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: len(pds.user_agents) > 2)


def test_offline_hosts_are_tried_now_and_then(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.hosts.lifecycle.ATTEMPTS_BEFORE_OFFLINE", 2)
    pds.refuse_upgrade = 503
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: running.report(pds.hostname).host.status is Status.OFFLINE)
    pds.refuse_upgrade = None
    until(lambda: running.report(pds.hostname).host.status is Status.ACTIVE)
    assert running.report(pds.hostname).host.connected


@pytest.mark.parametrize("neighbours", [0, 1])
def test_when_hardly_anybody_can_be_reached_nobody_is_given_up(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch, neighbours: int
) -> None:
    """A host in the same room is connected all the time. The others are tried soon after the network is back."""
    monkeypatch.setattr("relay.hosts.lifecycle.ATTEMPTS_BEFORE_OFFLINE", 4)
    monkeypatch.setattr("relay.hosts.lifecycle.FAILURES_CUT_OFF", 5)
    away = [f"127.0.0.1:{number + 1}" for number in range(25)]
    for name in [*away, *[pds.hostname] * neighbours]:
        relay.db.write(table.insert, name, no_ssl=True, account_limit=1, trusted=False)
    before = metrics.DIALS.labels("connect-failed")._value.get()
    running = relay.start()
    until(lambda: metrics.DIALS.labels("connect-failed")._value.get() - before > 10 * len(away))
    found = [running.report(name).host for name in away]
    assert {(host.status, host.row.failures) for host in found} == {(Status.ACTIVE, 5)}
    assert len(running.connected()) == neighbours


def test_running_out_of_descriptors_is_no_failure_of_a_host(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialler, "EXHAUSTED_SECONDS", 0.1)
    relay.db.write(table.insert, pds.hostname, no_ssl=True, account_limit=1, trusted=False)
    running = relay.start()
    until(running.connected)
    tried = metrics.DIALS.labels("no-descriptors")
    before = tried._value.get()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Those that are open stay.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        pds.hang_up()
        until(lambda: tried._value.get() > before + 3)
        host = relay.host(pds)
        # The connection that was cut is one.
        assert (host.row.failures, (host.row.last_error or "").partition(":")[0]) == (1, "connection-lost")
        assert refusal(running, "127.0.0.1:9") == ("RateLimitExceeded", 429)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(running.connected)
    assert host.row.failures == 1


def test_a_host_that_accepts_and_hangs_up_is_not_dialled_in_a_tight_loop(relay: Relay, pds: FakePds) -> None:
    pds.on_stream = lambda sock: None
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: pds.cursors)
    gevent.sleep(1.2)
    assert len(pds.cursors) <= 3
    until(lambda: running.report(pds.hostname).host.row.failures == len(pds.cursors))


def test_a_host_whose_connections_are_short_and_bring_events_is_not_given_up(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.hosts.lifecycle.ATTEMPTS_BEFORE_OFFLINE", 6)
    monkeypatch.setattr("relay.hosts.lifecycle.PROBE_SECONDS", 3600.0)
    brought = 0

    def bring_one(sock: socket.socket) -> None:
        nonlocal brought
        brought += 1
        sock.sendall(websocket_frame(identity_frame(brought)))

    pds.on_stream = bring_one
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: len(relay.sink.seqs(pds)) >= 12, 30)
    assert relay.host(pds).status is Status.ACTIVE
    pds.on_stream = lambda sock: None
    until(lambda: relay.host(pds).status is Status.OFFLINE, 30)


def test_future_cursor_begins_anew_then_live_then_the_host_is_idle(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.hosts.lifecycle.PROBE_SECONDS", 3600.0)
    running = relay.start()
    crawl(running, pds)
    pds.publish(100, identity_frame(100))
    until(lambda: relay.sink.seqs(pds) == [100])
    pds.events = [(1, identity_frame(1)), (2, identity_frame(2))]
    pds.hang_up()
    until(lambda: pds.cursors == ["0", "100", "0"])
    pds.publish(3, identity_frame(3))
    until(lambda: relay.sink.seqs(pds) == [100, 1, 2, 3])
    assert running.report(pds.hostname).host.cursor.position == 3
    assert "started again" in running.report(pds.hostname).advice

    pds.on_stream = lambda sock: sock.sendall(websocket_frame(error_frame("FutureCursor")))
    pds.hang_up()
    until(lambda: running.report(pds.hostname).host.status is Status.IDLE)
    assert pds.cursors[-3:] == ["3", "0", None]
    assert present(running.report(pds.hostname).next_attempt_at) > time.time() + 1000


@pytest.mark.parametrize("says", ["an event", "a notice"])
def test_a_host_that_is_never_that_far_is_dialled_less_and_less_often(relay: Relay, pds: FakePds, says: str) -> None:
    def serve(sock: socket.socket) -> None:
        number = len(pds.cursors)
        said = identity_frame(number) if says == "an event" else frame("#info", {"name": "Hello"})
        sock.sendall(websocket_frame(said) + websocket_frame(error_frame("FutureCursor")))

    pds.on_stream = serve
    relay.start().new_hosts.request(pds.url, admin=True)
    until(lambda: relay.host(pds).row.failures == 3, 60)
    assert len(pds.cursors) == 3


def test_a_host_that_refuses_the_upgrade_for_its_cursor_begins_anew(
    relay: Relay, pds: FakePds, quick_retries: None
) -> None:
    running = relay.start()
    crawl(running, pds)
    pds.publish(100, identity_frame(100))
    until(lambda: relay.sink.seqs(pds) == [100])
    pds.refuse_future, pds.refusal = True, b'{"error":"FutureCursor"}'
    pds.events = [(1, identity_frame(1)), (2, identity_frame(2))]
    pds.hang_up()
    until(lambda: relay.sink.seqs(pds) == [100, 1, 2])
    assert pds.refused_cursors == ["100"]
    assert running.report(pds.hostname).host.status is Status.ACTIVE


def test_a_host_whose_seqs_went_back_waits_for_its_last_events(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.hosts.dialler.OUTSTANDING_SECONDS", 0.05)
    running = relay.start()
    crawl(running, pds)
    gevent.sleep(0.3)
    pds.publish(100, identity_frame(100))
    until(lambda: relay.sink.seqs(pds) == [100])
    relay.sink.holding = True
    pds.publish(101, identity_frame(101))
    until(lambda: relay.sink.seqs(pds) == [100, 101])
    relay.sink.holding = False
    pds.events = []
    pds.hang_up()
    until(lambda: pds.cursors[1:4] == ["100"] * 3)
    assert running.report(pds.hostname).host.status is Status.ACTIVE
    relay.host(pds).cursor.finish(101)
    until(lambda: pds.cursors[-1] == "0")
    pds.publish(3, identity_frame(3))
    until(lambda: running.report(pds.hostname).host.cursor.position == 3)


@pytest.mark.parametrize("listed", [False, True])
def test_a_host_that_asked_to_be_crawled_is_read_from_its_first_event_after_a_crash_too(
    relay: Relay, pds: FakePds, listed: bool
) -> None:
    """`listed`: it was known before, and never connected."""
    if listed:
        known = relay.db.write(table.insert, pds.hostname, no_ssl=True, account_limit=1, trusted=False)
        relay.db.write(table.set_status, known.id, "offline")
    pds.refuse_upgrade = 503
    relay.start().new_hosts.request(pds.url, admin=True)
    at_the_crash = row(relay, pds)
    relay.stop()
    relay.db.write(table.save_states, [at_the_crash])
    relay.db.write(table.set_status, at_the_crash.id, "active")
    pds.events = [(1, identity_frame(1))]
    pds.refuse_upgrade = None
    relay.start()
    until(lambda: relay.sink.seqs(pds) == [1])
    assert pds.cursors == ["0"]


def test_of_a_new_host_with_a_long_past_only_what_comes_from_now_on_is_read(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_MESSAGES", 10)
    pds.events = [(seq, identity_frame(seq)) for seq in range(1, 100)]
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: pds.cursors == ["0", None] and running.connected())
    gevent.sleep(0.3)
    pds.publish(100, identity_frame(100))
    until(lambda: relay.sink.seqs(pds) == [100])
    assert relay.host(pds).row.last_error is None and relay.host(pds).row.failures == 0
    # The other connection is not kept, with what nobody reads of it.
    until(lambda: pds.open_streams == 1)


def test_of_a_new_host_that_sends_much_from_the_first_second_nothing_is_missed(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its events say of their time: a second connection is told nothing else."""
    monkeypatch.setattr(backlog, "MAX_MESSAGES", 40)
    sending = True

    def send() -> None:
        seq = 0
        while sending:
            seq += 1
            pds.publish(seq, identity_frame(seq))
            gevent.sleep(0.01)

    sender = gevent.spawn(send)
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: len(relay.sink.seqs(pds)) > 100, 20)
    sending = False
    sender.join()
    until(lambda: relay.sink.seqs(pds)[-1] == len(pds.events), 30)
    seqs = relay.sink.seqs(pds)
    assert seqs == list(range(seqs[0], len(pds.events) + 1)) and seqs[0] == 1
    assert pds.cursors == ["0", None]


def test_of_a_new_host_that_has_just_begun_all_is_read(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_MESSAGES", 10)
    monkeypatch.setattr(backlog, "MAX_AGE_SECONDS", 1e12)
    pds.events = [(seq, identity_frame(seq)) for seq in range(1, 20)]
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: relay.sink.seqs(pds) == list(range(1, 20)))
    assert pds.cursors == ["0"]


def test_what_a_quiet_host_sent_between_two_connections_is_fetched(
    relay: Relay, pds: FakePds, quick_retries: None
) -> None:
    relay.db.write(table.insert, pds.hostname, no_ssl=True, account_limit=100, trusted=False)
    running = relay.start()
    until(running.connected)
    assert pds.cursors == [None]
    pds.refuse_upgrade = 503
    pds.hang_up()
    until(lambda: not running.connected())
    pds.publish(7, identity_frame(7))
    pds.refuse_upgrade = None
    until(lambda: relay.sink.seqs(pds) == [7])
    assert pds.cursors == [None, "0"]
    # Over a restart as well.
    relay.stop()
    relay.sink.events.clear()
    pds.publish(8, identity_frame(8))
    relay.start()
    until(lambda: relay.sink.seqs(pds) == [7, 8])


def test_a_quiet_host_that_says_goodbye_behind_its_first_event_loses_nothing(relay: Relay, pds: FakePds) -> None:
    def speak_and_go(sock: socket.socket) -> None:
        sock.sendall(websocket_frame(identity_frame(1)) + websocket_frame(identity_frame(2)))

    pds.on_stream = speak_and_go
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: relay.sink.seqs(pds) == [1, 2])


def test_a_host_whose_numbers_start_again_is_followed(relay: Relay, pds: FakePds, quick_retries: None) -> None:
    """It goes live whatever cursor it is asked for, with numbers that were used before."""
    running = relay.start()
    crawl(running, pds)
    for seq in (1000, 1001):
        pds.publish(seq, identity_frame(seq))
    until(lambda: relay.sink.seqs(pds) == [1000, 1001])
    before = metrics.HOST_SEQ_RESETS._value.get()
    for seq, event in ((1, identity_frame(1)), (2, sync_frame(2)), (3, identity_frame(3)), (3, identity_frame(3))):
        pds.publish(seq, event)
    # The first one proves nothing by itself, and is kept until the second one does.
    until(lambda: relay.sink.seqs(pds) == [1000, 1001, 1, 2, 3])
    assert relay.host(pds).cursor.position == 3
    assert metrics.HOST_SEQ_RESETS._value.get() == before + 1
    assert [reason for _, _, reason in relay.sink.rejected] == ["seq-not-rising"] * 2
    assert "started again" in running.report(pds.hostname).advice
    pds.events = [(4, identity_frame(4)), (5, identity_frame(5))]
    pds.hang_up()
    until(lambda: relay.sink.seqs(pds)[-2:] == [4, 5])
    assert pds.cursors == ["0", "3"]


def test_an_operator_sets_where_a_host_is_asked_from(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    for seq in range(1, 6):
        pds.publish(seq, identity_frame(seq))
    until(lambda: relay.sink.seqs(pds) == [1, 2, 3, 4, 5])

    def asked_from(cursor: str | None) -> bool:
        return running.connected() == [pds.hostname] and pds.cursors[-1] == cursor

    def read_again(seqs: list[int]) -> bool:
        return relay.sink.seqs(pds) == seqs

    places: list[tuple[Literal["oldest", "live"] | int, str | None, list[int]]]
    places = [(3, "3", [4, 5]), ("oldest", "0", [1, 2, 3, 4, 5]), ("live", None, [])]
    for position, cursor, again in places:
        relay.sink.events.clear()
        running.set_cursor(pds.hostname, position)
        until(partial(asked_from, cursor))
        until(partial(read_again, again))
    pds.publish(6, identity_frame(6))
    until(lambda: relay.sink.seqs(pds) == [6])
    assert relay.host(pds).cursor.position == 6


def test_a_cursor_is_not_set_under_events_that_are_under_way(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "SETTLE_SECONDS", 0.1)
    running = relay.start()
    crawl(running, pds)
    relay.sink.holding = True
    pds.publish(1, identity_frame(1))
    until(lambda: relay.sink.seqs(pds) == [1])
    with pytest.raises(RelayError, match="host-busy"):
        running.set_cursor(pds.hostname, "oldest")
    until(lambda: running.connected() == [pds.hostname])
    running.block(pds.hostname)
    relay.host(pds).cursor.finish(1)
    running.set_cursor(pds.hostname, "oldest")
    gevent.sleep(0.1)
    assert running.connected() == []


def test_a_host_unseen_for_longer_than_the_replay_window_starts_live(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialler, "CLOCK_SECONDS", 0.1)
    running = relay.start()
    crawl(running, pds)
    relay.stop()
    for unseen, cursor in ((3600.0, "77"), (100 * 3600.0, None)):
        stored = row(relay, pds)
        stored.last_connected_at = time.time() - unseen
        relay.db.write(table.save_states, [stored])
        pds.cursors.clear()
        pds.events = [(77, identity_frame(77))]
        running = relay.start(book=book_at(stored.id, 77))
        until(lambda: pds.cursors)
        assert pds.cursors == [cursor]
        assert relay.host(pds).cursor.position == (77 if cursor else -1)
        relay.stop()


def test_with_a_restored_database_hosts_were_seen_for_as_long_as_the_log_goes_on(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    relay.stop()
    stored = row(relay, pds)
    stored.last_connected_at = time.time() - 100 * 3600
    relay.db.write(table.save_states, [stored])
    pds.events = [(77, identity_frame(77)), (78, identity_frame(78))]
    pds.cursors.clear()
    log = EmptyLog()
    log.last_time_us = int((time.time() - 60) * 1e6)
    running = relay.start(book=book_at(stored.id, 77, log))
    until(lambda: relay.sink.seqs(pds) == [78])
    assert pds.cursors == ["77"]


def test_a_clock_that_is_set_meanwhile_makes_no_host_long_unseen(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = relay.start()
    crawl(running, pds)
    pds.publish(1, identity_frame(1))
    until(lambda: relay.sink.seqs(pds) == [1])
    pds.refuse_upgrade = 503
    pds.hang_up()
    until(lambda: not running.connected() and relay.host(pds).row.failures > 1)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 100 * 3600)
    pds.publish(2, identity_frame(2))
    pds.refuse_upgrade = None
    until(running.connected)
    assert pds.cursors == ["0", "1"]
    until(lambda: relay.sink.seqs(pds) == [1, 2])


@pytest.mark.parametrize("is_set", [True, False])
def test_a_clock_that_is_far_ahead_at_the_start_is_given_time_to_be_set(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_set: bool
) -> None:
    monkeypatch.setattr(dialler, "CLOCK_SECONDS", 1.0)
    running = relay.start()
    crawl(running, pds)
    relay.stop()
    pds.events = [(77, identity_frame(77)), (78, identity_frame(78))]
    pds.cursors.clear()
    clock, ahead = time.time, 100 * 3600.0
    monkeypatch.setattr(time, "time", lambda: clock() + ahead)
    running = relay.start(book=book_at(row(relay, pds).id, 77))
    assert "by the clock no host was seen for 100 hours" in caplog.text
    # Not for a crawl request either.
    running.new_hosts.request(pds.url, admin=True)
    gevent.sleep(0.3)
    assert pds.cursors == []
    if is_set:
        ahead = 0.0
    until(running.connected)
    assert pds.cursors == (["77"] if is_set else [None])


def test_a_host_that_the_reference_relay_had_given_up_starts_live(
    relay: Relay, pds: FakePds, quick_retries: None
) -> None:
    for status, cursor in (("active", "77"), ("offline", None)):
        stored = relay.db.write(table.insert, pds.hostname, no_ssl=True, account_limit=100, trusted=False)
        stored.last_connected_at = None
        relay.db.write(table.save_states, [stored])
        relay.db.write(table.set_status, stored.id, status)
        pds.cursors.clear()
        pds.events = [(77, identity_frame(77))]
        running = relay.start(book=book_at(stored.id, 77))
        until(running.connected)
        assert pds.cursors == [cursor]
        relay.stop()


def book_at(host_id: int, position: int, log: EmptyLog | None = None) -> CursorBook:
    book = CursorBook(log or EmptyLog())
    cursor = book.get(host_id)
    cursor.begin(position)
    cursor.finish(position)
    return book


def test_a_host_that_is_a_relay_is_banned_for_good(relay: Relay, pds: FakePds) -> None:
    pds.server_header = "indigo-relay (atproto-relay)"
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(lambda: running.report(pds.hostname).host.status is Status.BANNED)
    relay.stop()
    assert row(relay, pds).status == "banned"
    running = relay.start()
    assert refusal(running, pds.url) == ("HostBanned", 400)
    assert "relay" in running.report(pds.hostname).advice


def test_a_block_ends_the_live_connection_and_an_unblock_brings_it_back(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    running.block(pds.hostname)
    until(lambda: pds.open_streams == 0)
    assert running.connected() == []
    assert row(relay, pds).status == "banned"
    assert refusal(running, pds.url) == ("HostBanned", 400)
    running.unblock(pds.hostname)
    until(lambda: running.connected() == [pds.hostname])
    assert row(relay, pds).status == "active"


def test_nothing_but_an_unblock_makes_a_banned_host_active(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The subscriber is in the middle of its work when the ban comes, as with the reference relay's cursor flush."""
    monkeypatch.setattr(hosts, "FLUSH_SECONDS", 0.05)
    running = relay.start()
    crawl(running, pds)
    relay.sink.blocked = True
    pds.publish(1, identity_frame(1))
    gevent.sleep(0.05)
    running.disconnect(pds.hostname, block=True)
    relay.sink.blocked = False
    gevent.sleep(0.3)
    assert row(relay, pds).status == "banned"
    assert pds.open_streams == 0
    assert len(pds.cursors) == 1


def test_a_disconnect_leaves_the_status_and_a_crawl_request_brings_it_back(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    assert running.disconnect(pds.hostname, block=False)
    assert running.connected() == []
    assert row(relay, pds).status == "active"
    assert not running.disconnect(pds.hostname, block=False)
    crawl(running, pds)


def test_a_domain_ban_takes_its_live_hosts_and_lifting_it_brings_them_back(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    assert running.ban_domain("Localhost.")
    assert relay.db.read(table.all_bans) == ["localhost"]
    assert running.connected() == []
    assert refusal(running, pds.url) == ("DomainBan", 401)
    with pytest.raises(CrawlRefused):
        running.unblock(pds.hostname)
    relay.stop()
    running = relay.start()
    assert running.report(pds.hostname).host.status is Status.BANNED
    assert running.unban_domain("localhost")
    until(lambda: running.connected() == [pds.hostname])


def test_a_host_blocked_by_itself_outlives_its_domains_ban(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    running.block(pds.hostname)
    running.ban_domain("localhost")
    running.unban_domain("localhost")
    assert running.report(pds.hostname).host.status is Status.BANNED


def test_crawl_requests_are_refused_in_the_references_order_and_words(relay: Relay, pds: FakePds) -> None:
    running = relay.start(replace(LOCAL, allow_insecure_hosts=False))
    assert refusal(running, "not a host") == ("BadRequest", 400)
    # As in indigo, an admin's word counts for names, and not for addresses.
    assert refusal(running, "http://pds.example.com", admin=False) == ("BadRequest", 400)
    assert refusal(running, "https://localhost:99", admin=False) == ("BadRequest", 400)
    assert refusal(running, "https://localhost:99") == ("HostNotFound", 400)
    assert refusal(running, "https://127.0.0.1") == ("BadRequest", 400)
    assert refusal(running, "https://pds.example.com:8443", admin=False) == ("BadRequest", 400)
    running.ban_domain("bad.test")
    assert refusal(running, "pds.bad.test", admin=False) == ("DomainBan", 401)
    running.new_hosts.crawl_enabled = False
    assert refusal(running, "pds.bad.test", admin=False) == ("Forbidden", 403)
    assert refusal(running, "pds.bad.test") == ("DomainBan", 401)
    relay.stop()
    running = relay.start(LOCAL)
    assert running.new_hosts.crawl_enabled is False
    running.new_hosts.crawl_enabled = True
    assert refusal(running, pds.url, admin=False) == ("BadRequest", 400)
    pds.describe_status = 500
    assert refusal(running, pds.url) == ("HostNotFound", 400)
    with pytest.raises(HostUnknown):
        running.report(pds.hostname)


@pytest.mark.parametrize("domain", ["localhost", "LocalHost"])
def test_a_domain_that_another_relay_banned_is_banned_from_the_start(relay: Relay, pds: FakePds, domain: str) -> None:
    """As it was typed: indigo keeps that."""
    relay.db.write(table.insert, pds.hostname, no_ssl=True, account_limit=100, trusted=False)
    relay.db.write(table.add_ban, domain)
    running = relay.start()
    gevent.sleep(0.1)
    assert running.report(pds.hostname).host.status is Status.BANNED
    assert pds.requests == []
    # With the domain's ban that of its hosts is lifted.
    assert running.unban_domain("localhost")
    until(lambda: pds.cursors != [])


def test_a_ban_that_comes_while_the_host_is_asked_holds(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = relay.start()
    ask = crawl_checks.check_answers

    def ask_and_ban(http: GuardedHttp, endpoint: Endpoint, **how: bool) -> None:
        ask(http, endpoint, **how)
        running.ban_domain("localhost")

    monkeypatch.setattr(crawl_checks, "check_answers", ask_and_ban)
    assert refusal(running, pds.url) == ("DomainBan", 401)
    assert list(running.reports()) == []


def test_a_ban_that_comes_while_a_new_host_is_stored_holds(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = relay.start()
    add = relay.registry.add

    def ban_and_add(added: HostRow) -> Host:
        running.ban_domain("localhost")
        return add(added)

    with monkeypatch.context() as patch:
        patch.setattr(relay.registry, "add", ban_and_add)
        assert refusal(running, pds.url) == ("DomainBan", 401)
    gevent.sleep(0.1)
    assert relay.host(pds).status is Status.BANNED and pds.cursors == []
    assert running.unban_domain("localhost")
    until(running.connected)


def test_a_block_is_not_stored_before_what_it_follows(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = relay.start()
    crawl(running, pds)
    host = relay.host(pds)
    host.row.status = "offline"
    host.changed = True
    let_go, reached = gevent.event.Event(), gevent.event.Event()
    write = relay.db.write

    def slowly(*work: Any) -> Any:
        if work[0].__name__ == "_save" and not reached.is_set():
            reached.set()
            let_go.wait(60)
        return write(*work)

    monkeypatch.setattr(relay.db, "write", slowly)
    storing = gevent.spawn(relay.registry.flush)
    assert reached.wait(60)
    blocking = gevent.spawn(running.block, pds.hostname)
    until(lambda: running.connected() == [])
    gevent.sleep(0.1)
    let_go.set()
    storing.get(timeout=60)
    blocking.get(timeout=60)
    assert row(relay, pds).status == "banned"


def test_a_crawl_request_does_not_come_between_when_a_cursor_is_set(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    relay.sink.holding = True
    pds.publish(1, identity_frame(1))
    until(lambda: relay.sink.seqs(pds) == [1])
    setting = gevent.spawn(running.set_cursor, pds.hostname, 7)
    until(lambda: running.connected() == [])
    relay.host(pds).row.last_attempt_at = 0.0
    running.new_hosts.request(pds.url, admin=True)
    gevent.sleep(0.2)
    relay.host(pds).cursor.finish(1)
    setting.get(timeout=60)
    until(lambda: len(pds.cursors) > 1)
    assert pds.cursors[:2] == ["0", "7"]


def test_an_unblocked_host_is_dialled_though_it_cannot_be_stored(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = relay.start()
    crawl(running, pds)
    running.block(pds.hostname)
    with monkeypatch.context() as patch:
        patch.setattr(relay.db, "write", no_database)
        with pytest.raises(StoreError):
            running.unblock(pds.hostname)
        until(running.connected)


def test_a_host_that_is_blocked_before_its_dial_has_begun_can_come_back(relay: Relay, pds: FakePds) -> None:
    stored = relay.db.write(table.insert, pds.hostname, no_ssl=True, account_limit=100, trusted=False)
    running = relay.start()
    # As the dialler does when the host is due; its greenlet has not had its first step yet.
    running._dialler._dial_those_due()
    assert stored.id in running._dialler._greenlets
    running.block(pds.hostname)
    assert running._dialler._greenlets == {}
    running.unblock(pds.hostname)
    until(running.connected)


def test_what_cannot_be_stored_is_in_force_and_stored_later(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = relay.start()
    crawl(running, pds)
    with monkeypatch.context() as patch:
        patch.setattr(relay.db, "write", no_database)
        with pytest.raises(StoreError):
            running.block(pds.hostname)
        assert running.connected() == []
        assert row(relay, pds).status == "active"
    relay.stop()
    assert row(relay, pds).status == "banned"


def test_asking_again_for_a_connected_host_costs_nothing(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    asked = len(pds.requests)
    for _ in range(5):
        running.new_hosts.request(pds.url, admin=True)
    assert len(pds.requests) == asked
    assert pds.open_streams == 1


def test_two_requests_at_once_make_one_host(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    gevent.joinall([gevent.spawn(running.new_hosts.request, pds.url, admin=True) for _ in range(5)], raise_error=True)
    until(lambda: running.connected() == [pds.hostname])
    assert len(list(running.reports())) == 1
    gevent.sleep(0.1)
    assert pds.open_streams == 1


def test_configured_hosts_without_tls_need_the_operators_leave(relay: Relay) -> None:
    names = ("http://plain.pds.test", "localhost:99", "https://10.0.0.1", "tls.pds.test")
    running = relay.start(replace(LOCAL, allow_insecure_hosts=False, hosts=names))
    assert [report.host.hostname for report in running.reports()] == ["tls.pds.test"]


def test_hosts_named_in_the_settings_are_connected_at_start(relay: Relay, pds: FakePds) -> None:
    running = relay.start(replace(LOCAL, hosts=(pds.url, "not a host")))
    until(lambda: running.connected() == [pds.hostname])


@pytest.mark.parametrize("latency", ["normal", "low"])
def test_hosts_are_read_together_unless_latency_is_to_be_low(
    relay: Relay, pds: FakePds, latency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Gathering] = []

    def gathering() -> Gathering:
        made.append(Gathering())
        return made[0]

    monkeypatch.setattr(hosts, "Gathering", gathering)
    running = relay.start(replace(LOCAL, latency=latency))
    crawl(running, pds)
    for seq in (1, 2):
        pds.publish(seq, identity_frame(seq))
        until(lambda: relay.sink.seqs(pds)[-1:] == [seq])  # noqa: B023
    assert [len(one._watched) for one in made] == ([1] if latency == "normal" else [])
    relay.stop()
    assert not any(one._watched for one in made)


def test_a_quiet_host_becomes_idle_and_an_event_on_a_probe_is_not_missed(
    relay: Relay, pds: FakePds, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "FLUSH_SECONDS", 0.05)
    running = relay.start(replace(LOCAL, host_idle_after=0.2))
    crawl(running, pds)
    pds.publish(1, identity_frame(1))
    until(lambda: running.report(pds.hostname).host.status is Status.IDLE)
    pds.events.append((2, identity_frame(2)))
    until(lambda: relay.sink.seqs(pds) == [1, 2])
    assert pds.cursors[:2] == ["0", "1"]


def test_a_clock_that_jumps_ahead_makes_no_host_quiet(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = relay.start(replace(LOCAL, host_idle_after=3600.0))
    crawl(running, pds)
    clock, ahead = time.time, 86_400.0
    monkeypatch.setattr(time, "time", lambda: clock() + ahead)
    for _ in range(2 * hosts.PASSES):
        running._look_after_hosts()
    assert running.connected() == [pds.hostname]
    # By the new clock an hour passes.
    monkeypatch.setattr(hosts, "JUMP_SECONDS", 1e9)
    ahead += 3700.0
    for _ in range(hosts.PASSES):
        running._look_after_hosts()
    assert relay.host(pds).status is Status.IDLE


def test_a_host_that_is_blocked_while_its_quiet_connection_is_ended_is_not_dialled(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "FLUSH_SECONDS", 3600.0)
    running = relay.start(replace(LOCAL, host_idle_after=0.001))
    crawl(running, pds)
    # So that it is quiet.
    gevent.sleep(0.01)
    dialler = running._dialler
    disconnect = dialler.disconnect

    def disconnect_and_block(host: Host) -> bool:
        connected = disconnect(host)
        monkeypatch.setattr(dialler, "disconnect", disconnect)
        running.block(pds.hostname)
        return connected

    monkeypatch.setattr(dialler, "disconnect", disconnect_and_block)
    host = running.known(pds.hostname)
    for _ in range(hosts.PASSES):
        running._look_after_hosts()
    assert host.status is Status.BANNED
    assert dialler.next_attempt_in(host) is None


def test_all_hosts_are_looked_at_by_turns(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []

    def look(host: Host, now: float, idle_after: float, _believed_since: float) -> None:
        looked_at.append(host.hostname)

    monkeypatch.setattr(hosts, "FLUSH_SECONDS", 3600.0)
    monkeypatch.setattr(Host, "due_change", look)
    with ExitStack() as opened:
        known = [opened.enter_context(FakePds()) for _ in range(2 * hosts.PASSES)]
        running = relay.start()
        for pds in known:
            crawl(running, pds)
        for _ in range(hosts.PASSES):
            before = len(looked_at)
            running._look_after_hosts()
            assert len(looked_at) == before + 2
        assert sorted(looked_at) == sorted(pds.hostname for pds in known)


def test_a_host_over_its_rate_is_read_more_slowly_and_loses_nothing_and_a_raised_limit_applies_live(
    relay: Relay, pds: FakePds
) -> None:
    running = relay.start()
    crawl(running, pds)
    running.change_limits(pds.hostname, rates={"per_second": 5, "per_hour": 20})
    for seq in range(1, 31):
        pds.publish(seq, identity_frame(seq))
    started = time.monotonic()
    until(lambda: len(relay.sink.seqs(pds)) == 20, 10)
    assert time.monotonic() - started > 2.5
    gevent.sleep(0.3)
    assert len(relay.sink.seqs(pds)) == 20
    running.change_limits(pds.hostname, rates={"per_second": None, "per_hour": None})
    until(lambda: relay.sink.seqs(pds) == list(range(1, 31)))
    assert running.report(pds.hostname).host.rates == (50, 2_600, 21_000)


def test_a_host_at_its_hourly_limit_is_shown_as_throttled(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "FLUSH_SECONDS", 0.05)
    running = relay.start()
    crawl(running, pds)
    running.change_limits(pds.hostname, rates={"per_hour": 2})
    for seq in range(1, 6):
        pds.publish(seq, identity_frame(seq))
    waited = metrics.HOST_THROTTLED_SECONDS.labels("hour")._value
    before = waited.get()
    until(lambda: running.report(pds.hostname).host.status is Status.THROTTLED)
    until(lambda: waited.get() > before)
    monkeypatch.setattr("relay.hosts.host.CLEARED_SECONDS", 0.1)
    running.change_limits(pds.hostname, rates={"per_hour": None})
    until(lambda: running.report(pds.hostname).host.status is Status.ACTIVE)


def test_hosts_near_their_account_limit_are_counted(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    counts = []
    for accounts in (79, 80, 100):
        relay.host(pds).account_count = accounts
        counts.append(REGISTRY.get_sample_value("relay_hosts_near_account_limit"))
    assert counts == [0, 1, 1]


def test_a_raised_account_limit_is_told_and_a_lowered_one_is_not(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    running.change_limits(pds.hostname, account_limit=150)
    assert relay.raised == {pds.hostname: 1}
    running.change_limits(pds.hostname, account_limit=120)
    assert row(relay, pds).account_limit == 120
    assert relay.host(pds).account_limit == 120
    assert relay.raised == {pds.hostname: 1}


def test_an_intake_that_is_full_stops_the_reading(relay: Relay, pds: FakePds) -> None:
    running = relay.start()
    crawl(running, pds)
    relay.sink.blocked = True
    gevent.sleep(0.2)
    for seq in range(1, 2_000):
        pds.publish(seq, identity_frame(seq))
    gevent.sleep(0.2)
    assert relay.sink.events == []
    relay.sink.blocked = False
    until(lambda: relay.sink.seqs(pds)[:40] == list(range(1, 41)))


def test_dials_are_bounded_and_every_host_gets_its_turn(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "MAX_DIALS", 3)
    monkeypatch.setattr(websocket_client.dial, "__defaults__", (Timing(dial=0.3),))
    at_once, most = 0, 0

    def silent(sock: socket.socket) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            while sock.recv(1000):
                pass
        finally:
            at_once -= 1

    with FakePds() as good:
        bad = [FakePds() for _ in range(7)]
        for one in bad:
            one.on_accept = silent
            one.__enter__()
        for one in [*bad, good]:
            relay.db.write(table.insert, one.hostname, no_ssl=True, account_limit=1, trusted=False)
        running = relay.start()
        until(lambda: running.connected() == [good.hostname])
        assert most == 3
        for one in bad:
            one.__exit__()


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
def test_sound_hosts_do_not_wait_for_those_that_never_answer(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Sixty hosts that hold a place for half a second each, a few at a time."""
    monkeypatch.setattr(dialler, "MAX_DIALS", 4)
    monkeypatch.setattr(dialler, "MAX_DIALS_AGAIN", 3)
    monkeypatch.setattr(websocket_client.dial, "__defaults__", (Timing(dial=0.5),))
    with ExitStack() as opened:
        silent = [opened.enter_context(FakePds()) for _ in range(60)]
        good = opened.enter_context(FakePds())
        for one in silent:
            one.on_accept = lambda sock: gevent.sleep(60)
        for one in [*silent, good] if known else silent:
            stored = relay.db.write(table.insert, one.hostname, no_ssl=True, account_limit=1, trusted=False)
            if one is not good:
                stored.failures, stored.last_attempt_at = 3, time.time()
                relay.db.write(table.save_states, [stored])
        running = relay.start()
        # Until all of them are due.
        gevent.sleep(0.0 if known else 0.5)
        started = time.monotonic()
        if not known:
            running.new_hosts.request(good.url, admin=True)
        until(running.connected)
        assert time.monotonic() - started < 0.8 * PATIENCE
        assert sum(report.host.row.failures > 3 for report in running.reports()) < 20


def test_a_start_with_many_hosts_returns_at_once(relay: Relay) -> None:
    def many(tx: Transaction) -> None:
        for number in range(3_000):
            table.insert(tx, f"h{number}.pds.test", no_ssl=False, account_limit=100, trusted=False)

    relay.db.write(many)
    started = time.monotonic()
    running = relay.start()
    # To dial them one after the other takes 15 seconds.
    assert time.monotonic() - started < 10
    assert len(list(running.reports())) == 3_000

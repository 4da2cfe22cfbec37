"""The firehose's WebSocket, by a client that others wrote and by raw sockets where no decent client would do that."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import ExitStack, suppress
from typing import Any

import gevent
import pytest
from prometheus_client import REGISTRY
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection

from relay.atproto import frames
from relay.atproto.frames import Info, StreamError
from relay.kit import metrics
from relay.kit.errors import LogError
from relay.stream.feed import Feed
from relay.stream.firehose import Firehose
from relay.web import consumer_connection, consumers
from tests.support.firehose import PATH, consumer, handshake, head_of, raw, seqs
from tests.support.fixtures import StartWeb
from tests.support.http import call
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.wait import PATIENCE, until
from tests.support.web import Web
from tests.support.websocket import connect


@pytest.mark.parametrize("allowed", [False, True])
def test_compressed_where_the_operator_allows_it(start_web: StartWeb, allowed: bool) -> None:
    web = start_web(firehose_deflate=allowed)
    web.publish(5, size=1000)
    with consumer(web, "?cursor=2", compression="deflate") as asked, consumer(web, "?cursor=2") as plain:
        assert bool(asked.protocol.extensions) is allowed
        web.publish(3)
        assert [asked.recv(timeout=60) for _ in range(6)] == [plain.recv(timeout=60) for _ in range(6)]


def ending(client: ClientConnection, timeout: float = 10) -> tuple[list[bytes], int]:
    """Messages up to the close frame, and its code."""
    messages = []
    try:
        while True:
            messages.append(client.recv(timeout=timeout))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return messages, closed.rcvd.code  # type: ignore[return-value]


def test_without_a_cursor_it_is_live_and_with_one_it_replays(web: Web) -> None:
    web.publish(5)
    wanted = {
        "": [6, 7],
        "?cursor=": [6, 7],
        "?cursor=5": [6, 7],
        "?cursor=3": [4, 5, 6, 7],
        # As indigo takes them.
        "?cursor=0000000000000000003": [4, 5, 6, 7],
        "?cursor=5&cursor=2": [6, 7],
        "?cursor=0": [*range(1, 8)],
    }
    with ExitStack() as connected:
        clients = {query: connected.enter_context(consumer(web, query)) for query in wanted}
        until(lambda: len(list(web.services.consumers)) == len(wanted))
        web.publish(2)
        assert {query: seqs(client, len(wanted[query])) for query, client in clients.items()} == wanted


@pytest.mark.parametrize("cursor", ["6", str(2**53 - 1), str(2**53), str(2**64), "9" * 5000])
def test_a_cursor_ahead_is_told_so_and_closed(web: Web, cursor: str) -> None:
    web.publish(5)
    with connect(f"{web.stream}?cursor={cursor}") as client:
        messages, code = ending(client)
    error = frames.decode(messages[0])
    assert isinstance(error, StreamError) and error.error == "FutureCursor"
    assert (len(messages), code) == (1, 1008)


def test_who_has_a_cursor_ahead_is_not_behind(web: Web) -> None:
    web.publish(5)
    with raw(web, handshake("?cursor=99")) as sock:
        head_of(sock)
        until(lambda: list(web.services.consumers))
        assert REGISTRY.get_sample_value("relay_consumers_worst_lag_events") == 0
        assert [one["cursor"] for one in web.admin("/admin/consumers/list").json] == [5]


def test_a_cursor_before_the_window_is_told_so_and_gets_all_there_is(start_web: StartWeb) -> None:
    web = start_web(initial_seq=100)
    web.publish(3)
    with consumer(web, "?cursor=50") as client:
        info = frames.decode(client.recv(timeout=60))  # type: ignore[arg-type]
        assert isinstance(info, Info) and info.name == "OutdatedCursor"
        assert seqs(client, 3) == [100, 101, 102]
    with consumer(web, "?cursor=0") as client:
        assert seqs(client, 1) == [100]


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "1e3", "9" * 30 + "x", "%00", "%D9%A3", "x&cursor=2"])
def test_a_cursor_that_is_no_integer_is_refused_before_the_upgrade(web: Web, cursor: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{web.stream}?cursor={cursor}")
    response = refused.value.response
    assert response.status_code == 400
    assert json.loads(response.body or b"")["error"] == "InvalidRequest"


def test_without_an_upgrade_it_is_an_http_error(web: Web) -> None:
    plain = web.get(PATH)
    assert (plain.status, plain.json["error"]) == (426, "UpgradeRequired")
    assert plain.headers["Upgrade"] == "websocket" and "atproto-relay" in plain.headers["Server"]
    posted = call(web.url + PATH, {})
    assert (posted.status, posted.json["error"]) == (405, "MethodNotAllowed")
    with raw(web, handshake().replace(PATH.encode(), b"/_healthz")) as sock:
        assert head_of(sock).startswith(b"HTTP/1.1 400 ")
        assert b"nothing here is a WebSocket" in sock.recv(1000)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Version: 13", b"Version: 12"), b"426"),
        ((b"Sec-WebSocket-Version: 13\r\n", b""), b"426"),
        ((b"HTTP/1.1", b"HTTP/1.0"), b"426"),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"), b"400"),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"!"), b"400"),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ\xe9\xe9"), b"400"),
        ((b"GET", b"POST"), b"4"),
        ((b"GET", b"HEAD"), b"426"),
        ((b"GET", b"BREW"), b"501"),
        ((PATH.encode(), b"/xrpc/com.atproto.sync.listRepos"), b"400"),
        ((PATH.encode(), b"/"), b"400"),
    ],
)
def test_a_broken_handshake_is_an_http_error(
    web: Web,
    change: tuple[bytes, bytes],
    status: bytes,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with raw(web, handshake().replace(*change)) as sock:
        line = head_of(sock).split(b"\r\n")[0]
    assert line.split(b" ")[1].startswith(status), line
    assert not list(web.services.consumers)
    assert not caplog.messages and capfd.readouterr().err == ""


def test_the_upgrade_names_the_relay(web: Web) -> None:
    with connect(web.stream) as client:
        assert client.response is not None and "(atproto-relay)" in client.response.headers["Server"]


def test_limits_are_told_before_the_upgrade_and_room_comes_back(start_web: StartWeb) -> None:
    web = start_web(max_consumers=3, max_consumers_per_address=2)

    def attempt(address: str) -> int:
        try:
            with connect(web.stream, additional_headers={"X-Forwarded-For": address}):
                return 101
        except InvalidStatus as refused:
            assert refused.response.headers["Retry-After"] == "60"
            return refused.response.status_code

    one: dict[str, Any] = {"additional_headers": {"X-Forwarded-For": "198.51.100.1"}}
    with consumer(web, **one), consumer(web, **one):
        until(lambda: len(list(web.services.consumers)) == 2)
        assert attempt("198.51.100.1") == 429
        with consumer(web, additional_headers={"X-Forwarded-For": "198.51.100.2"}):
            until(lambda: len(list(web.services.consumers)) == 3)
            assert attempt("198.51.100.3") == 429
    until(lambda: not list(web.services.consumers))
    assert attempt("198.51.100.1") == 101


def test_who_comes_back_at_once_has_the_place_that_it_had(start_web: StartWeb) -> None:
    """Before it is found that nobody is at the other end of its last connection."""
    web = start_web(max_consumers=1)
    web.publish(5)
    for cursor in range(4):
        with raw(web, handshake(f"?cursor={cursor}")) as sock:
            assert b" 101 " in head_of(sock)


def test_few_wait_for_a_place(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "PLACE_SECONDS", 3600.0)
    monkeypatch.setattr(consumers, "MAX_WAITING", 2)
    web = start_web(max_consumers=1)
    with consumer(web), raw(web, handshake()) as one, raw(web, handshake()) as other:
        until(lambda: web.services.consumers._waiting == 2)
        with raw(web, handshake()) as third:
            assert b" 429 " in head_of(third)
        stopping = gevent.spawn(web.server.stop, 10)
        assert b" 503 " in head_of(one) and b" 503 " in head_of(other)
        stopping.get(timeout=60)


def test_a_consumer_is_listed_with_what_it_took(web: Web) -> None:
    web.publish(5)
    with consumer(web, "?cursor=2", user_agent_header="test/1") as client:
        assert seqs(client, 3) == [3, 4, 5]
        (listed,) = web.admin("/admin/consumers/list").json
    assert (listed["remote_addr"], listed["user_agent"], listed["events_consumed"]) == ("127.0.0.1", "test/1", 3)


def test_a_ping_is_answered_also_between_large_events(web: Web) -> None:
    with consumer(web) as client:
        pongs = []
        for _ in range(3):
            pongs.append(client.ping())
            web.publish(20, size=200_000)
            assert len(seqs(client, 20)) == 20
        assert all(pong.wait(timeout=60) for pong in pongs)


def test_what_came_with_the_handshake_is_answered(web: Web) -> None:
    ping = Frame(Opcode.PING, b"early").serialize(mask=True)
    with raw(web, handshake() + ping) as sock:
        assert b"101" in head_of(sock)
        assert sock.recv(7) == Frame(Opcode.PONG, b"early").serialize(mask=False)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (Frame(Opcode.BINARY, bytes(65537)).serialize(mask=True), 1009),
        (bytes((0x82, 0xFF)) + (2**62).to_bytes(8), 1009),
        (Frame(Opcode.BINARY, b"unmasked").serialize(mask=False), 1002),
        (Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True), 1000),
    ],
)
def test_what_a_consumer_must_not_send_ends_it_with_a_code(web: Web, sent: bytes, code: int) -> None:
    with raw(web, handshake()) as sock:
        head_of(sock)
        sock.sendall(sent)
        closing = sock.recv(4)
        assert (closing[0], int.from_bytes(closing[2:4])) == (0x88, code)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass
    until(lambda: not list(web.services.consumers))


def floods(web: Web, frame: bytes, count: int) -> tuple[list[int], list[float]]:
    """The close codes of `count` consumers that send `frame` for as long as they can, and others' waits meanwhile."""
    codes: list[int] = []

    def flood() -> None:
        with raw(web, handshake() + frame) as sock:
            head_of(sock)

            def send() -> None:
                with suppress(OSError):
                    while True:
                        sock.sendall(frame * 200)

            sending = gevent.spawn(send)
            received = b""
            with suppress(OSError):
                while data := sock.recv(4096):
                    received += data
            sending.kill()
            end = received.rfind(b"\x88")
            codes.append(int.from_bytes(received[end + 2 : end + 4]))

    flooding = [gevent.spawn(flood) for _ in range(count)]
    waits: list[float] = []
    while not all(greenlet.ready() for greenlet in flooding) and len(waits) < 1000:
        began = time.monotonic()
        assert web.get("/_healthz").status == 200
        waits.append(time.monotonic() - began)
        gevent.sleep(0.01)
    gevent.killall(flooding)
    return codes, sorted(waits)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Opcode.PING, b"").serialize(mask=True),
        Frame(Opcode.PING, bytes(125)).serialize(mask=True),
        Frame(Opcode.PONG, b"").serialize(mask=True),
        Frame(Opcode.BINARY, b"").serialize(mask=True),
        Frame(Opcode.TEXT, bytes(60_000)).serialize(mask=True),
        Frame(Opcode.BINARY, b"x", fin=False).serialize(mask=True) + Frame(Opcode.CONT, b"").serialize(mask=True),
        Frame(Opcode.BINARY, b"", fin=False).serialize(mask=True)
        + Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 10_000
        + Frame(Opcode.CONT, b"").serialize(mask=True),
    ],
    ids=["pings", "large pings", "pongs", "empty messages", "large messages", "crumbs", "a message without end"],
)
def test_consumers_that_say_much_are_closed_and_slow_nobody(web: Web, frame: bytes) -> None:
    codes, waits = floods(web, frame, 20)
    assert codes == [1008] * 20
    # The clients are in this process as well, and take their share.
    assert waits[len(waits) // 2] < 0.3 * PATIENCE, waits[-5:]
    until(lambda: not list(web.services.consumers))


def test_one_that_floods_keeps_its_place_a_while_but_not_when_the_relay_stops(
    start_web: StartWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = start_web()
    flood = Frame(Opcode.PING, b"").serialize(mask=True) * 1000
    with raw(web, handshake() + flood) as sock:
        head_of(sock)
        began = time.monotonic()
        assert sock.recv(2)[0] == 0x88
        assert time.monotonic() - began > consumer_connection.FLOOD_SECONDS
    monkeypatch.setattr(consumer_connection, "FLOOD_SECONDS", 3600.0)
    with raw(web, handshake() + flood) as sock:
        head_of(sock)
        gevent.sleep(1.5)
        stopping = gevent.spawn(web.server.stop, 10)
        assert sock.recv(2)[0] == 0x88
        sock.close()
        stopping.get(timeout=60)


def test_pings_are_answered_once_a_second(web: Web) -> None:
    with raw(web, handshake()) as sock:
        head_of(sock)
        for number in range(30):
            sock.sendall(Frame(Opcode.PING, b"%02d" % number).serialize(mask=True))
        sock.settimeout(2.5)
        received = b""
        with suppress(TimeoutError):
            while len(received) < 100:
                received += sock.recv(100)
    assert received == Frame(Opcode.PONG, b"29").serialize(mask=False)


def test_data_from_a_consumer_is_ignored(web: Web) -> None:
    with consumer(web) as client:
        client.send(os.urandom(60_000))
        client.send("text")
        client.send([b"in", b"frag", b"ments"])
        assert client.ping().wait(timeout=60)
        web.publish(1)
        assert seqs(client, 1) == [1]


def test_a_consumer_that_is_gone_is_forgotten(web: Web) -> None:
    with raw(web, handshake()) as sock:
        head_of(sock)
        until(lambda: list(web.services.consumers))
    until(lambda: not list(web.services.consumers))


def test_a_consumer_that_answers_no_ping_is_closed(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_connection, "TICK", 0.1)
    monkeypatch.setattr(consumer_connection, "PING_INTERVAL", 0.3)
    with raw(web, handshake()) as sock, consumer(web) as answering:
        head_of(sock)
        assert sock.recv(2) == b"\x89\x00"
        assert sock.recv(2)[0] == 0x88
        web.publish(1)
        assert seqs(answering, 1) == [1]


def test_a_consumer_that_reads_nothing_is_told_when_it_reads_again(start_web: StartWeb) -> None:
    web = start_web(consumer_stall=0.3)
    with raw(web, handshake()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head_of(sock)
        until(lambda: list(web.services.consumers))
        before = metrics.CONSUMERS_ENDED.labels("stalled")._value.get()
        web.publish(100, size=200_000)
        until(lambda: metrics.CONSUMERS_ENDED.labels("stalled")._value.get() > before)
        received = bytearray()
        while data := sock.recv(1 << 20):
            received += data
    last = bytes(received[received.rindex(b"ConsumerTooSlow") - 200 :])
    assert b"error" in last
    # What came is whole frames up to the last: the stall did not cut one.
    end = count = 0
    while end < len(received):
        length, header = received[end + 1], 2
        if length >= 126:
            header = 4 if length == 126 else 10
            length = int.from_bytes(received[end + 2 : end + header])
        opcode, end = received[end] & 15, end + header + length
        count += 1
    assert end == len(received) and opcode == 8 and 2 < count < 102


def test_a_slow_consumer_that_reads_is_served(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_connection, "TICK", 0.05)
    monkeypatch.setattr(consumer_connection, "PING_INTERVAL", 0.2)
    web = start_web(consumer_stall=5.0)
    for _ in range(60):
        web.publish(1, size=200_000)
    with raw(web, handshake("?cursor=0")) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head_of(sock)
        taken = 0
        # It answers no ping: with megabytes before it, it has not even seen one.
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            taken += len(sock.recv(100_000))
            gevent.sleep(0.05)
        while taken < 60 * 200_000:
            data = sock.recv(1 << 20)
            assert data, f"cut off after {taken} bytes"
            taken += len(data)


def test_a_consumer_that_falls_out_of_the_window_is_told(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    web = start_web(tail_bytes=1)
    web.publish(3)
    feed = web.firehose.attach(1)
    # The first three are in a segment of their own, which is then trimmed.
    monkeypatch.setattr(web.log, "_segment_bytes", 1)
    web.publish(1)
    web.log.trim(0, 1, web.log.next_seq)
    web.firehose.attach = lambda cursor: feed  # type: ignore[method-assign]
    with connect(web.stream + "?cursor=1") as client:
        messages, code = ending(client)
    error = frames.decode(messages[-1])
    assert isinstance(error, StreamError) and error.error == "ConsumerTooSlow" and code == 1008


@pytest.mark.parametrize(("owner", "name"), [(Firehose, "attach"), (Feed, "next")])
def test_a_log_that_cannot_be_read_ends_a_consumer_and_is_counted(
    web: Web, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    def fail(*_: object) -> None:
        raise LogError("log-io", "Input/output error")

    monkeypatch.setattr(owner, name, fail)
    before = metrics.CONSUMERS_ENDED.labels("log-io")._value.get()
    with connect(web.stream, max_size=None, ping_interval=None) as client:
        assert ending(client) == ([], 1011)
    until(lambda: not list(web.services.consumers))
    assert metrics.CONSUMERS_ENDED.labels("log-io")._value.get() == before + 1


def test_stopping_sends_what_is_logged_then_says_goodbye(start_web: StartWeb) -> None:
    web = start_web()
    web.publish(2000, size=2000)
    with consumer(web, "?cursor=0") as behind, consumer(web) as live:
        web.publish(1)
        stopping = gevent.spawn(web.server.stop, 10)
        gevent.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", web.server.port), timeout=1)
        assert list(web.services.consumers)
        messages, code = ending(behind)
        assert (len(messages), code) == (2001, 1001)
        assert ending(live)[1] == 1001
        stopping.get(timeout=60)


def test_stopping_does_not_wait_for_a_consumer_that_does_not_read(start_web: StartWeb) -> None:
    web = start_web()
    with raw(web, handshake()) as sock:
        head_of(sock)
        web.publish(100, size=200_000)
        started = time.monotonic()
        web.server.stop(0.5)
        assert time.monotonic() - started < 3 * PATIENCE

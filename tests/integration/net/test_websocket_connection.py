"""One WebSocket against a real server on loopback, plain and TLS: messages, keep-alive, and every way to end badly."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import gevent
import pytest

from relay.net import websocket_connection
from relay.net.gathering import Gathering
from relay.net.websocket_connection import Connection, StreamEnded, Timing
from relay.net.websocket_reader import FrameReader, PassedOver
from tests.support import dialling
from tests.support.certificate import server_context
from tests.support.dialling import PATIENT, QUICK
from tests.support.living import living, without_collections
from tests.support.pds import PING, PONG, TEXT, FakePds, websocket_frame
from tests.support.wait import PATIENCE, until

# What the connections of a test wait by.
GATHERED: dict[str, Gathering | None] = {}


@pytest.fixture(autouse=True, params=["alone", "gathered"])
def wait(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GATHERED, "by", None if request.param == "alone" else Gathering())


def connect(pds: FakePds, timing: Timing = PATIENT, certificate: Path | None = None) -> Connection:
    return dialling.connect(pds, timing, certificate, gathering=GATHERED["by"])


def end(stream: Connection) -> StreamEnded:
    with pytest.raises(StreamEnded) as caught:
        while True:
            stream.receive()
    stream.close()
    return caught.value


def messages(stream: Connection, count: int) -> list[bytes | PassedOver]:
    found: list[bytes | PassedOver] = []
    while len(found) < count:
        found += stream.receive()
    return found


def test_messages_come_whole_and_in_order_over_plain_and_tls(certificate: Path) -> None:
    sent = [b"x" * size for size in (0, 1, 125, 126, 65_535, 65_536, 200_000)]
    for tls in (None, server_context(certificate)):
        with FakePds(tls=tls) as pds:
            stream = connect(pds, certificate=certificate)
            for seq, message in enumerate(sent, 1):
                pds.publish(seq, message)
            assert messages(stream, len(sent)) == sent
            assert pds.user_agents == ["relay-test/1 (atproto-relay)"]
            stream.close()


def test_fragments_become_one_message_with_a_ping_in_between(pds: FakePds) -> None:
    def fragments(sock: socket.socket) -> None:
        sock.sendall(websocket_frame(b"one ", 2, fin=False) + websocket_frame(b"", PING))
        sock.sendall(websocket_frame(b"two ", 0, fin=False) + websocket_frame(b"three", 0))
        gevent.sleep(5)

    pds.on_stream = fragments
    assert connect(pds).receive() == [b"one two three"]


def test_a_quiet_host_is_pinged_and_kept(pds: FakePds) -> None:
    stream = connect(pds, QUICK)
    reader = gevent.spawn(stream.receive)
    until(lambda: pds.pings >= 2)
    assert not reader.dead
    pds.publish(1, b"news")
    assert reader.get(timeout=30) == [b"news"]


def test_a_host_that_sends_nothing_but_pings_is_kept(pds: FakePds) -> None:
    def send(sock: socket.socket) -> None:
        for _ in range(20):
            sock.sendall(websocket_frame(b"", PING))
            gevent.sleep(0.1)
        sock.sendall(websocket_frame(b"news"))
        gevent.sleep(5)

    pds.on_stream = send
    assert connect(pds, Timing(whole_frame=1.0)).receive() == [b"news"]


def test_a_host_that_has_pinged_is_waited_for_as_before(pds: FakePds) -> None:
    def send(sock: socket.socket) -> None:
        sock.sendall(websocket_frame(b"", PING))
        for _ in range(4):
            # The answer to that, then pings.
            sock.recv(1 << 10)
            sock.sendall(websocket_frame(b"", PONG))
        sock.sendall(websocket_frame(b"news"))
        gevent.sleep(5)

    pds.on_stream = send
    assert connect(pds, Timing(quiet=0.4)).receive() == [b"news"]


def test_a_ping_now_and_then_is_not_a_flood(pds: FakePds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_connection, "SMALL_FRAMES_ALLOWED", 100)
    monkeypatch.setattr(websocket_connection, "SMALL_FRAMES_SECONDS", 60.0)
    count = 40

    def send(sock: socket.socket) -> None:
        for _ in range(count):
            sock.sendall(websocket_frame(b"", PING) + websocket_frame(b"m"))
            sock.recv(1 << 10)
        gevent.sleep(5)

    pds.on_stream = send
    with gevent.Timeout(30):
        assert messages(connect(pds), count) == [b"m"] * count


def test_a_host_that_does_not_answer_pings_is_left(pds: FakePds) -> None:
    pds.answer_pings = False
    started = time.monotonic()
    assert end(connect(pds, QUICK)).reason == "no-pong"
    assert time.monotonic() - started < 2 * PATIENCE


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), "message-too-big"),
        (b"\xff\xff garbage without end", "websocket-invalid"),
        (websocket_frame(b"\x03\xe8bye", 8), "closed"),
        (websocket_frame(b"\x03", 8), "closed"),
        (b"", "connection-lost"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_broken_stream_ends_with_its_reason(pds: FakePds, raw: bytes, reason: str) -> None:
    pds.on_stream = lambda sock: sock.sendall(raw)
    assert end(connect(pds)).reason == reason


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (websocket_frame(b"hello", TEXT), "text-message"),
        (b"\x82\x85maskhello", "websocket-invalid"),
        (b"\xc2\x05hello", "websocket-invalid"),
        (websocket_frame(b"x" * 5_000_001), "message-too-big"),
        (websocket_frame(b"x" * 3_000_000, fin=False) + websocket_frame(b"x" * 3_000_000, 0), "message-too-big"),
    ],
    ids=["text", "masked", "compressed", "too long", "too long in parts"],
)
def test_one_message_that_must_not_be_is_passed_over(pds: FakePds, raw: bytes, reason: str) -> None:
    def between(sock: socket.socket) -> None:
        sock.sendall(websocket_frame(b"before") + raw + websocket_frame(b"behind"))
        sock.recv(9)

    pds.on_stream = between
    before, over, behind = messages(connect(pds), 3)
    assert isinstance(over, PassedOver)
    assert (before, over.reason, behind) == (b"before", reason, b"behind")


def test_a_flood_of_pings_and_crumbs_is_read_more_slowly_and_ends_nothing(
    pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_connection, "SMALL_FRAMES_ALLOWED", 100)
    monkeypatch.setattr(websocket_connection, "SMALL_FRAMES_SECONDS", 0.5)
    crumbs = websocket_frame(b"a", 2, fin=False) + websocket_frame(b"b", 0, fin=False) * 300 + websocket_frame(b"c", 0)
    flood = websocket_frame(b"", PING) * 300 + crumbs

    def send(sock: socket.socket) -> None:
        sock.sendall(flood)
        sock.recv(1 << 16)
        gevent.sleep(5)

    pds.on_stream = send
    started = time.monotonic()
    assert messages(connect(pds), 1) == [b"a" + b"b" * 300 + b"c"]
    assert time.monotonic() - started > 0.4


def test_a_receiver_with_patience_gets_nothing_when_nothing_comes(pds: FakePds) -> None:
    def send(sock: socket.socket) -> None:
        sock.sendall(websocket_frame(b"one"))
        gevent.sleep(1)

    pds.on_stream = send
    stream = connect(pds)
    assert stream.receive(1.0) == [b"one"]
    started = time.monotonic()
    assert stream.receive(0.1) == []
    assert 0.09 < time.monotonic() - started < 0.5 * PATIENCE


def test_patience_has_an_end_while_a_message_trickles_in(pds: FakePds) -> None:
    ended = False

    def trickle(sock: socket.socket) -> None:
        sock.sendall(b"\x82\x7e\xff\xff")
        while not ended:
            sock.sendall(b"x")
            gevent.sleep(0.0001)

    pds.on_stream = trickle
    stream = connect(pds, Timing(whole_frame=20.0))
    assert stream.receive(0.2) == []
    ended = True


def test_of_many_pings_the_last_one_is_answered(pds: FakePds) -> None:
    answers: list[bytes] = []

    def send(sock: socket.socket) -> None:
        sock.sendall(b"".join(websocket_frame(b"%d" % number, PING) for number in range(1000)) + websocket_frame(b"m"))
        answers.append(sock.recv(1 << 16))
        gevent.sleep(5)

    pds.on_stream = send
    assert messages(connect(pds), 1) == [b"m"]
    until(lambda: answers != [])
    head, length, *mask = answers[0][:6]
    payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(answers[0][6 : 6 + (length & 0x7F)]))
    assert (head, payload, len(answers[0])) == (0x8A, b"999", 9)


def test_what_came_before_a_ping_is_handed_on_though_the_host_is_gone(
    pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    pds.on_stream = lambda sock: sock.sendall(websocket_frame(b"last words") + websocket_frame(b"", PING))
    stream = connect(pds)

    def gone(*_: object) -> None:
        raise ConnectionResetError("gone")

    sealed = stream._socket
    monkeypatch.setattr(type(sealed), "sendall", gone)
    assert stream.receive() == [b"last words"]
    assert end(stream).reason == "connection-lost"


def test_messages_before_the_end_are_not_lost(pds: FakePds) -> None:
    pds.on_stream = lambda sock: sock.sendall(websocket_frame(b"last words") + websocket_frame(b"\x03\xe8", 8))
    stream = connect(pds)
    assert stream.receive() == [b"last words"]
    assert end(stream).reason == "closed"


def test_a_host_that_trickles_a_frame_is_left(pds: FakePds) -> None:
    def trickle(sock: socket.socket) -> None:
        sock.sendall(b"\x82\x7e\xff\xff")
        while True:
            sock.sendall(b"x")
            gevent.sleep(0.02)

    pds.on_stream = trickle
    assert end(connect(pds, QUICK)).reason == "message-stalled"


@pytest.mark.parametrize("raw", [b"", websocket_frame(b"\x03\xe8bye", 8)], ids=["cut off", "closed"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_a_connection_that_has_ended_leaves_nothing(certificate: Path, encrypted: bool, raw: bytes) -> None:
    """Hosts reconnect for weeks, and a full collection of garbage does not come."""
    with FakePds(tls=server_context(certificate) if encrypted else None) as pds:
        pds.on_stream = lambda sock: sock.sendall(raw)
        network = connect(pds, certificate=certificate)
        network.close()
        del network
        with without_collections():
            others = {id(one) for one in living(Connection, FrameReader, StreamEnded)}
            for _ in range(3):
                # Not by `pytest.raises`, which keeps what was raised.
                stream = connect(pds, certificate=certificate)
                try:
                    while True:
                        stream.receive()
                except StreamEnded:
                    stream.close()
                del stream
            assert not [one for one in living(Connection, FrameReader, StreamEnded) if id(one) not in others]

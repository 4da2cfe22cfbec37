"""TLS with servers that misbehave, over real sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from relay.net import tls_socket
from relay.net.gathering import Gathering
from relay.net.http import GuardedHttp
from relay.net.tls_socket import PIECE_BYTES, SPARE_BYTES, TlsSocket
from relay.net.websocket_connection import Connection, StreamEnded, Timing
from tests.support import tickets
from tests.support.certificate import server_context
from tests.support.pds import websocket_frame
from tests.support.tickets import TICKETS_BYTES, WORDS

RECORDS = 100


@contextmanager
def served(context: ssl.SSLContext, serve: Callable[[Any], None]) -> Iterator[int]:
    """The port of a server with that context."""

    def handle(sock: Any, _address: object) -> None:
        try:
            serve(sock)
            gevent.sleep(600)
        except OSError:
            pass  # the client has had enough

    server = StreamServer(("127.0.0.1", 0), handle, ssl_context=context)
    server.start()
    try:
        yield int(server.server_port or 0)
    finally:
        server.stop(timeout=0)


def dial(port: int, certificate: Path) -> TlsSocket:
    http = GuardedHttp("test", allow_insecure=True)
    http.tls_context().load_verify_locations(certificate)
    plain = http.connect("127.0.0.1", port, 30.0)
    sealed: Any = http.tls_context().wrap_socket(plain, server_hostname="localhost")
    assert isinstance(sealed, TlsSocket)
    sealed.settimeout(30.0)
    return sealed


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was rested, without doing so."""
    rested: list[float] = []

    def rest(seconds: float = 0.0) -> None:
        rested.append(seconds)
        gevent.sleep(0)

    monkeypatch.setattr(tls_socket, "gevent", SimpleNamespace(sleep=rest))
    return rested


class Others:
    """Counts the turns that others have."""

    def __init__(self) -> None:
        self.turns = 0
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        wait = gevent.get_hub().wait
        while True:
            wait(gevent.get_hub().loop.timer(0.0))
            self.turns += 1

    def stop(self) -> None:
        self._greenlet.kill()


@pytest.fixture
def others() -> Iterator[Others]:
    made = Others()
    yield made
    made.stop()


@pytest.mark.parametrize("way", ["socket", "connection", "gathered"])
def test_tickets_without_end_hold_nobody_up(
    certificate: Path, tmp_path: Path, rests: list[float], others: Others, way: str
) -> None:
    keys = tmp_path / "keys"
    with served(tickets.context(certificate, keys), tickets.flood(keys, RECORDS)) as port:
        sealed = dial(port, certificate)
        # All that fits into the buffers in between has come.
        gevent.get_hub().join(timeout=0.3)
        before = others.turns
        if way == "socket":
            assert sealed.recv(100) == WORDS
        else:
            stream = Connection(sealed, b"", Timing(), gathering=Gathering() if way == "gathered" else None)
            assert stream.receive() == [b"words"]
            stream.close()
    flooded = RECORDS * TICKETS_BYTES
    assert others.turns - before >= flooded // PIECE_BYTES // 4
    assert sum(rests) >= tls_socket.BYTE_SECONDS * (flooded - SPARE_BYTES) / 2


@pytest.mark.parametrize("gathered", [False, True])
def test_tickets_that_trickle_in_are_nothing_to_read(certificate: Path, tmp_path: Path, gathered: bool) -> None:
    """Whoever has patience waits no longer for them, and they are no answer to a ping."""
    keys = tmp_path / "keys"
    with served(tickets.context(certificate, keys), tickets.trickle(keys, 0.002)) as port:
        sealed = dial(port, certificate)
        stream = Connection(sealed, b"", Timing(quiet=0.5), gathering=Gathering() if gathered else None)
        with gevent.Timeout(10):
            assert stream.receive(0.2) == []
            with pytest.raises(StreamEnded) as ended:
                stream.receive()
        stream.close()
    assert ended.value.reason == "no-pong"


def test_a_goodbye_ends_the_stream_though_the_network_stays_open(certificate: Path) -> None:
    """It comes along with the last words, and the server waits for an answer."""

    def serve(sock: Any) -> None:
        sock.sendall(websocket_frame(b"last words"))
        sock.unwrap()

    with served(server_context(certificate), serve) as port:
        sealed = dial(port, certificate)
        gevent.sleep(0.2)
        stream = Connection(sealed, b"", Timing())
        with gevent.Timeout(10):
            assert stream.receive() == [b"last words"]
            with pytest.raises(StreamEnded) as ended:
                stream.receive()
        stream.close()
    assert ended.value.reason == "connection-lost"


def test_a_sound_server_is_never_made_to_rest(certificate: Path, rests: list[float]) -> None:
    """Not for records of one byte either, nor for large ones."""
    sent = [bytes([number % 256]) * size for size in (1, 100, 5_000, 70_000) for number in range(300)]

    def serve(sock: Any) -> None:
        for piece in sent:
            sock.sendall(piece)

    with served(server_context(certificate), serve) as port:
        sealed = dial(port, certificate)
        got = bytearray()
        while len(got) < sum(map(len, sent)):
            got += sealed.recv(16 << 10)
        sealed.close()
    assert got == b"".join(sent)
    assert rests == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("goodbye", [True, False])
def test_both_ways_and_the_end(certificate: Path, version: ssl.TLSVersion, goodbye: bool) -> None:
    context = server_context(certificate)
    context.maximum_version = version
    asked: list[bytes] = []

    def serve(sock: Any) -> None:
        while len(b"".join(asked)) < 200_000:
            asked.append(sock.recv(16 << 10))
        sock.sendall(websocket_frame(b"one") + websocket_frame(b"two"))
        if goodbye:
            sock.unwrap()
        sock.shutdown(socket.SHUT_WR)

    with served(context, serve) as port:
        sealed = dial(port, certificate)
        sealed.sendall(bytes(200_000))
        assert sealed.version() == version.name.replace("_", ".")
        stream = Connection(sealed, b"", Timing())
        got: list[object] = []
        with pytest.raises(StreamEnded) as ended:
            while True:
                got += stream.receive()
        stream.close()
    assert (got, ended.value.reason) == ([b"one", b"two"], "connection-lost")


def test_a_server_may_not_shake_hands_again() -> None:
    """As TLS 1.2 allows: each time is a millisecond of work."""
    assert GuardedHttp("test", allow_insecure=True).tls_context().options & ssl.OP_NO_RENEGOTIATION


def test_a_handshake_that_fails_closes_the_socket(certificate: Path) -> None:
    with served(server_context(certificate), lambda sock: None) as port:
        http = GuardedHttp("test", allow_insecure=True)
        plain = http.connect("127.0.0.1", port, 30.0)
        descriptor = plain.fileno()
        with pytest.raises(ssl.SSLCertVerificationError):
            http.tls_context().wrap_socket(plain, server_hostname="localhost")
        with pytest.raises(OSError, match="Bad file descriptor"):
            socket.socket(fileno=descriptor)

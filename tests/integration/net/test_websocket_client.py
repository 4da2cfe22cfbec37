"""Dialling a host on loopback, plain and TLS: every way in which it can fail."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gevent
import pytest
from websockets.client import ClientProtocol

from relay.atproto.hostname import Endpoint
from relay.kit.allocator import _mallinfo2
from relay.net.http import GuardedHttp
from relay.net.websocket_client import PATH, dial
from relay.net.websocket_connection import StreamEnded
from tests.support.certificate import server_context
from tests.support.dialling import QUICK, connect
from tests.support.living import living, without_collections
from tests.support.pds import FakePds
from tests.support.wait import PATIENCE


def failure(pds: FakePds, allow_insecure: bool = True) -> StreamEnded:
    with pytest.raises(StreamEnded) as caught:
        connect(pds, QUICK, allow_insecure=allow_insecure)
    return caught.value


def test_silence_and_endless_handshakes_meet_the_same_deadline(pds: FakePds, certificate: Path) -> None:
    def endless(first: bytes, then: bytes) -> Callable[[socket.socket], None]:
        def serve(sock: socket.socket) -> None:
            sock.sendall(first)
            while True:
                sock.sendall(then)
                gevent.sleep(0.02)

        return serve

    for scheme, behaviour in (
        ("http", lambda sock: gevent.sleep(5)),
        ("https", lambda sock: gevent.sleep(5)),
        ("http", endless(b"HTTP/1.1 101 Switching\r\n", b"X-Filler: x\r\n")),
        ("https", endless(b"\x16\x03\x03\x40\x00", b"\x02")),
    ):
        pds.on_accept = behaviour
        pds._scheme = scheme
        started = time.monotonic()
        assert failure(pds).reason == "dial-timeout"
        assert time.monotonic() - started < 1.5 * PATIENCE


def test_refusals_say_what_the_host_answered(pds: FakePds) -> None:
    pds.refuse_upgrade = 404
    error = failure(pds)
    assert (error.reason, error.detail) == ("handshake-refused", "HTTP 404 Status")
    pds.refuse_upgrade = 302
    assert failure(pds).reason == "handshake-refused"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, b'{"error":"FutureCursor","message":"not yet"}', "future-cursor"),
        (400, b'{"error":"InvalidRequest"}', "handshake-refused"),
        (400, b'["FutureCursor"]', "handshake-refused"),
        (400, b"[" * 20_000, "handshake-refused"),
        (400, b"\xff", "handshake-refused"),
        (404, b'{"error":"FutureCursor"}', "handshake-refused"),
    ],
)
def test_a_host_may_say_before_the_upgrade_that_it_is_not_that_far(
    pds: FakePds, status: int, body: bytes, reason: str
) -> None:
    pds.refuse_upgrade, pds.refusal = status, body
    assert failure(pds).reason == reason


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [("7", 7.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", 0.0), ("1\r\nRetry-After: 2", 0.0)],
)
def test_how_long_a_host_wants_to_be_left_alone(pds: FakePds, lines: str, seconds: float) -> None:
    pds.refuse_upgrade, pds.refusal_headers = 429, {"Retry-After": lines}
    error = failure(pds)
    assert (error.reason, error.detail, error.retry_after) == ("handshake-refused", "HTTP 429 Status", seconds)
    pds.refusal_headers = {}
    assert failure(pds).retry_after == 0.0


def test_what_is_no_http_at_all_is_refused(pds: FakePds) -> None:
    pds.on_accept = lambda sock: sock.sendall(b"\x00\x01 garbage\r\n\r\n")
    assert failure(pds).reason == "handshake-invalid"
    pds.on_accept = lambda sock: None
    assert failure(pds).reason in ("handshake-invalid", "connection-lost")


def test_a_relay_is_not_crawled(pds: FakePds) -> None:
    pds.server_header = "indigo-relay/1.0 (atproto-relay)"
    assert failure(pds).reason == "loop"
    pds.refuse_upgrade = 400
    assert failure(pds).reason == "loop"


def test_an_open_connection_keeps_nothing_of_its_handshake(pds: FakePds, certificate: Path) -> None:
    with without_collections():
        # Other tests of the process may have theirs.
        before = len(living(ClientProtocol))
        stream = connect(pds)
        assert len(living(ClientProtocol)) <= before
        stream.close()
        pds.refuse_upgrade = 500
        with suppress(StreamEnded):
            connect(pds)
        assert len(living(ClientProtocol)) <= before
        pds.on_accept = lambda sock: gevent.sleep(5)
        with suppress(StreamEnded):
            connect(pds, QUICK)
        assert len(living(ClientProtocol)) <= before


@pytest.mark.skipif(_mallinfo2 is None, reason="needs glibc")
def test_a_quiet_tls_connection_has_no_buffer_for_writing(certificate: Path) -> None:
    assert _mallinfo2 is not None
    with FakePds(tls=server_context(certificate)) as pds:
        stream = connect(pds, certificate=certificate)
        before = _mallinfo2().uordblks
        stream._socket.send(b"")
        freed = before - _mallinfo2().uordblks
        stream.close()
    assert freed < 8 << 10


def test_a_certificate_that_is_not_trusted_is_refused(certificate: Path) -> None:
    with FakePds(tls=server_context(certificate)) as pds:
        assert failure(pds).reason == "tls-failed"


def test_private_addresses_are_refused_without_the_setting(pds: FakePds) -> None:
    assert failure(pds, allow_insecure=False).reason == "address-refused"
    assert pds.requests == []


@pytest.mark.parametrize("name", ["", "pds.example.com:99999", "[::1", "pds.example.com:x"])
def test_what_is_not_the_name_of_a_host(name: str) -> None:
    """As rows may have it that were made by hand."""
    http = GuardedHttp("tests", allow_insecure=True)
    with pytest.raises(StreamEnded) as caught:
        dial(http, Endpoint(name, True), PATH, QUICK)
    assert caught.value.reason == "name-unresolved"


def test_nobody_listens(pds: FakePds) -> None:
    pds._server.stop()
    assert failure(pds).reason == "connect-failed"

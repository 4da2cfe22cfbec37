"""Dials the WebSocket of a host or relay: the address, TLS, and the opening handshake, all under one deadline.

The `websockets` library's protocol without I/O shakes hands on a gevent socket; the `Connection` reads what follows.
Used by the subscriber, by an edge's source and by `relay compare`. Must not know of cursors, of hosts' states, or of
what is sent once a connection is open.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import gevent
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidURI
from websockets.http11 import Response
from websockets.uri import WebSocketURI, parse_uri

from relay.atproto.hostname import Endpoint
from relay.kit.errors import AddressRefused, HttpError, RelayError
from relay.net import http
from relay.net.gathering import Gathering
from relay.net.websocket_connection import (
    FUTURE_CURSOR,
    NO_DESCRIPTORS,
    READ_BYTES,
    Connection,
    StreamEnded,
    Timing,
    words_of,
)
from relay.net.websocket_reader import MAX_MESSAGE_BYTES

PATH = "/xrpc/com.atproto.sync.subscribeRepos"
# How much longer a relay's own seq may make the longest message of a host.
RELAY_SEQ_BYTES = 64
HEAD_END = b"\r\n\r\n"
TIMING = Timing()


def dial(
    client: http.GuardedHttp,
    endpoint: Endpoint,
    path: str,
    timing: Timing = TIMING,
    *,
    relay: bool = False,
    gathering: Gathering | None = None,
) -> Connection:
    """Open a WebSocket to `endpoint`: a host, or with `relay` perhaps a relay. Raises StreamEnded.

    `client` checks the address and connects. With `gathering` the socket is looked at together with others, otherwise
    it is read as soon as something comes.

    All steps share one deadline: a host that never ends its TLS or HTTP handshake holds its place among the bounded
    number of dials no longer than any other.
    """
    deadline = gevent.Timeout(timing.dial)
    opened: list[socket.socket] = []
    try:
        with deadline:
            sock, rest = _dial(client, endpoint, path, timing, opened, relay)
            max_bytes = MAX_MESSAGE_BYTES + (RELAY_SEQ_BYTES if relay else 0)
            return Connection(sock, rest, timing, max_bytes, gathering)
    except gevent.Timeout as timeout:
        _close(opened)
        if timeout is not deadline:
            raise
        # A local of the frames that its traceback holds: a circle.
        timeout.__traceback__ = None
        raise StreamEnded("dial-timeout", f"no connection within {timing.dial:g} seconds") from None
    except BaseException:
        _close(opened)
        raise


def _dial(
    client: http.GuardedHttp,
    endpoint: Endpoint,
    path: str,
    timing: Timing,
    opened: list[socket.socket],
    relay: bool,
) -> tuple[socket.socket, bytes]:
    """The socket after the handshake, and what the host sent along with it."""
    try:
        uri = parse_uri(f"{'wss' if endpoint.tls else 'ws'}://{endpoint.hostname}{path}")
    except (InvalidURI, ValueError):
        # A row of the table that another relay wrote, or somebody by hand.
        raise StreamEnded("name-unresolved", f"{endpoint.hostname[:80]!r} is not the name of a host") from None
    try:
        sock = client.connect(uri.host, uri.port, timing.connect)
        opened.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
    except AddressRefused as error:
        raise StreamEnded(error.reason, error.detail) from None
    except (RelayError, OSError) as error:
        ours = isinstance(error, HttpError) and error.reason == http.NO_DESCRIPTORS
        raise StreamEnded(NO_DESCRIPTORS if ours else "connect-failed", words_of(error)) from None
    if endpoint.tls:
        try:
            sock = client.tls_context().wrap_socket(sock, server_hostname=uri.host, do_handshake_on_connect=False)
            opened[0] = sock
            sock.do_handshake()
        except (OSError, ValueError) as error:
            raise StreamEnded("tls-failed", words_of(error)) from None
    rest = _handshake(sock, uri, client.user_agent, relay)
    if endpoint.tls:
        # OpenSSL 3.0 made 16 KiB of buffer when session tickets came, and frees it when something, or nothing, is sent.
        with suppress(OSError):
            sock.send(b"")
    return sock, rest


def _handshake(sock: socket.socket, uri: WebSocketURI, user_agent: str, relay: bool) -> bytes:
    """Upgrade to WebSocket. Returns what the host sent right after its answer. Raises StreamEnded."""
    protocol = ClientProtocol(uri)
    answer = bytearray()
    rest = b""
    request = protocol.connect()
    request.headers["User-Agent"] = user_agent
    protocol.send_request(request)
    try:
        sock.sendall(b"".join(protocol.data_to_send()))
        while not protocol.events and protocol.handshake_exc is None:
            data = sock.recv(READ_BYTES)
            if not data:
                protocol.receive_eof()
                continue
            given = len(answer)
            answer += data
            # Only the answer to an upgrade ends with its head; what follows is for another reader.
            end = answer.find(HEAD_END, max(given - len(HEAD_END), 0)) if answer.startswith(b"HTTP/1.1 101") else -1
            if end >= 0:
                data, rest = data[: end + len(HEAD_END) - given], data[end + len(HEAD_END) - given :]
            protocol.receive_data(data)
    except OSError as error:
        raise StreamEnded("connection-lost", words_of(error)) from None
    finally:
        # Its parser, and an error's traceback, are in a circle with the protocol.
        protocol.parser.close()
        if protocol.handshake_exc is not None:
            protocol.handshake_exc.__traceback__ = None
    response = protocol.events.pop(0) if protocol.events else None
    if isinstance(response, Response):
        _check(response, relay)
    if protocol.handshake_exc is not None:
        known = isinstance(protocol.handshake_exc, InvalidHandshake)
        raise StreamEnded("handshake-invalid", words_of(protocol.handshake_exc) if known else "no HTTP answer")
    return rest


def _check(response: Response, relay: bool) -> None:
    """Raise StreamEnded when the host refuses to upgrade, or is a relay where only hosts are wanted."""
    # Relays that crawl each other would pass the same events round and round.
    if not relay and any(http.RELAY_MARK in value.lower() for value in response.headers.get_all("Server")):
        raise StreamEnded("loop", "the host is itself a relay")
    if response.status_code == 101:
        return
    # Repeated ones cannot be read, and do not matter.
    headers = {"Retry-After": ", ".join(response.headers.get_all("Retry-After"))}
    answer = http.Response(response.status_code, headers, bytes(response.body or b""))
    if answer.status == 400 and (answer.json_object() or {}).get("error") == FUTURE_CURSOR:
        raise StreamEnded("future-cursor", f"{FUTURE_CURSOR} before the upgrade")
    refusal = f"HTTP {answer.status} {response.reason_phrase}"
    raise StreamEnded("handshake-refused", refusal, answer.retry_after())


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()

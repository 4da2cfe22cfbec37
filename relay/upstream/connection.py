"""One WebSocket to one host: dialling, the handshake, keep-alive, and whole messages out of bytes.

websockets' sans-I/O protocol on a gevent socket. Used by the subscriber, one greenlet per connection, which is the
only one to read and write here. Knows nothing of frames' content, cursors or host states.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import NamedTuple, Protocol

import gevent
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CLOSED, OPEN
from websockets.uri import parse_uri

from relay.atproto.hostname import Endpoint
from relay.errors import AddressRefused, RelayError

MAX_MESSAGE_BYTES = 5_000_000
# By so much a relay's own seq may make the largest message of a host longer.
RELAY_SEQ_BYTES = 64
CONNECT_SECONDS = 5.0
DIAL_SECONDS = 10.0
QUIET_SECONDS = 30.0
WHOLE_FRAME_SECONDS = 300.0
READ_BYTES = 16 << 10
SMALL_FRAME_BYTES = 126
SMALL_FRAMES_ALLOWED = 2_000
SMALL_FRAMES_SECONDS = 10.0
WORDS_KEPT = 200


class UpstreamError(RelayError):
    """The connection to a host could not be opened or has ended; `detail` is for the host's operator to read.

    Reasons, when opening: `address-refused`, `name-unresolved`, `connect-failed`, `dial-timeout`, `tls-failed`,
    `handshake-refused`, `handshake-invalid`, `loop`. Afterwards: `closed`, `connection-lost`, `no-pong`,
    `message-stalled`, `message-too-big`, `websocket-invalid`, `websocket-flood`, `text-message`; and, from what the
    messages say, those that `subscriber` raises.
    """


class Timing(NamedTuple):
    """Seconds that the parts of a connection may take."""

    connect: float = CONNECT_SECONDS
    dial: float = DIAL_SECONDS
    quiet: float = QUIET_SECONDS
    whole_frame: float = WHOLE_FRAME_SECONDS


class Network(Protocol):
    """Where connections come from: `identity.http.GuardedHttp`, which checks the address first."""

    def connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """A connected TCP socket."""


def dial(
    network: Network,
    tls: ssl.SSLContext,
    endpoint: Endpoint,
    path: str,
    user_agent: str,
    timing: Timing,
    *,
    relay: bool = False,
) -> Connection:
    """Open a WebSocket to `endpoint`, which is to be a host, or with `relay` may be a relay. Raises UpstreamError.

    All steps share one deadline: a host that makes its TLS or HTTP handshake last for ever holds its place among the
    bounded number of dials for no longer than anyone else.
    """
    deadline = gevent.Timeout(timing.dial)
    opened: list[socket.socket] = []
    try:
        with deadline:
            return _dial(network, tls, endpoint, path, user_agent, timing, opened, relay)
    except gevent.Timeout as timeout:
        _close(opened)
        if timeout is not deadline:
            raise
        raise UpstreamError("dial-timeout", f"no connection within {timing.dial:g} seconds") from None
    except BaseException:
        _close(opened)
        raise


def _dial(
    network: Network,
    tls: ssl.SSLContext,
    endpoint: Endpoint,
    path: str,
    user_agent: str,
    timing: Timing,
    opened: list[socket.socket],
    relay: bool,
) -> Connection:
    uri = parse_uri(f"{'wss' if endpoint.tls else 'ws'}://{endpoint.hostname}{path}")
    try:
        sock = network.connect(uri.host, uri.port, timing.connect)
        opened.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
    except AddressRefused as error:
        raise UpstreamError(error.reason, error.detail) from None
    except (RelayError, OSError) as error:
        raise UpstreamError("connect-failed", _words(error)) from None
    # With no timeout on the socket itself only the common deadline counts.
    sock.settimeout(None)
    if endpoint.tls:
        try:
            sock = tls.wrap_socket(sock, server_hostname=uri.host, do_handshake_on_connect=False)
            opened[0] = sock
            sock.do_handshake()
        except (OSError, ValueError) as error:
            raise UpstreamError("tls-failed", _words(error)) from None
    protocol = ClientProtocol(uri, max_size=MAX_MESSAGE_BYTES + (RELAY_SEQ_BYTES if relay else 0))
    _handshake(sock, protocol, user_agent, relay)
    return Connection(sock, protocol, timing)


def _handshake(sock: socket.socket, protocol: ClientProtocol, user_agent: str, relay: bool) -> None:
    """Upgrade to WebSocket. What the host sends right after its answer stays in the protocol's events."""
    request = protocol.connect()
    request.headers["User-Agent"] = user_agent
    protocol.send_request(request)
    try:
        sock.sendall(b"".join(protocol.data_to_send()))
        while not protocol.events and protocol.handshake_exc is None:
            data = sock.recv(READ_BYTES)
            if data:
                protocol.receive_data(data)
            else:
                protocol.receive_eof()
    except OSError as error:
        raise UpstreamError("connection-lost", _words(error)) from None
    response = protocol.events.pop(0) if protocol.events else None
    if isinstance(response, Response):
        # Relays that crawl each other would pass the same events round for ever.
        if not relay and any("atproto-relay" in value.lower() for value in response.headers.get_all("Server")):
            raise UpstreamError("loop", "the host is a relay itself")
        if response.status_code != 101:
            raise UpstreamError(
                "handshake-refused", f"HTTP {response.status_code} {response.reason_phrase}"[:WORDS_KEPT]
            )
    if protocol.handshake_exc is not None:
        known = isinstance(protocol.handshake_exc, InvalidHandshake)
        raise UpstreamError("handshake-invalid", _words(protocol.handshake_exc) if known else "no HTTP answer")


class Connection:
    """An open WebSocket."""

    __slots__ = ("_message", "_pinged", "_protocol", "_small_frames", "_small_since", "_socket", "_timing")

    def __init__(self, sock: socket.socket, protocol: ClientProtocol, timing: Timing) -> None:
        self._socket = sock
        self._protocol = protocol
        self._timing = timing
        self._message: bytearray | None = None
        self._pinged = False
        self._small_frames = 0
        self._small_since = 0.0
        sock.settimeout(timing.quiet)

    def receive(self) -> list[bytes]:
        """The next whole messages, at least one; blocks until there are any. Raises UpstreamError at the end.

        Pings when the host is quiet, and gives up when nothing answers, or when one frame takes too long.
        """
        since = time.monotonic()
        while True:
            messages, frames = self._take_events()
            self._flush()
            if messages:
                return messages
            if self._protocol.state is not OPEN:
                raise self._end()
            now = time.monotonic()
            if frames:
                since = now
            elif now - since > self._timing.whole_frame:
                raise UpstreamError("message-stalled", f"no whole frame within {self._timing.whole_frame:g} seconds")
            self._read()

    def close(self) -> None:
        """Say goodbye if that takes no waiting, and close the socket."""
        if self._protocol.state is OPEN:
            self._protocol.send_close()
            self._socket.settimeout(0)
            # The goodbye is a courtesy: a full send buffer or a dead peer goes without.
            with contextlib.suppress(OSError):
                self._socket.send(b"".join(self._protocol.data_to_send()))
        self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except TimeoutError:
            if self._pinged:
                raise UpstreamError("no-pong", f"no answer to a ping within {self._timing.quiet:g} seconds") from None
            self._pinged = True
            self._protocol.send_ping(b"")
            self._flush()
            return
        except OSError as error:
            raise UpstreamError("connection-lost", _words(error)) from None
        self._pinged = False
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()

    def _flush(self) -> None:
        """Send what the protocol has to say: pings, pongs, a close."""
        data = b"".join(self._protocol.data_to_send())
        if data:
            try:
                self._socket.sendall(data)
            except OSError as error:
                raise UpstreamError("connection-lost", _words(error)) from None

    def _take_events(self) -> tuple[list[bytes], int]:
        """The messages that are whole by now, and how many frames there were at all."""
        messages: list[bytes] = []
        events = self._protocol.events_received()
        for frame in events:
            assert isinstance(frame, Frame)
            self._check_small(frame)
            if frame.opcode is Opcode.TEXT:
                raise UpstreamError("text-message", "a text message on a binary stream")
            if frame.opcode is Opcode.BINARY and frame.fin:
                messages.append(bytes(frame.data))
            elif frame.opcode is Opcode.BINARY:
                self._message = bytearray(frame.data)
            elif frame.opcode is Opcode.CONT and self._message is not None:
                self._message += frame.data
                if frame.fin:
                    messages.append(bytes(self._message))
                    self._message = None
        return messages, len(events)

    def _check_small(self, frame: Frame) -> None:
        """Refuse a flood of frames that cost work and carry nothing: pings, or a message in crumbs."""
        if (frame.opcode is Opcode.BINARY and frame.fin) or len(frame.data) >= SMALL_FRAME_BYTES:
            return
        now = time.monotonic()
        if now - self._small_since > SMALL_FRAMES_SECONDS:
            self._small_since = now
            self._small_frames = 0
        self._small_frames += 1
        if self._small_frames > SMALL_FRAMES_ALLOWED:
            raise UpstreamError("websocket-flood", "too many small or control frames")

    def _end(self) -> UpstreamError:
        """Why the protocol is no longer open."""
        error = self._protocol.parser_exc
        if isinstance(error, PayloadTooBig):
            return UpstreamError("message-too-big", f"a message of more than {MAX_MESSAGE_BYTES} bytes")
        if isinstance(error, EOFError) or (error is None and self._protocol.state is CLOSED):
            return UpstreamError("connection-lost", "the host closed the connection")
        if error is not None:
            return UpstreamError("websocket-invalid", _words(error))
        close = self._protocol.close_rcvd
        if close is None:
            return UpstreamError("closed", "")
        return UpstreamError("closed", f"{close.code} {close.reason}".strip()[:WORDS_KEPT])


def _words(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:WORDS_KEPT]


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()

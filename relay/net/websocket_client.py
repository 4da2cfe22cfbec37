"""One WebSocket to one host or relay: dialling, the handshake, keep-alive, and whole messages out of bytes.

The `websockets` library's protocol without I/O shakes hands on a gevent socket; `websocket_reader` reads what follows.
Used by the subscriber, by an edge's source and by `relay compare`. A connection has one greenlet, which alone reads and
writes on it. Must not know of cursors, of hosts' states, or of any frame but a stream's error.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from typing import NamedTuple, Protocol

import gevent
from gevent.socket import wait_read
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidURI
from websockets.http11 import Response
from websockets.uri import WebSocketURI, parse_uri

from relay.atproto.frames import StreamError
from relay.atproto.hostname import Endpoint
from relay.kit.background import yield_hub
from relay.kit.errors import AddressRefused, RelayError
from relay.net import http
from relay.net.gathering import Gathering, Watched
from relay.net.websocket import FrameInvalid, Opcode, close_payload, control_frame
from relay.net.websocket_reader import MAX_MESSAGE_BYTES, FrameReader, PassedOver, close_words

PATH = "/xrpc/com.atproto.sync.subscribeRepos"
# Hosts with much to send take turns of this length; a host with little to send waits for one round of them.
TURN_SECONDS = 0.001
# How much longer a relay's own seq may make the longest message of a host.
RELAY_SEQ_BYTES = 64
CONNECT_SECONDS = 5.0
DIAL_SECONDS = 10.0
QUIET_SECONDS = 30.0
WHOLE_FRAME_SECONDS = 300.0
READ_BYTES = 16 << 10
# A host that sends this much at a time sends more than its socket can hold until the next look.
MUCH_BYTES = 32 << 10
SMALL_FRAMES_ALLOWED = 10_000
SMALL_FRAMES_SECONDS = 10.0
WORDS_KEPT = 200
HEAD_END = b"\r\n\r\n"
FUTURE_CURSOR = "FutureCursor"


class StreamEnded(RelayError):
    """The connection to a host could not be opened or has ended; `detail` is for the host's operator to read.

    Reasons, when opening: `address-refused`, `name-unresolved`, `connect-failed`, `dial-timeout`, `tls-failed`,
    `handshake-refused`, `handshake-invalid`, `loop`, `future-cursor`. Afterwards: `closed`, `connection-lost`,
    `no-pong`, `message-stalled`; `message-too-big` and `websocket-invalid`, where the next message cannot be found;
    and, from what the messages say, those of `stream_error` and `frames-unreadable`.
    """


def stream_error(event: StreamError) -> StreamEnded:
    """The end that the other side announced itself. Reasons `future-cursor`, `too-slow`, `host-error`."""
    reason = {FUTURE_CURSOR: "future-cursor", "ConsumerTooSlow": "too-slow"}.get(event.error, "host-error")
    return StreamEnded(reason, f"{event.error} {event.message or ''}".strip()[:WORDS_KEPT])


class Timing(NamedTuple):
    """Seconds that the parts of a connection may take."""

    connect: float = CONNECT_SECONDS
    dial: float = DIAL_SECONDS
    quiet: float = QUIET_SECONDS
    whole_frame: float = WHOLE_FRAME_SECONDS


class Network(Protocol):
    """Where connections come from: `net.http.GuardedHttp`, which checks the address first."""

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
    gathering: Gathering | None = None,
) -> Connection:
    """Open a WebSocket to `endpoint`: a host, or with `relay` perhaps a relay. Raises StreamEnded.

    With `gathering` its socket is looked at together with others, otherwise it is read as soon as something comes.

    All steps share one deadline: a host that never ends its TLS or HTTP handshake holds its place among the bounded
    number of dials no longer than any other.
    """
    deadline = gevent.Timeout(timing.dial)
    opened: list[socket.socket] = []
    try:
        with deadline:
            sock, rest = _dial(network, tls, endpoint, path, user_agent, timing, opened, relay)
            max_bytes = MAX_MESSAGE_BYTES + (RELAY_SEQ_BYTES if relay else 0)
            return Connection(sock, rest, timing, max_bytes, gathering)
    except gevent.Timeout as timeout:
        _close(opened)
        if timeout is not deadline:
            raise
        raise StreamEnded("dial-timeout", f"no connection within {timing.dial:g} seconds") from None
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
) -> tuple[socket.socket, bytes]:
    """The socket after the handshake, and what the host sent along with it."""
    try:
        uri = parse_uri(f"{'wss' if endpoint.tls else 'ws'}://{endpoint.hostname}{path}")
    except (InvalidURI, ValueError):
        # A row of the table that another relay wrote, or somebody by hand.
        raise StreamEnded("name-unresolved", f"{endpoint.hostname[:80]!r} is not the name of a host") from None
    try:
        sock = network.connect(uri.host, uri.port, timing.connect)
        opened.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
    except AddressRefused as error:
        raise StreamEnded(error.reason, error.detail) from None
    except (RelayError, OSError) as error:
        raise StreamEnded("connect-failed", _words(error)) from None
    # The socket itself has no timeout: only the common deadline counts.
    sock.settimeout(None)
    if endpoint.tls:
        try:
            sock = tls.wrap_socket(sock, server_hostname=uri.host, do_handshake_on_connect=False)
            opened[0] = sock
            sock.do_handshake()
        except (OSError, ValueError) as error:
            raise StreamEnded("tls-failed", _words(error)) from None
    return sock, _handshake(sock, uri, user_agent, relay)


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
        raise StreamEnded("connection-lost", _words(error)) from None
    response = protocol.events.pop(0) if protocol.events else None
    if isinstance(response, Response):
        # Relays that crawl each other would pass the same events round and round.
        if not relay and any("atproto-relay" in value.lower() for value in response.headers.get_all("Server")):
            raise StreamEnded("loop", "the host is itself a relay")
        if response.status_code != 101:
            said = http.Response(response.status_code, {}, bytes(response.body or b"")).json_object() or {}
            if response.status_code == 400 and said.get("error") == FUTURE_CURSOR:
                raise stream_error(StreamError(FUTURE_CURSOR, "before the upgrade"))
            raise StreamEnded("handshake-refused", f"HTTP {response.status_code} {response.reason_phrase}"[:WORDS_KEPT])
    if protocol.handshake_exc is not None:
        known = isinstance(protocol.handshake_exc, InvalidHandshake)
        raise StreamEnded("handshake-invalid", _words(protocol.handshake_exc) if known else "no HTTP answer")
    return rest


class Connection:
    """An open WebSocket. `rest` is what the host sent along with its handshake; no message is longer than `max_bytes`.

    `waited`: the last `receive` had to wait.
    """

    __slots__ = (
        "_ended",
        "_gathering",
        "_more",
        "_pinged",
        "_reader",
        "_small_frames",
        "_small_since",
        "_socket",
        "_timing",
        "_together",
        "_watched",
        "waited",
    )

    def __init__(
        self,
        sock: socket.socket,
        rest: bytes,
        timing: Timing,
        max_bytes: int = MAX_MESSAGE_BYTES,
        gathering: Gathering | None = None,
    ) -> None:
        self._socket = sock
        self._gathering = gathering
        self._watched: Watched | None = None if gathering is None else gathering.watch(sock.fileno())
        # Whether there may be more to read, in the socket or in what TLS holds back; and how many bytes were read since
        # the last wait.
        self._more = True
        self._together = 0
        self.waited = False
        self._reader = FrameReader(max_bytes=max_bytes)
        self._timing = timing
        # Reason and detail of the end. Not the error: its traceback holds this connection, and the two would keep each
        # other alive until the garbage collector comes, which is rarely.
        self._ended: tuple[str, str] | None = None
        self._pinged = False
        self._small_frames = 0
        self._small_since = 0.0
        # No call on the socket blocks: waiting is done here.
        sock.settimeout(0)
        self._reader.feed(rest)

    def receive(self, patience: float | None = None) -> list[bytes | PassedOver]:
        """The next messages, with those that were passed over in their places. Raises StreamEnded at the end.

        Blocks until there are any, or with `patience` for as many seconds; then there may be none. Pings a quiet host,
        and gives up when it does not answer or when one frame takes too long.
        """
        reader = self._reader
        self.waited = False
        since = turn = time.monotonic()
        give_up = None if patience is None else since + patience
        while True:
            if reader.crumbs:
                self._slow_small()
            if reader.pings:
                self._answer_pings()
            if messages := reader.take():
                return messages
            if reader.ended:
                self._ended = self._end()
            if self._ended is not None:
                raise StreamEnded(*self._ended)
            if time.monotonic() - since > self._timing.whole_frame:
                raise StreamEnded("message-stalled", f"no whole frame within {self._timing.whole_frame:g} seconds")
            # Reading a socket that always has data never switches, and a long message is read in many pieces. Whole
            # messages are returned at once: their reader lets others have their turn.
            if time.monotonic() - turn > TURN_SECONDS:
                yield_hub()
                turn = time.monotonic()
            frames = reader.frames
            if not self._read(give_up):
                return []
            if reader.frames != frames:
                since = time.monotonic()

    def close(self) -> None:
        """Send a close frame if that needs no waiting, and close the socket."""
        if self._watched is not None:
            self._watched.forget()
            self._watched = None
        if self._ended is None or self._ended[0] != "connection-lost":
            # The close frame is a courtesy: with a full send buffer or a dead peer it is left out.
            with contextlib.suppress(OSError):
                self._socket.send(_control(Opcode.CLOSE, self._goodbye()))
        self._socket.close()

    def _goodbye(self) -> bytes:
        failure, closed = self._reader.failure, self._reader.closed
        if failure is not None:
            return close_payload(failure.code)
        return closed or b""

    def _read(self, give_up: float | None) -> bool:
        """Read what has come, waiting for it if need be. False when nothing came until `give_up`."""
        while not self._more or not self._read_some():
            quiet = self._timing.quiet
            if self._wait(quiet if give_up is None else max(0.001, give_up - time.monotonic())):
                self._more = True
                self._together = 0
            elif give_up is not None:
                return False
            elif self._pinged:
                raise StreamEnded("no-pong", f"no answer to a ping within {quiet:g} seconds")
            else:
                self._pinged = True
                self._send(_control(Opcode.PING, b""))
        return True

    def _read_some(self) -> bool:
        """Read without waiting. False when there was nothing to read."""
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._more = False
            return False
        except OSError as error:
            raise self._lost(_words(error)) from None
        self._pinged = False
        if not data:
            self._lost("the host closed the connection")
            return True
        # TLS gives one record at a time and does not say whether there is another.
        self._more = len(data) == READ_BYTES or isinstance(self._socket, ssl.SSLSocket)
        self._together += len(data)
        if self._together >= MUCH_BYTES and self._gathering is not None:
            self._gathering.hurry()
        self._reader.feed(data)
        return True

    def _wait(self, seconds: float) -> bool:
        """Wait until there is something to read, for at most `seconds`. False when nothing came."""
        self.waited = True
        if self._watched is not None:
            return self._watched.wait(seconds)
        try:
            wait_read(self._socket.fileno(), seconds)
        except TimeoutError:
            return False
        return True

    def _answer_pings(self) -> None:
        pings, self._reader.pings = self._reader.pings, []
        self._send(b"".join(_control(Opcode.PONG, payload) for payload in pings))

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._timing.quiet)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(_words(error)) from None
        finally:
            self._socket.settimeout(0)

    def _lost(self, words: str) -> StreamEnded:
        self._ended = "connection-lost", words
        return StreamEnded(*self._ended)

    def _slow_small(self) -> None:
        """Slow down in a flood of frames that cost work and carry little: pings, or a message in tiny fragments."""
        now = time.monotonic()
        if now - self._small_since > SMALL_FRAMES_SECONDS:
            self._small_since = now
            self._small_frames = 0
        self._small_frames += self._reader.crumbs
        self._reader.crumbs = 0
        if self._small_frames > SMALL_FRAMES_ALLOWED:
            gevent.sleep(max(0.0, self._small_since + SMALL_FRAMES_SECONDS - now))

    def _end(self) -> tuple[str, str]:
        """Why the reader has ended: reason and detail."""
        failure, closed = self._reader.failure, self._reader.closed
        if failure is not None:
            return failure.reason, failure.detail
        try:
            words = close_words(closed or b"")
        except FrameInvalid as error:
            # Its words are wrong, and it is the end all the same: nothing before it was left unread.
            words = error.detail
        return "closed", words[:WORDS_KEPT]


def _control(opcode: Opcode, payload: bytes) -> bytes:
    return control_frame(opcode, payload, mask=os.urandom(4))


def _words(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:WORDS_KEPT]


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()

"""A client's HTTP connection, bounded: pywsgi's, but each request is read whole, and within a time, before its answer.

The base of the connections of `server` and `metrics_server`. pywsgi itself keeps megabytes of headers, waits for a body
as long as it takes, serves a client that never pauses in one go, and prints a traceback for what it does not
understand. Must not know of routes.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from io import BytesIO
from typing import Any, cast

import gevent
from gevent.pywsgi import Input, LoggingLogAdapter, WSGIHandler, WSGIServer

from relay.kit import descriptors, metrics
from relay.kit.background import yield_hub
from relay.kit.limits import Pace, Tally
from relay.net.http import SERVER
from relay.web.http_input import USUAL, Bounds, Chunks, Head, RequestInvalid, head_end, parse_head

log = logging.getLogger(__name__)

# Little at a time, because looking at it takes time.
READ_BYTES = 4 << 10
# This much of a head tells what it may have.
START_BYTES = 100
# A client that is refused has this long to read why, and this much that it sent meanwhile is thrown away.
LINGER_SECONDS = 2.0
LINGER_BYTES = 64 << 10
LINES_PER_MINUTE = 10
# How long no connection is taken after one for which there was no descriptor at all.
EXHAUSTED_SECONDS = 0.5
PIPELINED_PER_SECOND = 50
PIPELINED_BURST = 20

_NAMES = {
    400: "InvalidRequest",
    408: "RequestTimeout",
    413: "PayloadTooLarge",
    414: "URITooLong",
    429: "RateLimitExceeded",
    431: "RequestHeaderFieldsTooLarge",
    501: "MethodNotImplemented",
    505: "HTTPVersionNotSupported",
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CONSUME = "relay.consume"
"""Where a view leaves what is to become of the connection that it lets become a WebSocket."""
EXTENSIONS = "relay.websocket-extensions"
"""Where it leaves what is agreed on for that WebSocket."""


class HttpServer(WSGIServer):
    """Listens, and serves each connection in a greenlet of `spawn`. `uses_reserve`: also when descriptors run out."""

    uses_reserve = False

    # Each begins with work of its own before it waits for anything.
    max_accept = 10

    def __init__(self, listener: Any, application: Any, handler: type[HttpConnection], **options: Any) -> None:
        errors = LoggingLogAdapter(log, logging.DEBUG)
        super().__init__(listener, application, handler_class=handler, log=None, error_log=errors, **options)
        # Clients whose next request is here before they have read an answer share these.
        self.pipelined = Pace(PIPELINED_PER_SECOND, PIPELINED_BURST)
        self._lines: Tally[str] = Tally(60.0, 1)

    def do_read(self) -> tuple[Any, Any] | None:  # type: ignore[override]
        """The next connection that waits, or None. None is taken while descriptors are left for log and SQL alone."""
        try:
            taken: tuple[Any, Any] | None = super().do_read()
        except OSError as error:
            if error.errno not in descriptors.EXHAUSTED:
                raise
            descriptors.say_exhausted()
            # As gevent does after an error; but it would print each one.
            self.stop_accepting()
            gevent.spawn_later(EXHAUSTED_SECONDS, self._accept_again)
            return None
        if taken is None or self.uses_reserve or descriptors.spare(taken[0].fileno()):
            return taken
        metrics.HTTP_REFUSED.labels("no-descriptors").inc()
        taken[0].close()
        return None

    def _accept_again(self) -> None:
        if self.started:
            self.start_accepting()

    def note_refused(self, error: RequestInvalid, address: str) -> None:
        """Count a request that is not taken; a few a minute have a line in the log."""
        metrics.HTTP_REFUSED.labels(error.reason).inc()
        lines = self._lines.add("", time.monotonic())
        if lines <= LINES_PER_MINUTE:
            more = " (further ones are only counted for a minute)" if lines == LINES_PER_MINUTE else ""
            log.info("request refused: reason=%s from=%s: %s%s", error.reason, address, error.detail, more)


class ClientInput:
    """What a client sends, in pywsgi's place for a buffered file. Raises OSError when there is no more.

    Connections of the same `line` have one turn of the hub where others have one each.
    """

    __slots__ = ("_socket", "closed", "line", "received")

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self.line: Hashable = id(self)
        # Read, and not used yet.
        self.received = bytearray()
        self.closed = False

    def close(self) -> None:
        """Nothing more is read."""
        self.closed = True

    def read(self, size: int = -1) -> bytes:
        """gevent-websocket requires this method and never calls it; a WebSocket is read from its socket."""
        raise NotImplementedError

    def wait(self, seconds: float) -> bool:
        """True when something is there; False when nothing comes within that time, or the client has gone."""
        if not self.received:
            with suppress(OSError), gevent.Timeout(seconds, TimeoutError()):
                self.received += self._socket.recv(READ_BYTES)
        return bool(self.received)

    def head(self, seconds: float, more: Callable[[bytes], Bounds]) -> bytes:
        """A whole head. `more` says what it may have, by its start, once it has as much as is usual; it may raise.

        Raises RequestInvalid.
        """
        looked_at, bounds = 0, USUAL
        try:
            with gevent.Timeout(seconds, TimeoutError()):
                while not (end := head_end(self.received, looked_at, bounds)):
                    looked_at = len(self.received)
                    self._receive()
                    if bounds is USUAL and len(self.received) >= USUAL.head:
                        bounds = more(bytes(self.received[:START_BYTES]))
        except TimeoutError:
            raise RequestInvalid(408, "head-timeout", f"no whole head within {seconds:g} seconds") from None
        return self._take(end)

    def body(self, length: int | None, seconds: float) -> bytes:
        """A whole body of `length` bytes, or in chunks when that is None. Raises RequestInvalid."""
        try:
            with gevent.Timeout(seconds, TimeoutError()):
                if length is None:
                    return self._chunks()
                while len(self.received) < length:
                    self._receive()
                return self._take(length)
        except TimeoutError:
            raise RequestInvalid(408, "body-timeout", f"no whole body within {seconds:g} seconds") from None

    def _chunks(self) -> bytes:
        chunks = Chunks()
        while True:
            chunks.take(self.received)
            if chunks.done:
                return bytes(chunks.body)
            self._receive()

    def _take(self, size: int) -> bytes:
        taken = bytes(self.received[:size])
        del self.received[:size]
        return taken

    def _receive(self) -> None:
        """Wait for more, and let others go on when there always is more."""
        yield_hub(self.line)
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the client has gone")
        self.received += data


class HttpConnection(WSGIHandler):
    """Serves a connection until it ends."""

    server: HttpServer
    # Seconds for the next request to begin, for a head and for a body from their first byte on, and to take an answer.
    idle_seconds = 60.0
    head_seconds = 10.0
    body_seconds = 10.0
    answer_seconds = 60.0

    def __init__(self, sock: Any, address: Any, server: HttpServer) -> None:
        self.input = ClientInput(sock)
        super().__init__(sock, address, server, self.input)  # type: ignore[call-arg]
        self._block = self._body = b""
        self._served = 0

    def handle(self) -> None:
        """Serve the connection until it ends."""
        yield_hub(self.input.line)
        self.socket.settimeout(self.answer_seconds)
        # The client may be gone already.
        with suppress(OSError):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle()

    def handle_one_request(self) -> Any:
        """One request and its answer; None when the connection is over."""
        if self._served:
            self._put_off()
        try:
            return super().handle_one_request()
        except RequestInvalid as error:
            self.refuse(error)
        except OSError:
            pass
        return None

    def read_requestline(self) -> Any:
        """The beginning of the next request, whose head is there as a whole then; "" when none comes."""
        if not self.input.wait(self.idle_wait() if self._served else self.head_seconds):
            return ""
        self._served += 1
        self._block = self.input.head(self.head_seconds, self.take_more)
        # pywsgi looks at its length alone, for which it has a bound and an answer of its own.
        return self._block[:START_BYTES].partition(b"\r\n")[0].decode("latin-1")

    def read_request(self, raw_requestline: str) -> Any:
        """Judge the head, and read the body. Raises RequestInvalid."""
        block, self._block = self._block, b""
        head = parse_head(block, self.bounds_of(block[:START_BYTES]))
        self.command, self.path, self.request_version = head.method, head.target, head.version
        self.close_connection = not head.keep
        self.headers = self.MessageClass(BytesIO(), 0)  # type: ignore[call-arg]
        for name, value in head.fields.items():
            self.headers[name] = value
        self.admit(head)
        if head.length != 0 and head.expects_continue and not self.input.received:
            self.socket.sendall(_CONTINUE)
        self._body = self.read_body(head)
        # However many ask at once, timers and sockets get their share in between.
        yield_hub(self.input.line)
        self.content_length = len(self._body)
        if head.length is None:
            # What is handed on has a length, in whatever form it came.
            del self.headers["Transfer-Encoding"]
            self.headers["Content-Length"] = str(len(self._body))
        return True

    def read_body(self, head: Head) -> bytes:
        """The whole body. Raises RequestInvalid."""
        return self.input.body(head.length, self.body_seconds)

    def get_environ(self) -> dict[str, Any]:
        """What the application is told; the body is there already."""
        environ: dict[str, Any] = super().get_environ()
        body, self._body = self._body, b""
        self.wsgi_input = environ["wsgi.input"] = Input(BytesIO(body), len(body))  # type: ignore[arg-type]
        environ["wsgi.input_terminated"] = True
        return environ

    def idle_wait(self) -> float:
        """Seconds for the next request to begin."""
        return self.idle_seconds

    def bounds_of(self, start: bytes) -> Bounds:
        """What a head may have that begins so."""
        return USUAL

    def take_more(self, start: bytes) -> Bounds:
        """The same, once it has as much as is usual. May raise RequestInvalid."""
        return self.bounds_of(start)

    def admit(self, head: Head) -> None:
        """Called when a head is read, before the body is. May raise RequestInvalid."""

    def refuse(self, error: RequestInvalid) -> None:
        """Say why the connection is closed, so that the client can read it."""
        self.server.note_refused(error, str(self.client_address[0]) if self.client_address else "")
        message = json.dumps({"error": _NAMES[error.status], "message": error.detail}).encode()
        answer = (
            f"HTTP/1.1 {error.status} {_NAMES[error.status]}\r\nServer: {SERVER}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(message)}\r\n\r\n"
        ).encode() + message
        left = LINGER_BYTES
        with suppress(OSError), gevent.Timeout(LINGER_SECONDS, TimeoutError()):
            self.socket.sendall(answer)
            self.socket.shutdown(socket.SHUT_WR)
            # A socket closed with unread input is reset, and the answer would be lost with it.
            while left > 0 and (data := self.socket.recv(READ_BYTES)):
                left -= len(data)
                yield_hub()

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        """A fault of ours is a 500 and logged; a client that has gone, or does not read, is not a fault."""
        self.close_connection = True
        if not issubclass(t, OSError):
            super().handle_error(t, v, tb)

    def log_request(self) -> None:
        """Requests are counted, not logged."""

    def _handle_client_error(self, ex: BaseException) -> Any:
        if isinstance(ex, RequestInvalid | OSError):
            try:
                raise ex
            finally:
                # Its traceback holds this frame: without this the two would keep each other alive.
                del ex
        raise RequestInvalid(400, "head-malformed", f"a malformed head: {type(ex).__name__}")

    def _put_off(self) -> None:
        """Put a client off that does not wait for its answers."""
        if self.input.received:
            gevent.sleep(self.server.pipelined.reserve(time.monotonic()))

    def _write_with_headers(self, data: bytes) -> None:
        """Head and body in one piece: the kernel would hold a second one back until the first is acknowledged."""
        self.headers_sent = True
        self.finalize_headers()
        # pywsgi has them as bytes.
        status, fields = cast(bytes, self.status), cast("list[tuple[bytes, bytes]]", self.response_headers)
        head = [b"HTTP/1.1 " + status, *(b"%b: %b" % field for field in fields), b"", b""]
        if data and self.response_use_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._sendall(b"\r\n".join(head) + data)  # type: ignore[attr-defined]

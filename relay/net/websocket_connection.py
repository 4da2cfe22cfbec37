"""An open WebSocket to a host or relay: whole messages out of bytes, keep-alive, and why it ended.

`websocket_client` opens it, and `websocket_reader` reads its bytes. A connection has one greenlet, which alone reads
and writes on it. Must not know of cursors, of hosts' states, or of any frame but a stream's error.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from typing import NamedTuple

import gevent
from gevent.socket import wait_read

from relay.atproto.frames import StreamError
from relay.kit.background import yield_hub
from relay.kit.errors import RelayError
from relay.net.gathering import Gathering, Watched
from relay.net.tls_socket import TlsSocket
from relay.net.websocket import FrameInvalid, Opcode, close_payload, control_frame
from relay.net.websocket_reader import MAX_MESSAGE_BYTES, FrameReader, PassedOver, close_words

# Hosts with much to send take turns of this length; a host with little to send waits for one round of them.
TURN_SECONDS = 0.001
CONNECT_SECONDS = 5.0
DIAL_SECONDS = 10.0
QUIET_SECONDS = 30.0
WHOLE_FRAME_SECONDS = 300.0
READ_BYTES = 16 << 10
# All connections read into the same: their readers have copied it before others have their turn.
_read = memoryview(bytearray(READ_BYTES))
# A host that sends this much at a time sends more than its socket can hold until the next look.
MUCH_BYTES = 32 << 10
SMALL_FRAMES_ALLOWED = 10_000
SMALL_FRAMES_SECONDS = 10.0
WORDS_KEPT = 200
FUTURE_CURSOR = "FutureCursor"
# The reason of an attempt for which this process had no file descriptor to spare.
NO_DESCRIPTORS = "no-descriptors"


class StreamEnded(RelayError):
    """The connection to a host could not be opened or has ended; `detail` is for the host's operator to read.

    Reasons, when opening: `address-refused`, `name-unresolved`, `connect-failed`, `dial-timeout`, `tls-failed`,
    `handshake-refused`, `handshake-invalid`, `loop`, `future-cursor`, `no-descriptors`. Afterwards: `closed`,
    `connection-lost`, `no-pong`, `message-stalled`; `message-too-big` and `websocket-invalid`, where the next message
    cannot be found; and, from what the messages say, those of `stream_error` and `frames-unreadable`.
    `internal-error` is a fault of ours.

    `retry_after` is for how many seconds the host asks to be left alone, 0 when it does not say.
    """

    def __init__(self, reason: str, detail: str = "", retry_after: float = 0.0) -> None:
        super().__init__(reason, detail[:WORDS_KEPT])
        self.retry_after = retry_after


def stream_error(event: StreamError) -> StreamEnded:
    """The end that the other side announced itself. Reasons `future-cursor`, `too-slow`, `host-error`."""
    reason = {FUTURE_CURSOR: "future-cursor", "ConsumerTooSlow": "too-slow"}.get(event.error, "host-error")
    return StreamEnded(reason, f"{event.error} {event.message or ''}".strip())


class Timing(NamedTuple):
    """Seconds that the parts of a connection may take."""

    connect: float = CONNECT_SECONDS
    dial: float = DIAL_SECONDS
    quiet: float = QUIET_SECONDS
    whole_frame: float = WHOLE_FRAME_SECONDS


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
            # Also while a message trickles in.
            if give_up is not None and time.monotonic() >= give_up:
                return []
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
        quiet, end = self._timing.quiet, give_up
        while not self._more or not self._read_some():
            # What TLS brings beside data makes it no longer.
            now = time.monotonic()
            if end is None:
                end = now + quiet
            if now < end and self._wait(end - now):
                self._more = True
                self._together = 0
            elif give_up is not None:
                return False
            elif self._pinged:
                raise StreamEnded("no-pong", f"no answer to a ping within {quiet:g} seconds")
            else:
                self._pinged = True
                self._send(_control(Opcode.PING, b""))
                end = None
        return True

    def _read_some(self) -> bool:
        """Read without waiting. False when there was nothing to read."""
        try:
            size = self._socket.recv_into(_read)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._more = isinstance(self._socket, TlsSocket) and self._socket.more
            return self._more
        except OSError as error:
            raise self._lost(words_of(error)) from None
        self._pinged = False
        if not size:
            self._lost("the host closed the connection")
            return True
        self._more = size == READ_BYTES or (isinstance(self._socket, TlsSocket) and self._socket.more)
        self._together += size
        if self._together >= MUCH_BYTES and self._gathering is not None:
            self._gathering.hurry()
        self._reader.feed(_read[:size])
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
        # An answer to the last one is one to all, as the RFC has it. What came before the ping is handed on even if
        # the host is gone.
        with contextlib.suppress(StreamEnded):
            self._send(_control(Opcode.PONG, pings[-1]))

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._timing.quiet)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(words_of(error)) from None
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
            # However malformed, it is the end: nothing before it was left unread.
            words = error.detail
        return "closed", words


def _control(opcode: Opcode, payload: bytes) -> bytes:
    return control_frame(opcode, payload, mask=os.urandom(4))


def words_of(error: BaseException) -> str:
    """What `error` says, or at least its name."""
    return str(error) or type(error).__name__

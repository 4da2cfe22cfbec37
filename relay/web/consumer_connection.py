"""One consumer's connection: sends what its feed gives, answers its control frames, and ends it for a named reason.

A single greenlet does all of it, so that a pong can never fall into the middle of a half-sent chunk. Once a second it
reads what the consumer sent; a consumer has nothing to say, so one that sends much is disconnected. Called by
`firehose` after the upgrade. Must not know of HTTP, limits or how feeds are made.
"""

from __future__ import annotations

import socket as sockets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

import gevent
from gevent.socket import socket as Socket  # noqa: N812
from gevent.socket import wait_read, wait_write

from relay.atproto import frames
from relay.kit import metrics
from relay.kit.background import yield_hub
from relay.kit.errors import RelayError
from relay.net.websocket import (
    CloseCode,
    FrameInvalid,
    Opcode,
    binary_frame,
    close_frame,
    control_frame,
    frame_end,
)
from relay.net.websocket_reader import FrameReader, close_words
from relay.stream.feed import ConsumerTooSlow, Feed
from relay.web.consumers import Consumer
from relay.web.minimum_rate import MinimumRate

# What a consumer may send: in one message, and in one second with its control frames. None of it is kept.
MAX_MESSAGE_BYTES = 64 << 10
BYTES_PER_SECOND = 128 << 10
FRAMES_PER_SECOND = 50
# After a send that had to wait, a consumer may have sent as much as in this many seconds.
MAX_UNREAD_SECONDS = 10.0
# Little at a time, so that few frames are read of a consumer that sends too many.
READ_BYTES = 1 << 10
TICK = 1.0
PING_INTERVAL = 30.0
FAREWELL_TIMEOUT = 5.0
# What may wait in the kernel for a consumer beside what is on its way to it.
UNSENT_BYTES = 128 << 10
# What a consumer has begun to say has to be whole after this long.
WHOLE_SECONDS = 20.0
# What a consumer may still send while it reads the farewell.
FAREWELL_BYTES = 256 << 10
# A consumer that floods keeps its place this long before it is told: otherwise it would be back at once.
FLOOD_SECONDS = 2.0
NOTHING = memoryview(b"")


class ConsumerEnded(RelayError):
    """The connection is over; `farewell` is what may still be sent, after the `rest` of a frame.

    Reasons: the `reason` labels of `relay_consumers_ended_total`: `left`, `gone`, `stalled`, `too-slow`, `fell-behind`,
    `silent`, `websocket-protocol`, `websocket-flood`, `message-stalled`, `options-invalid`, `filters-full`,
    `future-cursor`, `log-io`, `relay-stopping`.
    """

    def __init__(self, reason: str, farewell: bytes = b"", rest: memoryview = NOTHING) -> None:
        super().__init__(reason)
        self.farewell = farewell
        self.rest = rest


class _TooSlow(Exception):
    """The consumer takes too little."""


class _StillFull(Exception):
    """The socket takes nothing for now: the deadline of one look at it, told apart from those around it."""


def error_farewell(name: str, message: str) -> bytes:
    """An error frame and the close frame that must follow it."""
    return binary_frame(frames.error_frame(name, message)) + close_frame(CloseCode.POLICY_VIOLATION, name)


def _flood() -> ConsumerEnded:
    return ConsumerEnded("websocket-flood", close_frame(CloseCode.POLICY_VIOLATION, "the consumer sends too much"))


def _broken(error: FrameInvalid) -> ConsumerEnded:
    return ConsumerEnded("websocket-protocol", close_frame(error.code, error.detail))


class Connection:
    """The socket of one consumer. `received` are bytes that came with the upgrade request."""

    # Whether texts that the consumer sends are kept for `hear`, and the bytes that it may send. Those of a text count
    # once more when it is heard: a compressed one is up to a thousand times as long as what came.
    hears: ClassVar[bool] = False
    message_bytes: ClassVar[int] = MAX_MESSAGE_BYTES
    bytes_per_second: ClassVar[int] = BYTES_PER_SECOND
    farewell_bytes: ClassVar[int] = FAREWELL_BYTES

    __slots__ = (
        "_begun_at",
        "_consumer",
        "_counted",
        "_feed",
        "_frames",
        "_leaving",
        "_listened_at",
        "_next_ping",
        "_next_tick",
        "_pong_due",
        "_rate",
        "_reader",
        "_received",
        "_sent",
        "_socket",
        "_stall",
        "_waited",
    )

    def __init__(
        self, socket: Socket, received: bytes, consumer: Consumer, stall: float, window: float, *, deflate: bool = False
    ) -> None:
        """`stall` and `window`, that of replay, are in seconds; `deflate`: the consumer may compress what it sends."""
        # No call blocks: a send takes what fits, and the waiting for room is done here, with a timeout of its own.
        socket.setblocking(False)
        # The option exists for TCP on Linux alone.
        with suppress(OSError, AttributeError):
            socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        # The kernel does not keep more of what it sends than is read at the end.
        socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, MAX_MESSAGE_BYTES)
        self._socket = socket
        self._reader = FrameReader(masked=True, max_bytes=self.message_bytes, texts=self.hears, deflate=deflate)
        self._received = received
        self._consumer = consumer
        self._leaving: Callable[[], bool] = bool
        self._stall = stall
        self._rate = MinimumRate(stall, window)
        self._feed: Feed | None = None
        self._sent = 0
        self._counted = 0
        self._frames = 0
        # When the text began that is not whole yet.
        self._begun_at: float | None = None
        self._waited = False
        self._pong_due = False
        now = self._listened_at = time.monotonic()
        self._next_tick = now + TICK
        self._next_ping = now + PING_INTERVAL

    def farewell(self, name: str, message: str) -> bytes:
        """What a consumer is told that is disconnected for a cause of its own."""
        return error_farewell(name, message)

    def hear(self, text: bytes) -> None:
        """Take a text that the consumer sent. Raises ConsumerEnded."""

    def hold(self, size: int) -> None:
        """So many bytes are kept of a text that is not whole yet. Raises ConsumerEnded."""

    def serve(self, feed: Feed, leaving: Callable[[], bool]) -> None:
        """Send the feed's events until the consumer or the relay ends it. Always raises ConsumerEnded, or LogError.

        When `leaving` says so, the consumer still gets all that is published, then a close frame.
        """
        self._feed = feed
        if feed.outdated:
            self._send(binary_frame(frames.info_frame("OutdatedCursor", "events before the replay window are gone")))
        self._leaving = leaving
        self._consumer.first_position = self._consumer.position = self._counted = feed.position
        try:
            self._stream(feed)
        finally:
            self._count()

    def _stream(self, feed: Feed) -> None:
        while True:
            try:
                chunk = feed.next(TICK)
            except ConsumerTooSlow as error:
                raise ConsumerEnded("fell-behind", self.farewell("ConsumerTooSlow", error.detail)) from None
            if chunk is not None:
                self._send(chunk)
                self._consumer.position = feed.position
                if feed.behind:
                    # Behind the head, perhaps neither the feed nor the socket ever waits.
                    feed.give_way()
            elif self._leaving() and (feed.waits or not feed.behind):
                raise ConsumerEnded("relay-stopping", close_frame(CloseCode.GOING_AWAY, "relay is stopping"))
            now = time.monotonic()
            if now >= self._next_tick:
                self._next_tick = now + TICK
                if not feed.behind:
                    self._rate.caught_up()
                self._count()
                self._listen(now)
                self._keep_alive(now)

    def close(self, ended: ConsumerEnded) -> None:
        """Send the farewell, if there is one, and let the consumer read it before the socket goes."""
        if not ended.farewell:
            return
        self._feed = None
        if ended.reason == "websocket-flood":
            self._tire()
        try:
            # In total, however slowly the consumer takes it.
            with gevent.Timeout(FAREWELL_TIMEOUT, TimeoutError()):
                for part in (ended.rest, memoryview(ended.farewell)):
                    self._send_within(part, FAREWELL_TIMEOUT)
            # A socket closed with unread input is reset, and the farewell would be lost with it.
            self._socket.shutdown(sockets.SHUT_WR)
            deadline = time.monotonic() + FAREWELL_TIMEOUT
            unread = self.farewell_bytes
            while (left := deadline - time.monotonic()) > 0 and unread > 0:
                wait_read(self._socket.fileno(), left)
                data = self._socket.recv(MAX_MESSAGE_BYTES)
                if not data:
                    return
                unread -= len(data)
        except OSError:
            return

    def _tire(self) -> None:
        end = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < end and not self._leaving():
            gevent.sleep(TICK)

    def _count(self) -> None:
        # Once a second and not for each chunk: at a thousand consumers a counter is a part of the cost of sending.
        metrics.EVENTS_SENT.inc(self._consumer.position - self._counted)
        self._counted = self._consumer.position

    def _send(self, chunk: bytes) -> None:
        """Send whole frames. Raises ConsumerEnded when the socket takes nothing for the stall time, or too little."""
        start = self._sent
        try:
            self._send_within(memoryview(chunk), self._stall)
        except TimeoutError:
            raise self._slow("stalled", f"nothing was read for {self._stall:.0f} seconds", chunk, start) from None
        except _TooSlow as error:
            raise self._slow("too-slow", str(error), chunk, start) from None
        except OSError:
            raise ConsumerEnded("gone") from None

    def _slow(self, reason: str, message: str, chunk: bytes, start: int) -> ConsumerEnded:
        """The end of a slow consumer, which is told after the frame that was only sent in part."""
        sent = self._sent - start
        rest = memoryview(chunk)[sent : frame_end(chunk, sent)]
        return ConsumerEnded(reason, self.farewell("ConsumerTooSlow", message), rest)

    def _send_within(self, view: memoryview, stall: float) -> None:
        while len(view):
            try:
                count = self._socket.send(view)
            except BlockingIOError:
                self._wait_for_room(stall)
                continue
            self._sent += count
            view = view[count:]

    def _wait_for_room(self, stall: float) -> None:
        """Return once the socket takes more. Raises TimeoutError after `stall` seconds, and _TooSlow."""
        self._waited = True
        give_up = time.monotonic() + stall
        while (left := give_up - time.monotonic()) > 0:
            with suppress(_StillFull):
                wait_write(self._socket.fileno(), min(left, TICK), _StillFull())
                left = 0.0
            if self._feed is not None and (why := self._rate.too_slow(time.monotonic(), self._sent, self._feed)):
                raise _TooSlow(why)
            if not left:
                return
        raise TimeoutError

    def _listen(self, now: float) -> None:
        """Take what the consumer sent since the last time. Raises ConsumerEnded."""
        self._take_sent(min(max(TICK, now - self._listened_at), MAX_UNREAD_SECONDS))
        reader = self._reader
        self._listened_at, self._frames = now, reader.frames
        if reader.pings:
            # A pong answers every ping before it, so one a second is enough for any number of them.
            payload, reader.pings = reader.pings[-1], []
            self._send(control_frame(Opcode.PONG, payload))
        if reader.pongs:
            reader.pongs = 0
            self._pong_due = False
        if reader.failure is not None:
            raise _broken(reader.failure)
        if self.hears:
            self._look_at_unfinished(now)
        if reader.closed is not None:
            try:
                close_words(reader.closed)
            except FrameInvalid as error:
                raise _broken(error) from None
            raise ConsumerEnded("left", control_frame(Opcode.CLOSE, reader.closed))

    def _look_at_unfinished(self, now: float) -> None:
        if not self._reader.held:
            self._begun_at = None
        elif self._begun_at is None:
            self._begun_at = now
        elif now - self._begun_at > WHOLE_SECONDS:
            words = f"no whole message within {WHOLE_SECONDS:g} seconds"
            raise ConsumerEnded("message-stalled", close_frame(CloseCode.POLICY_VIOLATION, words))

    def _take_sent(self, seconds: float) -> None:
        """Read and hear all that is there, if it is not more than may come in `seconds`."""
        reader = self._reader
        frames, left = self._frames + FRAMES_PER_SECOND * seconds, self.bytes_per_second * seconds
        while not reader.ended:
            if reader.frames > frames or left < 0:
                raise _flood()
            try:
                data, self._received = self._received[:READ_BYTES], self._received[READ_BYTES:]
                data = data or self._socket.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                raise ConsumerEnded("gone") from None
            if not data:
                raise ConsumerEnded("gone")
            left -= len(data)
            reader.feed(data)
            for text in reader.take():
                assert isinstance(text, bytes)
                left -= len(text)
                if left < 0:
                    raise _flood()
                self._begun_at = None
                self.hear(text)
            if self.hears:
                self.hold(reader.held)
            if len(data) == READ_BYTES:
                yield_hub()

    def _keep_alive(self, now: float) -> None:
        if now < self._next_ping:
            return
        if self._pong_due and not self._waited:
            raise ConsumerEnded("silent", close_frame(CloseCode.POLICY_VIOLATION, "no pong"))
        # While sends have to wait, the ping is still queued behind megabytes that a slow consumer is reading: it
        # shows that it lives by reading, and one that does not read is ended by the stall time.
        if not self._pong_due:
            self._send(control_frame(Opcode.PING))
            self._pong_due = True
        self._waited = False
        self._next_ping = now + PING_INTERVAL

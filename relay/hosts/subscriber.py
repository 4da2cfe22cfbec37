"""Reads one host's event stream for the life of one connection and puts each event into its lane.

Run by the dialler, in a greenlet of its own; the dialler decides what follows when the connection ends. While it waits
for the host's limits, its share of the CPU or a lane, nothing is read, so TCP pushes back on that host alone. Must not
know how events are judged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Never, Protocol

import gevent
from gevent.lock import BoundedSemaphore

from relay.atproto import frames
from relay.atproto.errors import FrameError, ProtocolError
from relay.atproto.frames import Account, Event, Identity, Info, Kind, Peeked, StreamError
from relay.hosts import backlog
from relay.hosts.host import Host
from relay.kit import metrics
from relay.kit.background import yield_hub
from relay.net import websocket_client
from relay.net.gathering import Gathering
from relay.net.http import GuardedHttp
from relay.net.websocket_client import PATH
from relay.net.websocket_connection import TURN_SECONDS, Connection, StreamEnded, stream_error
from relay.net.websocket_reader import PassedOver

LONGEST_WAIT_SECONDS = 1.0
# A connection ends when this many messages in this time cannot be read, and fewer than half as many can.
UNREADABLE_ALLOWED = 100
UNREADABLE_SECONDS = 60.0
# How many backlogs may be held in memory together, and how long one waits for its turn.
BACKLOGS_AT_ONCE = 32
BACKLOG_WAIT_SECONDS = 30.0
# What a message costs beside decoding and judging, in seconds; and each of its bytes.
MESSAGE_SECONDS = 100e-6
BYTE_SECONDS = 5e-9
# The seq of a rejected event may be nonsense: the cursor follows it by no more than this.
LONGEST_STEP = 1_000_000
# How many events that prove nothing are kept, in case a later one shows that the host's numbers started again.
HELD_EVENTS = 32

log = logging.getLogger(__name__)

_RECEIVED = {kind: metrics.EVENTS_RECEIVED.labels(kind.name.lower()) for kind in Kind}


class EventSink(Protocol):
    """Where events go: `ingest.lanes.Lanes`."""

    def put(self, host: Host, event: Event) -> bool:
        """Take one event; blocks while there is no room. True when it had to wait for that."""

    def reject(
        self,
        host: Host,
        seq: int | None,
        reason: str,
        did: str | None,
        detail: str = "",
        frame: bytes = b"",
        size: int = 0,
    ) -> None:
        """Count an event that cannot be taken; `frame` is the beginning of its `size` bytes, or all of them."""


# Whether an event whose seq is not new shows that the host's numbers started again. May block.
StartsAgain = Callable[[Host, Event], bool]


class Subscriber:
    """Opens connections to hosts and reads them to their end."""

    def __init__(
        self,
        http: GuardedHttp,
        sink: EventSink,
        starts_again: StartsAgain,
        gathering: Gathering | None = None,
    ) -> None:
        self._http = http
        self._sink = sink
        self._starts_again = starts_again
        self._backlogs = BoundedSemaphore(BACKLOGS_AT_ONCE)
        self._gathering = gathering

    def open(self, host: Host, cursor: int | None) -> Connection:
        """Connect to the host, for the events after `cursor` or from now on. Raises StreamEnded."""
        path = PATH if cursor is None else f"{PATH}?cursor={cursor}"
        return websocket_client.dial(self._http, host.endpoint, path, gathering=self._gathering)

    def read(self, host: Host, stream: Connection, cursor: int | None, *, from_the_start: bool = False) -> None:
        """Hand on every event of `stream`, which was opened for those after `cursor`. Never returns; raises StreamEnded
        when the connection has to end.

        With `from_the_start` the host sends everything it has. If that is much and old, a second connection is read
        instead, from the present on.
        """
        reading = _Reading(host, self._sink, self._starts_again, cursor)
        if not from_the_start:
            self._read_on(host, stream, reading)
        with ExitStack() as opened:
            self._read_on(host, self._pass_the_past(host, stream, reading, opened), reading)

    def _read_on(self, host: Host, stream: Connection, reading: _Reading) -> Never:
        turn = time.monotonic()
        while True:
            # Not held here by a name: a quiet host would keep its last messages until the next ones come.
            turn = self._take_all(host, reading, stream, stream.receive(), turn)

    def _take_all(
        self, host: Host, reading: _Reading, stream: Connection, messages: list[bytes | PassedOver], turn: float
    ) -> float:
        """Take `messages` of `stream`; since when it is this host's turn."""
        if stream.waited:
            turn = time.monotonic()
        for message in messages:
            reading.waited = False
            self._take(host, reading, message)
            if reading.waited:
                # Others had their turns meanwhile.
                turn = time.monotonic()
            # A socket that always has data, or a queue that always has room, never switches by itself.
            elif time.monotonic() - turn > TURN_SECONDS:
                yield_hub()
                turn = time.monotonic()
        return turn

    def _take(self, host: Host, reading: _Reading, message: bytes | PassedOver) -> None:
        wait, tier = host.limiter.take(int(time.monotonic() * 1000), host.rates)
        if wait:
            reading.waited = True
            self._wait_for_limits(host, wait, tier)
        size = message.size if isinstance(message, PassedOver) else len(message)
        if host.share.take(MESSAGE_SECONDS + BYTE_SECONDS * size):
            reading.waited = True
        reading.take(message)

    def _pass_the_past(self, host: Host, past: Connection, reading: _Reading, opened: ExitStack) -> Connection:
        """Take what a new or quiet host sent so far, if it is little or recent. Returns the connection to go on with.

        The backlog is held until a pause. If it is much, and does not reach what a new connection is sent, it is
        passed over and the new connection goes on alone: the other one is closed.
        """
        if not self._backlogs.acquire(timeout=BACKLOG_WAIT_SECONDS):
            alone = self._go_live(host, opened)
            past.close()
            return alone
        live: Connection | None = None
        try:
            held, end = backlog.read(past)
            if end is None and backlog.is_much(held) and backlog.began_long_ago(held):
                live = self._go_live(host, opened)
                news = live.receive(backlog.PAUSE_SECONDS)
                if backlog.reaches(past, held, news):
                    live.close()
                    live = None
                else:
                    held = news
        finally:
            self._backlogs.release()
        if live is not None:
            past.close()
        for message in held:
            self._take(host, reading, message)
        if end is not None:
            raise StreamEnded(end.reason, end.detail)
        return live or past

    def _go_live(self, host: Host, opened: ExitStack) -> Connection:
        live = self.open(host, None)
        opened.callback(live.close)
        return live

    def _wait_for_limits(self, host: Host, wait: int, tier: str) -> None:
        """Return once a message is counted: the limit of `tier` lets it through in `wait` milliseconds."""
        while wait:
            # In pieces, so that a limit raised by an admin in between counts at once.
            seconds = min(wait / 1000, LONGEST_WAIT_SECONDS)
            host.note_throttled(tier, time.time())
            gevent.sleep(seconds)
            metrics.HOST_THROTTLED_SECONDS.labels(tier).inc(seconds)
            wait, tier = host.limiter.take(int(time.monotonic() * 1000), host.rates)


class _Reading:
    """What one connection has brought so far, of the events after `cursor`; None if it began live.

    `waited`: its host's limits or a full lane have made it wait since that was last reset.
    """

    def __init__(self, host: Host, sink: EventSink, starts_again: StartsAgain, cursor: int | None) -> None:
        self.waited = False
        self._host = host
        # Numbers that were taken up before and are asked for again. Some hosts count the cursor's own among them.
        self._asked_again = range(0) if cursor is None else range(cursor, host.cursor.highest + 1)
        # Of the cursor's own event, if that is the last one that came: the time that it stated.
        self._last_stated = host.last_event_time if len(self._asked_again) == 1 else None
        self._sink = sink
        self._starts_again = starts_again
        self._last_seq = 0
        self._window_since = 0.0
        self._readable = 0
        self._unreadable = 0
        # Those without a signature whose numbers are not new, since the last event whose number was.
        self._held: list[Event] = []

    def take(self, message: bytes | PassedOver) -> None:
        """Handle one message. Raises StreamEnded for the host's stream error, or when hardly anything can be read."""
        if isinstance(message, PassedOver):
            seq, did = _whose(message.head)
            self._reject(message.reason, message.detail, message.head, message.size, seq=seq, did=did)
            self._note_unreadable(f"{message.reason}: {message.detail}")
            return
        try:
            event = self._decode(message)
        except ProtocolError as error:
            fatal, seq, did = True, None, None
            if isinstance(error, FrameError):
                fatal, seq, did = error.fatal, error.seq, error.did
            self._reject(error.reason, error.detail, message, seq=seq, did=did)
            if fatal:
                self._note_unreadable(str(error))
            return
        except Exception as error:
            # A bug of ours. The message would come again after every reconnect and stop the host for good.
            log.exception("reading a message of %s crashed", self._host.hostname)
            self._reject("internal-error", "", message)
            self._note_unreadable(f"internal-error: {type(error).__name__}")
            return
        if isinstance(event, StreamError):
            raise stream_error(event)
        self._host.live_restart = False
        if event is None:
            return
        if isinstance(event, Info):
            metrics.UPSTREAM_INFOS.labels("OutdatedCursor" if event.name == "OutdatedCursor" else "other").inc()
            if event.name == "OutdatedCursor":
                self._host.cursor.note_gap("outdated-cursor")
            log.debug("host %s says %.100r: %.200r", self._host.hostname, event.name, event.message)
            return
        self._put(event)

    def _decode(self, message: bytes) -> Event | Info | StreamError | None:
        began = time.perf_counter()
        try:
            return frames.decode(message)
        finally:
            self._host.share.charge(time.perf_counter() - began)

    def _put(self, event: Event) -> None:
        self._readable += 1
        _RECEIVED[event.kind].inc()
        if event.seq > max(self._last_seq, self._host.cursor.position):
            if self._held:
                self._held.clear()
        elif event.seq <= self._last_seq or event.seq not in self._asked_again or self._is_another(event):
            self._look_at(event)
        if event.seq > self._last_seq:
            self._hand_on(event)
        else:
            self._sink.reject(self._host, None, "seq-not-rising", event.did, f"{event.seq}", event.frame)

    def _is_another(self, event: Event) -> bool:
        """Whether an event that has the number of the last one is not that one: what a host loses in a crash, it gives
        the numbers of to others.
        """
        return self._last_stated not in (None, event.time)

    def _look_at(self, event: Event) -> None:
        """See whether an event is by new numbers of the host: its own is not new, and it was not asked for again."""
        if not self._starts_again(self._host, event):
            self._hold(event)
            return
        self._host.note_restart(time.time())
        self._last_seq, self._asked_again = 0, range(0)
        for earlier in self._held_before(event):
            self._hand_on(earlier)

    def _hand_on(self, event: Event) -> None:
        self._host.note_event(event.time, time.time())
        if self._sink.put(self._host, event):
            self.waited = True
        self._last_seq = event.seq

    def _hold(self, event: Event) -> None:
        """Keep an event that may be the host's first one by new numbers, which it cannot show by itself."""
        if self._held and event.seq <= self._held[-1].seq:
            self._held.clear()
        if isinstance(event, Identity | Account):
            self._held.append(event)
            del self._held[:-HELD_EVENTS]

    def _held_before(self, event: Event) -> list[Event]:
        """What the host sent by its new numbers before `event`, which showed that they are new."""
        held, self._held = self._held, []
        return [earlier for earlier in held if earlier.seq < event.seq]

    def _reject(
        self, reason: str, detail: str, frame: bytes, size: int = 0, *, seq: int | None = None, did: str | None = None
    ) -> None:
        """Count a message that is not an event. The cursor moves past it if its `seq` can be believed."""
        newest = max(self._last_seq, self._host.cursor.position)
        if seq is not None and not newest < seq <= newest + LONGEST_STEP:
            seq = None
        if seq is None:
            self._host.note_unreadable()
        self._sink.reject(self._host, seq, reason, did, detail, frame, size)

    def _note_unreadable(self, words: str) -> None:
        """Raise StreamEnded when the host sends little else."""
        now = time.monotonic()
        if now - self._window_since > UNREADABLE_SECONDS:
            self._window_since = now
            self._readable = self._unreadable = 0
        self._unreadable += 1
        if self._unreadable >= UNREADABLE_ALLOWED and self._unreadable > 2 * self._readable:
            raise StreamEnded("frames-unreadable", f"{self._unreadable} messages in a minute, the last one {words}")


def _whose(head: bytes) -> tuple[int | None, str | None]:
    """The seq and the DID of the event that begins like this, as far as that can be told."""
    with suppress(ProtocolError):
        event = frames.peek(head)
        if isinstance(event, Peeked):
            return event.seq, event.did
    return None, None

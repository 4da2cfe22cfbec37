"""The newest part of the log in memory, as the chunks that consumers get; wakes the consumers that wait for more.

The group commit publishes one chunk per batch; every consumer at the head is handed the same bytes. Bounded in bytes;
older events come from the disk. Must not know of sockets or files.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

import gevent
from gevent.hub import Waiter, get_hub

from relay.atproto.frames import Kind
from relay.eventlog.record import Record
from relay.kit import metrics
from relay.net.websocket import MEDIUM, WHOLE, frame_header, payload_start
from relay.stream.suppressions import Suppressions

CAPACITY_BYTES = 8 << 20
# Bytes of memory that an event takes beside its bytes on the wire.
EVENT_OVERHEAD = 200

TICK = 0.05
# Each woken consumer runs until it waits again: after this many of them others get a turn.
WOKEN_TOGETHER = 64


class Placed(NamedTuple):
    """An event in a chunk: its WebSocket frame is at `start`. `time_us` is that of its record."""

    seq: int
    uid: int
    kind: int
    time_us: int
    start: int
    end: int


_seq = attrgetter("seq")


class Chunk(NamedTuple):
    """The events of one group commit up to `last_seq`, joined for the wire. `whole`: none of them is left out.

    `marked` and `lifted` are those of the suppressions when it was built or last checked.
    """

    data: bytes
    events: list[Placed]
    last_seq: int
    whole: bool
    marked: int
    lifted: int

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return len(self.data) + EVENT_OVERHEAD * len(self.events)

    def frame(self, event: Placed) -> bytes:
        """One of the events as it is in the log."""
        return self.data[payload_start(self.data, event.start) : event.end]

    def after(self, position: int) -> bytes:
        """The events with seq > `position`."""
        first = bisect_right(self.events, position, key=_seq)
        return self.data[self.events[first].start :] if first < len(self.events) else b""


def chunk_of(records: Iterable[Record], last_seq: int, suppressions: Suppressions) -> Chunk:
    """A chunk of those of `records` that may be handed out."""
    parts: list[bytes] = []
    events: list[Placed] = []
    before, pack, account = suppressions.before.get, MEDIUM.pack, Kind.ACCOUNT
    start, whole = 0, True
    for seq, time_us, uid, _, _, kind, _, _, frame in records:
        # As `Suppressions.hides` and `frame_header` say, without a call for each event.
        if seq < before(uid, 0) and kind != account:
            whole = False
            continue
        size = len(frame)
        header = pack(WHOLE, 126, size) if 126 <= size < 65536 else frame_header(size)
        parts += (header, frame)
        end = start + len(header) + size
        events.append(Placed(seq, uid, kind, time_us, start, end))
        start = end
    return Chunk(b"".join(parts), events, last_seq, whole, suppressions.marked, suppressions.lifted)


def without_hidden(chunk: Chunk, suppressions: Suppressions) -> Chunk:
    """`chunk` without the events that are hidden by now."""
    hides = suppressions.hides
    if not any(hides(event.uid, event.seq, event.kind) for event in chunk.events):
        return chunk._replace(marked=suppressions.marked)
    parts: list[bytes] = []
    events: list[Placed] = []
    start = 0
    for event in chunk.events:
        if not hides(event.uid, event.seq, event.kind):
            parts.append(chunk.data[event.start : event.end])
            end = start + event.end - event.start
            events.append(event._replace(start=start, end=end))
            start = end
    return Chunk(b"".join(parts), events, chunk.last_seq, False, suppressions.marked, suppressions.lifted)


class Tail:
    """Chunks by the seq before their first event. `head` is the newest published seq.

    A chunk is checked for hidden events when it is asked for, not at each new mark: thousands of accounts may be
    deleted at once.
    """

    def __init__(self, head: int, suppressions: Suppressions, capacity: int = CAPACITY_BYTES) -> None:
        self.head = head
        self._suppressions = suppressions
        self._capacity = capacity
        self._bytes = 0
        self._chunks: dict[int, Chunk] = {}
        # The second for those to whom a chunk does not go out as it is, which takes time: they must not hold up others.
        self._bells = (Bell(), Bell())
        metrics.show_bound("tail-bytes", lambda: self._bytes, capacity)

    @property
    def first_seq(self) -> int:
        """No event with a lower seq is in memory."""
        return next(iter(self._chunks), self.head) + 1

    def publish(self, records: list[Record]) -> None:
        """Make `records`, the next in the log, available, and wake everyone who waits for them."""
        chunk = chunk_of(records, records[-1].seq, self._suppressions)
        # Under the old head, even when seqs were passed over since: a consumer there goes on with this chunk.
        self._chunks[self.head] = chunk
        self._bytes += chunk.size
        self.head = chunk.last_seq
        while self._bytes > self._capacity and len(self._chunks) > 1:
            self._drop(next(iter(self._chunks)))
        for bell in self._bells:
            bell.ring()

    def after(self, position: int) -> tuple[bytes, int] | None:
        """The next events after `position` and the seq they end with; None when they are not in memory.

        The bytes are empty when all of them are hidden.
        """
        if position >= self.head:
            return None
        if position in self._chunks:
            found = self._current(position)
            return (found.data, found.last_seq) if found else None
        found = self.chunk_after(position)
        return (found.after(position), found.last_seq) if found else None

    def chunk_after(self, position: int) -> Chunk | None:
        """The chunk in which the next events after `position` are; None when they are not in memory."""
        if position in self._chunks:
            return self._current(position)
        if position >= self.head or position < next(iter(self._chunks), self.head):
            return None
        starts = list(self._chunks)
        start = starts[bisect_right(starts, position) - 1]
        # The chunks after it may have been dropped.
        if position >= self._chunks[start].last_seq:
            return None
        return self._current(start)

    def wait(self, position: int, deadline: float, *, converts: bool = False) -> None:
        """Return when there is something after `position`, or at `deadline` (monotonic seconds). A caller that
        `converts` what there is returns after those that do not.
        """
        if position >= self.head:
            self._bells[converts].wait(deadline)

    def _current(self, start: int) -> Chunk | None:
        """The chunk at `start` without what is hidden now. None, and dropped, if it lacks something revealed since."""
        chunk, suppressions = self._chunks[start], self._suppressions
        if chunk.lifted != suppressions.lifted and not chunk.whole:
            self._drop(start)
            return None
        if chunk.marked != suppressions.marked:
            renewed = without_hidden(chunk, suppressions)
            self._bytes += renewed.size - chunk.size
            self._chunks[start] = chunk = renewed
        return chunk

    def _drop(self, start: int) -> None:
        self._bytes -= self._chunks.pop(start).size


class Bell:
    """Wakes every consumer that waits at the head, at once and cheaply: 1,000 of them a hundred times a second.

    A wait may end up to TICK seconds after its deadline, because one timer serves all of them. With a timer for each,
    a wake cost 5.4 us instead of 1.1.
    """

    def __init__(self) -> None:
        # Bounded by the consumers; one that is gone leaves its entry until the next ring or its deadline.
        self._waiting: list[tuple[float, Waiter[None]]] = []
        self._timekeeper: gevent.Greenlet[[], None] | None = None

    def wait(self, deadline: float) -> None:
        """Block until the bell is rung or `deadline` (monotonic seconds) is past."""
        if deadline <= time.monotonic():
            return
        waiter: Waiter[None] = Waiter()
        self._waiting.append((deadline, waiter))
        if self._timekeeper is None:
            self._timekeeper = gevent.spawn(self._keep_time)
        waiter.get()

    def ring(self) -> None:
        """Wake all who wait, as soon as the hub runs."""
        waiting, self._waiting = self._waiting, []
        self._wake([waiter for _, waiter in waiting])

    def _keep_time(self) -> None:
        while self._waiting:
            gevent.sleep(TICK)
            now = time.monotonic()
            late = [waiter for deadline, waiter in self._waiting if deadline <= now]
            if late:
                self._waiting = [entry for entry in self._waiting if entry[0] > now]
                self._wake(late)
        self._timekeeper = None

    def _wake(self, waiters: list[Waiter[None]]) -> None:
        loop = get_hub().loop
        for start in range(0, len(waiters), WOKEN_TOGETHER):
            loop.run_callback(_switch_to, waiters[start : start + WOKEN_TOGETHER])


def _switch_to(waiters: list[Waiter[None]]) -> None:
    # In the hub: a consumer that goes on to wait, for its socket or the next ring, returns here.
    for waiter in waiters:
        waiter.switch(None)

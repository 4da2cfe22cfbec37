"""The newest part of the log in memory, as the chunks that consumers are sent, and the waking of those who wait.

The sequencer publishes one chunk per group commit; every consumer at the head is handed the same bytes. Bounded by
bytes; older events come from the disk. Must not know of sockets or files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from relay.eventlog.record import Record
from relay.kit import metrics
from relay.net.websocket import frame_header
from relay.stream.bell import Bell
from relay.stream.suppressions import Suppressions

CAPACITY_BYTES = 8 << 20
# What an event takes beside its bytes on the wire.
EVENT_OVERHEAD = 200


class Placed(NamedTuple):
    """An event in a chunk: its WebSocket frame is at `start`."""

    seq: int
    uid: int
    kind: int
    start: int
    end: int


_seq = attrgetter("seq")


class Chunk(NamedTuple):
    """The events of one group commit up to `last_seq`, joined for the wire. `whole`: none of them is left out."""

    data: bytes
    events: list[Placed]
    last_seq: int
    whole: bool

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return len(self.data) + EVENT_OVERHEAD * len(self.events)

    def after(self, position: int) -> bytes:
        """The events with seq > `position`."""
        first = bisect_right(self.events, position, key=_seq)
        return self.data[self.events[first].start :] if first < len(self.events) else b""


def chunk_of(records: Iterable[Record], last_seq: int, suppressions: Suppressions) -> Chunk:
    """A chunk of those of `records` that may be handed out."""
    parts: list[bytes] = []
    events: list[Placed] = []
    start, whole = 0, True
    for record in records:
        if suppressions.hides(record.uid, record.seq, record.kind):
            whole = False
            continue
        header = frame_header(len(record.frame))
        parts += (header, record.frame)
        end = start + len(header) + len(record.frame)
        events.append(Placed(record.seq, record.uid, record.kind, start, end))
        start = end
    return Chunk(b"".join(parts), events, last_seq, whole)


def without_hidden(chunk: Chunk, suppressions: Suppressions) -> Chunk:
    """`chunk` without the events that are hidden by now."""
    parts: list[bytes] = []
    events: list[Placed] = []
    start = 0
    for event in chunk.events:
        if not suppressions.hides(event.uid, event.seq, event.kind):
            parts.append(chunk.data[event.start : event.end])
            end = start + event.end - event.start
            events.append(event._replace(start=start, end=end))
            start = end
    return Chunk(b"".join(parts), events, chunk.last_seq, whole=False)


class Tail:
    """Chunks by the seq before their first event. `head` is the newest published seq."""

    def __init__(self, head: int, suppressions: Suppressions, capacity: int = CAPACITY_BYTES) -> None:
        self.head = head
        self._suppressions = suppressions
        self._capacity = capacity
        self._bytes = 0
        self._chunks: dict[int, Chunk] = {}
        self._bell = Bell()
        suppressions.watch(self._renew)
        metrics.QUEUE_SIZE.labels("tail-bytes").set_function(lambda: self._bytes)
        metrics.QUEUE_CAPACITY.labels("tail-bytes").set(capacity)

    def publish(self, records: list[Record]) -> None:
        """Make `records`, the next in the log, available, and wake all who wait for them."""
        chunk = chunk_of(records, records[-1].seq, self._suppressions)
        # Under the old head, even when seqs were passed over since: whoever is there goes on with this.
        self._chunks[self.head] = chunk
        self._bytes += chunk.size
        self.head = chunk.last_seq
        while self._bytes > self._capacity and len(self._chunks) > 1:
            self._drop(next(iter(self._chunks)))
        self._bell.ring()

    def after(self, position: int) -> tuple[bytes, int] | None:
        """The next events after `position` and the seq they end with; None when they are not in memory.

        The bytes are empty when all of them are hidden.
        """
        if found := self._chunks.get(position):
            return found.data, found.last_seq
        if position >= self.head or position < next(iter(self._chunks), self.head):
            return None
        starts = list(self._chunks)
        chunk = self._chunks[starts[bisect_right(starts, position) - 1]]
        # Those after it may have been dropped.
        return (chunk.after(position), chunk.last_seq) if position < chunk.last_seq else None

    def wait(self, position: int, deadline: float) -> None:
        """Return when there is something after `position`, or at `deadline` (monotonic seconds)."""
        if position >= self.head:
            self._bell.wait(deadline)

    def _renew(self, uid: int, before_seq: int | None) -> None:
        """Take out of memory what is hidden now; after a lift, what was built without it, so that it is read anew."""
        for start, chunk in list(self._chunks.items()):
            if before_seq is None and not chunk.whole:
                self._drop(start)
            elif before_seq is not None and any(event.uid == uid for event in chunk.events):
                renewed = without_hidden(chunk, self._suppressions)
                self._bytes += renewed.size - chunk.size
                self._chunks[start] = renewed

    def _drop(self, start: int) -> None:
        self._bytes -= self._chunks.pop(start).size

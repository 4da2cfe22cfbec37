"""The newest part of the log in memory, as the chunks that consumers are sent, and the waking of those who wait.

The sequencer publishes one chunk per group commit; every consumer at the head is handed the same bytes. Bounded by
bytes; older events come from the disk. Must not know of sockets or files.
"""

from __future__ import annotations

import time
from bisect import bisect_right

from gevent.event import Event as Signal

from relay import metrics
from relay.stream import wire
from relay.stream.record import Record
from relay.stream.suppression import Suppressions

CAPACITY_BYTES = 64 << 20
# What a record costs beside its frame: the object, its numbers, and the chunk's own copy of the frame.
RECORD_OVERHEAD = 300


class Chunk:
    """The events of one group commit, joined for the wire without those that are hidden."""

    __slots__ = ("data", "last_seq", "records", "size")

    def __init__(self, records: list[Record], suppressions: Suppressions) -> None:
        self.records = records
        self.last_seq = records[-1].seq
        self.data = shown(records, suppressions)
        self.size = sum(2 * len(record.frame) + RECORD_OVERHEAD for record in records)


def shown(records: list[Record], suppressions: Suppressions) -> bytes:
    """Those of `records` that may be handed out, joined for the wire."""
    if suppressions.hidden(records):
        return wire.joined(r.frame for r in records if not suppressions.hides(r.uid, r.seq, r.kind))
    return wire.joined(record.frame for record in records)


class Tail:
    """Chunks by the seq before their first event. `head` is the newest published seq."""

    def __init__(self, head: int, suppressions: Suppressions, capacity: int = CAPACITY_BYTES) -> None:
        self.head = head
        self._start = head
        self._suppressions = suppressions
        self._capacity = capacity
        self._bytes = 0
        self._chunks: dict[int, Chunk] = {}
        self._published = Signal()
        suppressions.watch(self._rebuild)
        metrics.QUEUE_SIZE.labels("tail-bytes").set_function(lambda: self._bytes)
        metrics.QUEUE_CAPACITY.labels("tail-bytes").set(capacity)

    def publish(self, records: list[Record]) -> None:
        """Make `records`, the next after `head`, available, and wake all who wait for them."""
        if records[0].seq != self.head + 1:
            # Seqs were passed over: what is in memory does not reach up to these records.
            self._chunks.clear()
            self._bytes = 0
            self._start = self.head = records[0].seq - 1
        chunk = Chunk(records, self._suppressions)
        self._chunks[self.head] = chunk
        self._bytes += chunk.size
        self.head = chunk.last_seq
        while self._bytes > self._capacity and len(self._chunks) > 1:
            oldest = self._chunks.pop(next(iter(self._chunks)))
            self._bytes -= oldest.size
            self._start = oldest.last_seq
        published, self._published = self._published, Signal()
        published.set()

    def after(self, position: int) -> tuple[bytes, int] | None:
        """The next events after `position` and the seq they end with; None when they are not in memory.

        The bytes are empty when all of them are hidden.
        """
        chunk = self._chunks.get(position)
        if chunk is not None:
            return chunk.data, chunk.last_seq
        if not self._start <= position < self.head:
            return None
        starts = list(self._chunks)
        chunk = self._chunks[starts[bisect_right(starts, position) - 1]]
        rest = [record for record in chunk.records if record.seq > position]
        return shown(rest, self._suppressions), chunk.last_seq

    def wait(self, position: int, deadline: float) -> None:
        """Return when there is something after `position`, or at `deadline` (monotonic seconds)."""
        if position >= self.head:
            self._published.wait(max(deadline - time.monotonic(), 0))

    def _rebuild(self, uid: int, _before_seq: int | None) -> None:
        for start, chunk in list(self._chunks.items()):
            if any(record.uid == uid for record in chunk.records):
                self._chunks[start] = Chunk(chunk.records, self._suppressions)

"""What is converted in one turn, for consumers who do not take the firehose as it is: a piece of a block of the log, or
of a large chunk in memory.

Used by feeds. A piece of a chunk is a chunk as well, and the same for all who ask, so that what is made of it is made
once. Must not know what is made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter

from relay.eventlog.record import Record
from relay.kit import metrics
from relay.stream.chunk_cache import ChunkCache
from relay.stream.tail import Chunk, Placed

# To JSON a whole block of the log would take 10 ms, and 60 where its events are small or have hundreds of operations.
CONVERTED_EVENTS = 64
CONVERTED_BYTES = 64 << 10
# A chunk is large from here on: those of a relay without a backlog are not, and stay whole.
LARGE_EVENTS = 128
LARGE_BYTES = 256 << 10
# The pieces of the last chunks: consumers at the head ask for the same ones.
CAPACITY_BYTES = 8 << 20

_last_seq = attrgetter("last_seq")


def pieces_of(records: list[Record]) -> Iterator[list[Record]]:
    """`records` in pieces."""
    piece: list[Record] = []
    size = 0
    for record in records:
        piece.append(record)
        size += len(record.frame)
        if len(piece) == CONVERTED_EVENTS or size >= CONVERTED_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


class Pieces:
    """The pieces of one chunk. `size` is bytes of memory, about."""

    __slots__ = ("_pieces", "size")

    def __init__(self, chunk: Chunk) -> None:
        self._pieces: list[Chunk] = []
        events: list[Placed] = []
        for event in chunk.events:
            events.append(event)
            if len(events) == CONVERTED_EVENTS or event.end - events[0].start >= CONVERTED_BYTES:
                self._pieces.append(_piece(chunk, events))
                events = []
        if events:
            self._pieces.append(_piece(chunk, events))
        # What comes after its last event is hidden.
        self._pieces[-1] = self._pieces[-1]._replace(last_seq=chunk.last_seq)
        self.size = sum(piece.size for piece in self._pieces)

    def after(self, seq: int) -> Iterator[Chunk]:
        """The pieces with events behind `seq`, which is below the last one."""
        first = bisect_right(self._pieces, seq, key=_last_seq)
        yield from self._pieces[first:]


class LargeChunks:
    """The pieces of the large chunks that were asked for last."""

    def __init__(self) -> None:
        self._pieces = ChunkCache(Pieces, CAPACITY_BYTES)
        metrics.show_bound("chunk-pieces-bytes", lambda: self._pieces.bytes, CAPACITY_BYTES)

    def after(self, chunk: Chunk, seq: int) -> Iterator[Chunk] | None:
        """The pieces of `chunk` with events behind `seq`; None when it is not large."""
        if len(chunk.events) <= LARGE_EVENTS and len(chunk.data) <= LARGE_BYTES:
            return None
        return self._pieces.of(chunk).after(seq)


def _piece(chunk: Chunk, events: list[Placed]) -> Chunk:
    start, end = events[0].start, events[-1].end
    moved = [event._replace(start=event.start - start, end=event.end - start) for event in events]
    return chunk._replace(data=chunk.data[start:end], events=moved, last_seq=events[-1].seq)

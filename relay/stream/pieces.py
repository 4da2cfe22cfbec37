"""What is converted in one turn, for consumers who do not take the firehose as it is: a piece of a block of the log, or
of a large chunk in memory.

Used by feeds. A piece of a chunk is a chunk as well, and the same for all who ask, so that what is made of it is made
once. Must not know what is made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TypeVar

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

T = TypeVar("T")
_last_seq = attrgetter("last_seq")


def pieces_of(records: Iterable[Record]) -> Iterator[list[Record]]:
    """`records` in pieces."""
    return _split(records, lambda record: len(record.frame))


class Pieces:
    """The pieces of one chunk. `size` is bytes of memory, about."""

    __slots__ = ("_pieces", "size")

    def __init__(self, chunk: Chunk) -> None:
        parts = _split(chunk.events, lambda event: event.end - event.start)
        self._pieces = [_piece(chunk, events) for events in parts]
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


def _split(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    part: list[T] = []
    size = 0
    for item in items:
        part.append(item)
        size += size_of(item)
        if len(part) == CONVERTED_EVENTS or size >= CONVERTED_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _piece(chunk: Chunk, events: list[Placed]) -> Chunk:
    start, end = events[0].start, events[-1].end
    moved = [event._replace(start=event.start - start, end=event.end - start) for event in events]
    return chunk._replace(data=chunk.data[start:end], events=moved, last_seq=events[-1].seq)

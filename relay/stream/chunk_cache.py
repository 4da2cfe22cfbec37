"""Keeps what was made from chunks for consumers who do not take them as they are, while others may ask for the same.

`web` keeps compressed frames here, `jsonstream` its messages. Must not know what is made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from relay.stream.tail import Chunk


class Made(Protocol):
    """Something that was made of a chunk; `size` is bytes of memory, about, with all that may still be made of it."""

    @property
    def size(self) -> int:
        """Bytes, which do not change."""


T = TypeVar("T", bound=Made)


class ChunkCache(Generic[T]):
    """What `make` made of the chunks that were asked for last, bounded by bytes."""

    def __init__(self, make: Callable[[Chunk], T], capacity: int) -> None:
        self.bytes = 0
        self._make = make
        self._capacity = capacity
        self._made: OrderedDict[tuple[int, int, int, int], T] = OrderedDict()

    def of(self, chunk: Chunk) -> T:
        """What is made of a chunk, anew once something in it is hidden or shown again."""
        first_seq = chunk.events[0].seq if chunk.events else chunk.last_seq
        key = (first_seq, chunk.last_seq, chunk.marked, chunk.lifted)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(chunk)
            self.bytes += made.size
            while self.bytes > self._capacity and len(self._made) > 1:
                self.bytes -= self._made.popitem(last=False)[1].size
        else:
            self._made.move_to_end(key)
        return made

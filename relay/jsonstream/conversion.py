"""What a consumer of the JSON stream gets of each chunk: the messages that it wants, by its filter of the moment.

Put by `stream` into a feed of the firehose, which does the rest. Must not know of sockets.
"""

from __future__ import annotations

from relay.jsonstream.batches import Batch
from relay.jsonstream.encodings import Encoding
from relay.jsonstream.filters import Filter
from relay.stream.chunk_cache import ChunkCache
from relay.stream.tail import Chunk


class Options:
    """What a consumer wants, which it may change at any time. `waits`: it will say so before it gets anything."""

    __slots__ = ("waits", "wanted")

    def __init__(self, wanted: Filter, *, waits: bool) -> None:
        self.wanted = wanted
        self.waits = waits


class Conversion:
    """Chunks into joined frames of messages, none of them older than `from_us`, which may be the time of an operation
    in the middle of its commit.
    """

    __slots__ = ("_batches", "_encoding", "_from_us", "_options")

    def __init__(self, options: Options, from_us: int, batches: ChunkCache[Batch], encoding: Encoding) -> None:
        self._options = options
        self._from_us = from_us
        self._batches = batches
        self._encoding = encoding

    def __call__(self, chunk: Chunk, position: int) -> bytes:
        """The frames of the messages behind the seq `position`."""
        if not chunk.events:
            return b""
        wanted = self._options.wanted
        batch, first = self._batches.of(chunk), chunk.events[0]
        if first.time_us < self._from_us or first.seq <= position:
            return batch.frames_after(position, self._from_us, wanted, self._encoding)
        return batch.frames(wanted, self._encoding)

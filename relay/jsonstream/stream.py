"""What the JSON stream has for all its consumers, the batches that they share; and what one consumer gets of each.

Built by `routes` where the stream is switched on. Holds no consumers, and must not know of requests or sockets.
"""

from __future__ import annotations

from pathlib import Path

from relay.jsonstream.batches import Batch
from relay.jsonstream.cursor import Cursor
from relay.jsonstream.encodings import Encoding, zstd_with
from relay.jsonstream.filter_room import FilterRoom, Place
from relay.jsonstream.filters import Filter
from relay.jsonstream.update_pace import UpdatePace
from relay.kit import metrics
from relay.stream.chunk_cache import ChunkCache
from relay.stream.feed import Feed
from relay.stream.firehose import Firehose
from relay.stream.tail import Chunk

CAPACITY_BYTES = 64 << 20


class Options:
    """What a consumer wants, which it may change at any time. `waits`: it will say so before it gets anything."""

    __slots__ = ("place", "waits", "wanted")

    def __init__(self, wanted: Filter, place: Place, *, waits: bool) -> None:
        self.wanted = wanted
        self.place = place
        self.waits = waits

    def change(self, wanted: Filter) -> None:
        """Want this from now on. Raises FiltersFull."""
        self.place.take(wanted)
        self.wanted = wanted


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


class JsonStream:
    """`compressed` is None without a dictionary."""

    def __init__(self, firehose: Firehose, dictionary: Path | None) -> None:
        """Raises ConfigError when the dictionary cannot be used."""
        self._firehose = firehose
        self._batches = ChunkCache(Batch, CAPACITY_BYTES)
        self.room = FilterRoom()
        self.pace = UpdatePace()
        self.compressed = zstd_with(dictionary) if dictionary else None
        metrics.show_bound("json-batches-bytes", lambda: self._batches.bytes, CAPACITY_BYTES)

    def attach(self, cursor: Cursor, encoding: Encoding, options: Options) -> Feed:
        """The feed of a new consumer, which holds the room of its filter. Reads the log in a thread. Raises LogError,
        FiltersFull.
        """
        options.place.take(options.wanted)
        try:
            feed, from_us = cursor.feed(self._firehose)
        except BaseException:
            options.place.close()
            raise
        feed.at_end = options.place.close
        feed.convert = Conversion(options, from_us, self._batches, encoding)
        feed.waits = options.waits
        # Jetstream says nothing of a cursor that is too old.
        feed.outdated = False
        return feed

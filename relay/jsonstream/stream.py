"""What the JSON stream has for all its consumers: the batches that they share, and how they may have them written.

Built by `app` and `edge` where the stream is switched on. Holds no consumers and knows no requests.
"""

from __future__ import annotations

from pathlib import Path

from relay.jsonstream.batches import Batch
from relay.jsonstream.conversion import Conversion, Options
from relay.jsonstream.cursor import Cursor
from relay.jsonstream.encodings import Encoding, zstd_with
from relay.kit import metrics
from relay.stream.chunk_cache import ChunkCache
from relay.stream.firehose import Feed, Firehose

CAPACITY_BYTES = 32 << 20


class JsonStream:
    """`compressed` is None without a dictionary."""

    def __init__(self, firehose: Firehose, dictionary: Path | None) -> None:
        """Raises ConfigError when the dictionary cannot be used."""
        self._firehose = firehose
        self._batches = ChunkCache(Batch, CAPACITY_BYTES)
        self.compressed = zstd_with(dictionary) if dictionary else None
        metrics.show_bound("json-batches-bytes", lambda: self._batches.bytes, CAPACITY_BYTES)

    def attach(self, cursor: Cursor, encoding: Encoding, options: Options) -> Feed:
        """The feed of a new consumer. Reads the log in a thread. Raises LogError."""
        feed = cursor.feed(self._firehose)
        # A time that is still to come is now.
        past = feed.position < self._firehose.last_seq
        from_us = cursor.time_us + 1 if past and cursor.time_us is not None else 0
        feed.convert = Conversion(options, from_us, self._batches, encoding)
        feed.waits = options.waits
        # Jetstream says nothing of a cursor that is too old.
        feed.outdated = False
        return feed

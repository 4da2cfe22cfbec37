"""The firehose for consumers who asked for it compressed: each event is compressed once for all of them.

Used by `firehose` where the operator allows it: it costs some 70 us of CPU an event, and saves a third of the bytes.
Must not know of sockets or requests.
"""

from __future__ import annotations

from bisect import bisect_right

from relay.kit import metrics
from relay.net.websocket import WHOLE
from relay.net.websocket_deflate import deflated_frame
from relay.stream.chunk_cache import ChunkCache
from relay.stream.tail import Chunk

CAPACITY_BYTES = 16 << 20
# What an event takes in memory beside its frame: its seq and where it starts.
EVENT_OVERHEAD = 100


class DeflatedChunk:
    """The frames of a chunk, compressed. `size` is bytes of memory, about."""

    __slots__ = ("_data", "_seqs", "_starts", "size")

    def __init__(self, chunk: Chunk) -> None:
        self._seqs = [event.seq for event in chunk.events]
        self._starts = []
        frames = []
        at = 0
        for event in chunk.events:
            frame = deflated_frame(chunk.frame(event), WHOLE)
            self._starts.append(at)
            frames.append(frame)
            at += len(frame)
        self._data = b"".join(frames)
        self.size = at + EVENT_OVERHEAD * len(self._seqs)

    def after(self, seq: int) -> bytes:
        """The frames of the events behind `seq`."""
        first = bisect_right(self._seqs, seq)
        if not first:
            return self._data
        return self._data[self._starts[first] :] if first < len(self._starts) else b""


class Deflated:
    """What all consumers share who take the firehose compressed: a feed's `convert`."""

    def __init__(self) -> None:
        self._chunks = ChunkCache(DeflatedChunk, CAPACITY_BYTES)
        metrics.show_bound("deflated-bytes", lambda: self._chunks.bytes, CAPACITY_BYTES)

    def __call__(self, chunk: Chunk, position: int) -> bytes:
        """The frames of the events behind the seq `position`."""
        return self._chunks.of(chunk).after(position)

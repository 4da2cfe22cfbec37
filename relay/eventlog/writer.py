"""The segment that is being written: its file, and how far it is whole and how far it is synced.

Used by `log` alone, in one thread at a time. A failed write leaves `size` where it was, so that the same block can
be written again at the same place. Must not know what comes before or after its segment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from relay.eventlog.disk import sync_directory
from relay.eventlog.record import Record
from relay.eventlog.record import encode_header as encode_record_header
from relay.eventlog.segment import INDEX_EVERY, START, Point, Segment, encode_header, encode_points, index_path

SyncFunction = Callable[[int], None]


class Block(NamedTuple):
    """A batch of records with consecutive seqs, as one piece of a segment."""

    data: bytes
    first_seq: int
    last_seq: int
    first_time_us: int
    last_time_us: int


def encode_block(records: Sequence[Record]) -> Block:
    """The block of `records`, of which there must be one at least."""
    parts: list[bytes] = []
    for record in records:
        parts += (encode_record_header(record), record.frame)
    first, last = records[0], records[-1]
    return Block(b"".join(parts), first.seq, last.seq, first.time_us, last.time_us)


class SegmentWriter:
    """Makes the file of `segment` and appends to it. Every method may raise OSError.

    `size` is the length of what is whole in the file, `synced` of what is on the disk.
    """

    def __init__(self, segment: Segment, sync: SyncFunction) -> None:
        self.segment = segment
        self._sync = sync
        # Only a segment that failed before it got its first durable record can be in the way.
        with suppress(FileNotFoundError):
            os.unlink(segment.path)
        self._fd = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._index_fd = -1
        self._next_point = 0
        self.size = self.synced = START
        try:
            self._write_all(encode_header(segment), 0)
            self._sync(self._fd)
            sync_directory(segment.path.parent)
            self._index_fd = os.open(
                index_path(segment.path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640
            )
        except BaseException:
            self.close()
            raise

    def write(self, block: Block) -> None:
        """Append `block`; it is whole in the file on return, but not yet on the disk."""
        self._write_all(block.data, self.size)
        if self.size >= self._next_point:
            self._add_point(Point(block.first_seq, block.first_time_us, self.size))
        self.size += len(block.data)

    def sync(self) -> None:
        """Bring all that was written to the disk. After a failure nothing past `synced` can ever be relied on: the
        kernel forgets which pages it could not write.
        """
        size = self.size
        self._sync(self._fd)
        self.synced = size

    def close(self) -> None:
        """Close the files, without syncing them."""
        fds, self._fd, self._index_fd = (self._fd, self._index_fd), -1, -1
        for fd in fds:
            if fd >= 0:
                # Whatever a file system says now, the file is closed, and what was synced is on the disk.
                with suppress(OSError):
                    os.close(fd)

    def _write_all(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, offset)
            view = view[count:]
            offset += count

    def _add_point(self, point: Point) -> None:
        self._next_point = point.offset + INDEX_EVERY
        # The index is a hint: a disk that is too full for it is not a reason to refuse the event.
        with suppress(OSError):
            os.write(self._index_fd, encode_points((point,)))

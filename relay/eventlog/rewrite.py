"""Writes the headers of a segment's records anew, frames and places as they are: for a log that gets other numbers.

Called while nobody writes the log. The new segment takes the old one's place as a whole, so a crash leaves the one or
the other. Its index stays true. Must not know what the numbers mean, nor what is in a frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from relay.eventlog.disk import sync_directory
from relay.eventlog.record import Record, encode_header
from relay.eventlog.segment import Damage, Handle, Segment, scan

# Records that are changed at a time.
PIECE_RECORDS = 5_000
PIECE_BYTES = 32 << 20
COPY_BYTES = 1 << 20
SECTOR_BYTES = 4 << 10

Change = Callable[[list[Record]], list[Record]]


def rewrite(segment: Segment, change: Change) -> int:
    """Put for each record of `segment` what `change` makes of it, durable on return; how many there were.

    `change` is given many at a time, and gives as many back, each with the frame that it had. Damage stays where it is.
    Blocks on the disk and needs room for another segment. Raises OSError, and what `change` does.
    """
    handle = Handle(segment)
    size = handle.size()
    scratch = segment.path.with_name(f"{segment.path.name}.tmp")
    count = 0
    with scratch.open("wb", buffering=0) as file:
        for offset in range(0, size, COPY_BYTES):
            os.pwrite(file.fileno(), _whole(handle, offset, min(COPY_BYTES, size - offset)), offset)
        places: list[int] = []
        records: list[Record] = []
        held = 0
        for found in scan(handle, size, after_seq=segment.first_seq - 1):
            if isinstance(found, Damage):
                continue
            places.append(found[0])
            records.append(found[1])
            held += found[1].size
            if len(records) >= PIECE_RECORDS or held >= PIECE_BYTES:
                count += _put(file.fileno(), places, change(records))
                places, records, held = [], [], 0
        if records:
            count += _put(file.fileno(), places, change(records))
        os.fsync(file.fileno())
    os.replace(scratch, segment.path)
    sync_directory(segment.path.parent)
    return count


def _put(fd: int, places: list[int], records: list[Record]) -> int:
    for place, record in zip(places, records, strict=True):
        os.pwrite(fd, encode_header(record), place)
    return len(records)


def _whole(handle: Handle, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`: zeros where the disk cannot read, which is damage as before."""
    data = handle.read(offset, size)
    if len(data) == size:
        return data
    sectors = (
        handle.read(at, min(SECTOR_BYTES, offset + size - at)).ljust(min(SECTOR_BYTES, offset + size - at), b"\0")
        for at in range(offset, offset + size, SECTOR_BYTES)
    )
    return b"".join(sectors)

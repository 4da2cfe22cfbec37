"""What is done to the newest segment when a log is opened: its torn end is cut, and its last record found.

Called by `log` before anything is written. A crash can only have left behind a piece of a batch at the very end;
damage with whole records after it is something else, and those records stay. Whole records that a killed process had
not synced yet stay as well, and are synced before anyone reads them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from relay.eventlog.record import HEADER_SIZE
from relay.eventlog.segment import (
    INDEX_EVERY,
    START,
    Damage,
    Handle,
    Point,
    Segment,
    index_path,
    load_index,
    replace_index,
    scan,
    start_of,
)
from relay.kit import metrics

log = logging.getLogger(__name__)


class End(NamedTuple):
    """Where a log ends: its last record, 0 and 0 when it has none, and the lowest seq that may come next."""

    last_seq: int
    time_us: int
    next_seq: int


class Examined(NamedTuple):
    """What is in the newest segment: where its last whole record ends, what follows that, and its index points."""

    end: End
    whole: int
    torn: int
    damaged: int
    points: list[Point]


def examine(segment: Segment) -> Examined:
    """Check every record of the newest segment. Changes nothing. Raises OSError.

    What follows the last whole record is a torn write, and so was never published, or records that stand there a
    second time. Should it have been more, its seqs must not be given out again: `next_seq` is past as many records as
    could have stood there.
    """
    handle = Handle(segment)
    size = handle.size()
    last_seq = time_us = damaged = inside = 0
    whole = START
    points: list[Point] = []
    for found in scan(handle, size, after_seq=segment.first_seq - 1):
        if isinstance(found, Damage):
            damaged += 1
            continue
        offset, record = found
        if not points or offset >= points[-1].offset + INDEX_EVERY:
            points.append(Point(record.seq, record.time_us, offset))
        last_seq, time_us, whole = record.seq, record.time_us, offset + record.size
        inside, damaged = inside + damaged, 0
    torn = max(size - whole, 0)
    lost = -(-torn // HEADER_SIZE)
    end = End(last_seq, time_us, (last_seq + 1 if last_seq else segment.first_seq) + lost)
    return Examined(end, whole, torn, inside, points)


def repair(segment: Segment, found: Examined, sync: Callable[[int], None]) -> None:
    """Cut off what follows the last whole record, bring the rest to the disk, and renew the index. Raises OSError."""
    if found.torn:
        name, last_seq = segment.path.name, found.end.last_seq
        log.warning(
            "%s is cut by %d bytes after seq %d: a torn write, or records out of order", name, found.torn, last_seq
        )
        os.truncate(segment.path, found.whole)
    # A killed process may have written its last records without a sync: the kernel has them, and the disk may not.
    handle = Handle(segment)
    sync(handle.fd)
    if found.damaged:
        metrics.LOG_DAMAGE.inc(found.damaged)
        log.error("%s has %d damaged stretches, which are left out of replay", segment.path.name, found.damaged)
    if found.end.last_seq:
        replace_index(segment.path, found.points)


def remove(segment: Segment) -> None:
    """Delete a segment's files; it is fine if they are gone already."""
    for path in (segment.path, index_path(segment.path)):
        with suppress(FileNotFoundError):
            path.unlink()


def last_record(segment: Segment) -> End:
    """The end of a sealed segment, read from its last index point on. Raises OSError."""
    handle = Handle(segment)
    points = load_index(segment.path)
    offset = start_of(handle, points[-1].seq, points) if points else START
    end = End(0, 0, segment.first_seq)
    for found in scan(handle, handle.size(), offset, after_seq=segment.first_seq - 1):
        if not isinstance(found, Damage):
            _, record = found
            end = End(record.seq, record.time_us, record.seq + 1)
    return end

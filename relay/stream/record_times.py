"""The times of the records of a batch: each operation of an event has one of its own, so that a time names one message.

Used by the sequencer of a relay and by the copier of an edge. Must not know what becomes of the records.
"""

from __future__ import annotations

from collections.abc import Iterable

from relay.atproto.frames import MAX_OPS, op_count
from relay.eventlog.log import SegmentLog


def record_times(log: SegmentLog, frames: Iterable[bytes]) -> list[int]:
    """For each frame, whose beginning is enough, a time in microseconds: now, and behind all that the log has."""
    # How many operations the log's last event has is not kept.
    time_us = max(log.time_us(), log.last_time_us + MAX_OPS)
    times = []
    for frame in frames:
        times.append(time_us)
        time_us += op_count(frame)
    return times

"""Reads the log forward from any seq, segment after segment, around damage, while it is written and trimmed.

One per feed that is behind, and one in recovery. `read` blocks on the disk, so feeds call it in a native thread; `fill`
does not. Must not know who reads.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from mmap import mmap
from operator import attrgetter

from relay.eventlog.disk import read_cached
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import HEADER_SIZE, Record, decode_header, records_in
from relay.eventlog.segment import BLOCK, START, Handle, Segment, after_damage, load_index, read_block, start_of
from relay.kit import metrics
from relay.kit.errors import LogError

# A deleted segment is read on for this long, enough for a reader that keeps up with the log. Until its readers let go
# of it, the disk does not get its room back.
DELETED_SECONDS = 3600.0

# What one step of a search for a time reads.
SEEK_BYTES = 16 << 10

# Among so few seqs it does not pay to look for the middle, as each look reads an index.
NEAR_SEQS = 1_000

_time_us = attrgetter("time_us")
_created_us = attrgetter("created_us")


class FellBehind(LogError):
    """What comes next was deleted by retention."""

    def __init__(self) -> None:
        super().__init__("log-trimmed", "the next event is older than the replay window")


class LogReader:
    """A place in the log. A segment that is being read stays readable for an hour after its deletion."""

    __slots__ = ("_deleted_since", "_handle", "_last", "_log", "_offset", "_seq")

    def __init__(self, log: SegmentLog) -> None:
        self._log = log
        self._handle: Handle | None = None
        self._offset = 0
        self._seq = -1
        # The last record of the segment that was read: those that do not rise from there stand twice.
        self._last = -1
        # When the segment that is read was first found to be deleted.
        self._deleted_since: float | None = None

    def read(self, after_seq: int, size: int = BLOCK) -> list[Record]:
        """Records with seq > `after_seq`, about `size` bytes of them; none at the end of the log.

        Cheap when `after_seq` is the last record that the previous call returned. Raises FellBehind, and LogError
        `log-io` when the disk fails.
        """
        try:
            if self._handle is None or self._seq != after_seq:
                self._seek(after_seq)
            self._check_deleted()
            records = self._read(after_seq, size)
        except FileNotFoundError:
            raise FellBehind from None
        except OSError as error:
            raise LogError("log-io", str(error)) from error
        if records:
            self._seq = records[-1].seq
        return records

    def fill(self, buffer: mmap, after_seq: int) -> tuple[int, int]:
        """Put what comes after the record `after_seq`, the last that was read, at the start of `buffer`, and say how
        many bytes that is and which seq begins the next segment.

        For the hub: it never waits for the disk, and asks the file system for nothing else, as that may be one of
        another machine. No bytes when it would wait, at the end of a segment, in a deleted one, and when another record
        was the last.
        """
        handle = self._handle
        if handle is None or self._seq != after_seq or self._is_deleted(handle):
            return 0, 0
        following = self._log.segment_after(handle.segment)
        synced = self._log.synced_end_of(handle.segment)
        room = memoryview(buffer)
        if synced is not None:
            room = room[: max(synced - self._offset, 0)]
        try:
            size = read_cached(handle.fd, room, self._offset)
        except OSError:
            return 0, 0
        return size, following.first_seq if following else self._log.next_seq

    def advance(self, length: int, seq: int) -> None:
        """Go on behind `length` bytes of what `fill` gave, which end with the record `seq`."""
        self._offset += length
        self._last = self._seq = seq

    def let_go(self) -> None:
        """Close the open file; the next `read` opens the one that it needs."""
        self._handle = None
        self._seq = -1

    def _seek(self, after_seq: int) -> None:
        if after_seq + 1 < self._log.first_seq:
            raise FellBehind
        self._handle = None
        segment = self._log.segment_with(after_seq + 1)
        if segment is not None:
            self._open(segment, after_seq + 1)
        self._seq = after_seq

    def _open(self, segment: Segment, seq: int) -> None:
        self._handle = Handle(segment)
        self._deleted_since = None
        self._offset = START
        self._last = segment.first_seq - 1
        if seq > segment.first_seq:
            self._offset = start_of(self._handle, seq, load_index(segment.path))

    def _read(self, after_seq: int, size: int) -> list[Record]:
        while (handle := self._handle) is not None:
            # In this order: a segment that has a follower is no longer written, so its end is final.
            following = self._log.segment_after(handle.segment)
            end = self._log.end_of(handle.segment) if following is None else handle.size()
            if self._offset < end:
                records = self._next_records(handle, end, size, after_seq)
                # A seek starts early; and a segment ends where the next one begins.
                if records and (records[0].seq <= after_seq or (following and records[-1].seq >= following.first_seq)):
                    limit = following.first_seq if following else records[-1].seq + 1
                    records = [record for record in records if after_seq < record.seq < limit]
                if records:
                    return records
            elif following is None:
                break
            else:
                self._check_follows(handle.segment, following)
                self._open(following, after_seq + 1)
        return []

    def _next_records(self, handle: Handle, end: int, size: int, after_seq: int) -> list[Record]:
        records, length = records_in(read_block(handle, self._offset, end, size), self._last)
        if length:
            self._last = records[-1].seq
            self._offset += length
        else:
            metrics.LOG_DAMAGE.inc()
            self._offset = after_damage(handle, self._offset, end, load_index(handle.segment.path))
            self._say_lost(handle, end, max(self._last, after_seq) + 1)
        return records

    def _say_lost(self, handle: Handle, end: int, first: int) -> None:
        """Say which seqs are passed over: up to what comes next, in this segment or the one after it."""
        found = decode_header(handle.read(self._offset, HEADER_SIZE), 0) if self._offset < end else None
        if found is not None:
            self._log.note_lost(first, found.seq - 1)
        elif self._offset >= end:
            following = self._log.segment_after(handle.segment)
            self._log.note_lost(first, following.first_seq - 1 if following else self._log.last_seq)

    def _is_deleted(self, handle: Handle) -> bool:
        return handle.segment.first_seq < self._log.first_seq

    def _check_deleted(self) -> None:
        if self._handle is None or not self._is_deleted(self._handle):
            return
        now = time.monotonic()
        if self._deleted_since is None:
            self._deleted_since = now
        elif now - self._deleted_since > DELETED_SECONDS:
            self.let_go()
            raise FellBehind

    def _check_follows(self, segment: Segment, following: Segment) -> None:
        """A segment that is missing in the middle of the log is passed over; one that retention deleted is not."""
        trimmed = segment.first_seq < self._log.first_seq
        if trimmed and following.previous != segment.first_seq:
            raise FellBehind


def last_seq_before(log: SegmentLog, time_us: int) -> int:
    """The newest seq such that it and all before it have earlier times; what was trimmed is before everything.

    Blocks on the disk. Raises LogError `log-io`.
    """
    reader = LogReader(log)
    low, high = _around(log, time_us)
    while low < high:
        # To go on reading is cheaper than to look for another place.
        middle = low if high - low <= NEAR_SEQS else (low + high) // 2
        try:
            records = reader.read(middle - 1, SEEK_BYTES)
        except FellBehind:
            low = max(middle + 1, log.first_seq)
            continue
        earlier = bisect_left(records, time_us, key=_time_us)
        if not earlier:
            high = middle
        elif earlier < len(records):
            return records[earlier].seq - 1
        else:
            low = records[-1].seq + 1
    return low - 1


def _around(log: SegmentLog, time_us: int) -> tuple[int, int]:
    """Seqs between which the first record is whose time is not before `time_us`, by what segments and an index say."""
    low, high = log.first_seq, log.next_seq
    # For a header that is damaged the file's time stands in, which may be any.
    segments = [segment for segment in log.segments if segment.previous is not None]
    following = bisect_left(segments, time_us, key=_created_us)
    if following < len(segments):
        high = min(high, segments[following].first_seq)
    if not following:
        return low, high
    segment = segments[following - 1]
    low = max(low, segment.first_seq)
    points = [point for point in load_index(segment.path) if low <= point.seq < high]
    later = bisect_left(points, time_us, key=_time_us)
    return (points[later - 1].seq if later else low), (points[later].seq if later < len(points) else high)

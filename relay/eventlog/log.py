"""The log: segments in a folder, one of them being written, and the seq that comes next.

The group commit writes blocks, one at a time, in a native thread; feeds and recovery read; retention trims. Opening it
takes the folder's lock and settles what a crash left. Must not know of consumers or of SQL.
"""

from __future__ import annotations

import logging
import os
import time
from bisect import bisect_right
from operator import attrgetter
from pathlib import Path

from relay.eventlog import disk, high_water, opening, repair
from relay.eventlog.high_water import RESERVE, GivenOut, HighWater
from relay.eventlog.segment import START, Segment, load, name_of, paths
from relay.eventlog.writer import Block, SegmentWriter, SyncFunction
from relay.kit import metrics
from relay.kit.clock import SteadyClock
from relay.kit.errors import LogError

SEGMENT_BYTES = 256 << 20
SEGMENT_SECONDS = 3600.0

# A log whose newest record is this old was not written for long, or the clock is wrong. For a while nothing is deleted
# for its age.
DOUBTFUL_US = 3_600_000_000
DOUBT_SECONDS = 600.0

# Unreadable stretches that are told apart; a disk with more of them fails in other ways, too.
MAX_LOST = 1_000

_first_seq = attrgetter("first_seq")

log = logging.getLogger(__name__)


class SegmentLog:
    """An open log. `next_seq` is the seq of the next record; it always rises, across all openings.

    `last_time_us` is the time of the newest record; no later record has an earlier time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        initial_seq: int = 1,
        copy: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        sync: SyncFunction = os.fdatasync,
        clock: SteadyClock | None = None,
    ) -> None:
        """Open the log in `directory`, which is created if needed.

        `copy`: its records are another relay's, which alone gives out seqs. Records that a crash took come again as
        they were, so `next_seq` follows the newest record, whatever was published; seqs may be left out.

        Raises LogError: `log-locked` when another process has it open, `log-io` when the disk fails.
        """
        self.directory = directory
        self._copy = copy
        # What cannot be read, by its last seq.
        self._lost: dict[int, int] = {}
        self._segment_bytes = segment_bytes
        self._segment_us = int(segment_seconds * 1_000_000)
        self._sync_function = sync
        self._writer: SegmentWriter | None = None
        self._lock = -1
        self._given_out = -1
        # Whether this run has written, and the next seq that `given-out` names.
        self._running = False
        self._noted = 0
        self._clock = clock or SteadyClock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = opening.lock(directory)
            before = high_water.load(directory)
            self._segments = [load(path) for path in paths(directory)]
            opening.warn_of_missing(self._segments)
            in_doubt = opening.is_in_doubt(before, self._segments)
            end, repairs = opening.examine_end(self._segments)
            self.last_time_us = end.time_us
            # With a clock that is far ahead at the start there is no other way to tell.
            self._quiet_us = self._clock.now_us() - end.time_us if end.time_us else 0
            self._opened = time.monotonic()
            self.next_seq = end.last_seq + 1
            if not copy:
                self.next_seq = opening.next_seq(
                    directory,
                    before,
                    in_doubt=in_doubt,
                    end=end.next_seq,
                    lowest=max(initial_seq, 1),
                    quiet_us=self._quiet_us,
                )
                # Before anything is cut off, published or served: the next start must not decide otherwise.
                self._say_given_out(running=False)
            self._reserve(clean=False)
            for segment, found in repairs:
                repair.repair(segment, found, self._sync_function) if found else repair.remove(segment)
        except LogError:
            self._unlock()
            raise
        except OSError as error:
            self._unlock()
            raise LogError("log-io", f"{directory}: {error}") from error

    @property
    def first_seq(self) -> int:
        """The oldest seq that can be read; `next_seq` when nothing can."""
        return self._segments[0].first_seq if self._segments else self.next_seq

    @property
    def last_seq(self) -> int:
        """The newest seq that was given out, or passed over."""
        return self.next_seq - 1

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, oldest first."""
        return tuple(self._segments)

    def bytes(self) -> int:
        """Bytes in all segments. Blocks on the disk; files that are deleted in the meantime do not count."""
        return sum(_size(segment) for segment in self.segments)

    def bytes_after(self, seq: int) -> int:
        """About how many bytes the records with a higher seq take. Blocks on the disk."""
        segments = self.segments
        first = max(bisect_right(segments, seq, key=_first_seq) - 1, 0)
        return sum(_size(segment) for segment in segments[first:])

    def time_us(self) -> int:
        """The time for a record that is written now. It never goes back, whatever the clock does."""
        return max(self._clock.now_us(), self.last_time_us)

    def advance(self, next_seq: int) -> None:
        """Pass over seqs, so that the next record gets at least `next_seq`. Raises LogError `log-io`."""
        if next_seq <= self.next_seq:
            return
        before, self.next_seq = self.next_seq, next_seq
        try:
            if not self._copy:
                self._say_given_out(running=False)
        except OSError as error:
            self.next_seq = before
            raise LogError("log-io", str(error)) from error

    def write(self, block: Block) -> None:
        """Append `block`, which must start at `next_seq`, or later in a copy. It is on the disk on return.

        Blocks on the disk. Raises LogError `log-io`; then nothing was appended, and the same block may be tried again.
        """
        assert block.first_seq == self.next_seq or (self._copy and block.first_seq > self.next_seq)
        try:
            if not self._running and not self._copy:
                self._say_given_out(running=True)
            self._seal_if_full(len(block.data), block.first_time_us)
            writer = self._writer or self._begin_segment(block)
            if block.last_seq >= self._mark.reserved or self._mark.segment != self._segments[-1].first_seq:
                self._reserve(clean=False)
            writer.write(block)
            self._sync(writer)
        except OSError as error:
            raise LogError("log-io", str(error)) from error
        self.next_seq = block.last_seq + 1
        self.last_time_us = block.last_time_us
        self._tell_given_out()

    def note_given_out(self) -> None:
        """Store which seqs were given out, in case the newest segment loses its end. Blocks on the disk."""
        if self._copy or self._noted == self.next_seq:
            return
        try:
            self._say_given_out(running=True)
        except OSError as error:
            log.debug("%s is not written: %s", high_water.GIVEN_OUT, error)

    def end_of(self, segment: Segment) -> int:
        """The offset up to which the segment may be read now. Raises FileNotFoundError when it was trimmed."""
        synced = self.synced_end_of(segment)
        return segment.path.stat().st_size if synced is None else synced

    def synced_end_of(self, segment: Segment) -> int | None:
        """The same of the segment that is being written; None for the others, which end where their files do."""
        writer = self._writer
        return writer.synced if writer is not None and writer.segment is segment else None

    def note_lost(self, first: int, last: int) -> None:
        """The events from seq `first` to `last` cannot be read. Logged and counted once, however often it is found."""
        known = self._lost.get(last, last + 1)
        if first >= known or len(self._lost) >= MAX_LOST:
            return
        self._lost[last] = first
        metrics.LOG_LOST_EVENTS.inc(known - first)
        log.error("events %d to %d of the log cannot be read: they are left out of replay", first, last)

    def segment_with(self, seq: int) -> Segment | None:
        """The segment that holds `seq` or would hold it, otherwise the next one; None past the newest record."""
        # A copy: retention's thread may delete the oldest at any time.
        segments = self.segments
        if seq >= self.next_seq or not segments:
            return None
        return segments[max(bisect_right(segments, seq, key=_first_seq) - 1, 0)]

    def segment_after(self, segment: Segment) -> Segment | None:
        """The segment that follows, None for the newest."""
        segments = self.segments
        following = bisect_right(segments, segment.first_seq, key=_first_seq)
        return segments[following] if following < len(segments) else None

    def trim(self, window: float, max_bytes: int, keep_from: int) -> int:
        """Delete the segments whose every record is older than `window` seconds, and the oldest while all of them
        have more than `max_bytes` (0: no bound). Returns how many went.

        The newest events stay, and so does every record from seq `keep_from` on. Only time that was seen to pass
        counts: a jump of the clock deletes nothing. Blocks on the disk.
        """
        now_us = self._clock.now_us()
        oldest_us = now_us - self._clock.skipped_us - int(window * 1_000_000)
        if self._quiet_us > DOUBTFUL_US and time.monotonic() - self._opened < DOUBT_SECONDS:
            oldest_us = 0
        total, removed = self.bytes(), 0
        while len(segments := self._with_events()) > 1:
            oldest, following = segments[:2]
            created_us = following.created_us
            if created_us > now_us:
                # It was dated by a wrong clock; the file system may know better.
                created_us = int(following.path.stat().st_mtime * 1_000_000)
            expired = created_us < oldest_us
            if not (expired or (max_bytes and total > max_bytes)) or following.first_seq > keep_from:
                break
            total -= _size(oldest)
            # Deleted first: if the file stayed, the next start would find a hole behind it.
            repair.remove(oldest)
            del self._segments[0]
            removed += 1
        return removed

    def close(self) -> None:
        """Note that the run ended in order, and release the lock. Raises LogError `log-io`."""
        try:
            self._seal()
            self._reserve(clean=True)
        except OSError as error:
            raise LogError("log-io", str(error)) from error
        finally:
            self._unlock()

    def _say_given_out(self, *, running: bool) -> None:
        new = self._given_out < 0
        if new:
            self._given_out = high_water.open_given_out(self.directory)
        high_water.write_given_out(self._given_out, GivenOut(self.next_seq, running), durable=True)
        if new:
            disk.sync_directory(self.directory)
        self._noted, self._running = self.next_seq, running

    def _tell_given_out(self) -> None:
        """Note it before anything is published; too often to wait for the disk, so a power loss may take it."""
        if self._copy:
            return
        try:
            high_water.write_given_out(self._given_out, GivenOut(self.next_seq, running=True), durable=False)
        except OSError as error:
            # The block is on the disk and must not be written again.
            log.debug("%s is not written: %s", high_water.GIVEN_OUT, error)

    def _reserve(self, *, clean: bool) -> None:
        newest = self._segments[-1].first_seq if self._segments else 0
        reserved = self.next_seq if clean else self.next_seq + RESERVE
        mark = HighWater(reserved, newest, clean, synced=True)
        # Stored first: if it were kept in memory although the disk had no room, nothing would store it later.
        high_water.store(self.directory, mark)
        self._mark = mark

    def _unlock(self) -> None:
        for fd in (self._given_out, self._lock):
            if fd >= 0:
                os.close(fd)
        self._given_out = self._lock = -1

    def _begin_segment(self, block: Block) -> SegmentWriter:
        previous = self._segments[-1].first_seq if self._segments else 0
        path = self.directory / name_of(block.first_seq)
        segment = Segment(path, block.first_seq, max(block.first_time_us, self.last_time_us), previous)
        writer = SegmentWriter(segment, self._sync_function)
        self._segments.append(segment)
        self._writer = writer
        return writer

    def _seal_if_full(self, size: int, now_us: int) -> None:
        writer = self._writer
        if writer is None:
            return
        full = writer.size + size > self._segment_bytes
        if full or now_us - writer.segment.created_us >= self._segment_us:
            self._seal()

    def _seal(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _with_events(self) -> tuple[Segment, ...]:
        """All segments but one that has begun and has no event on the disk yet."""
        segments, writer = self.segments, self._writer
        begun = writer is not None and writer.synced == START and segments[-1:] == (writer.segment,)
        return segments[:-1] if begun else segments

    def _sync(self, writer: SegmentWriter) -> None:
        started = time.monotonic()
        try:
            writer.sync()
        except OSError:
            self._abandon(writer)
            raise
        metrics.LOG_SYNC_SECONDS.observe(time.monotonic() - started)

    def _abandon(self, writer: SegmentWriter) -> None:
        """Leave a segment that could not be synced: the next attempt goes into a new file."""
        if writer.synced == START:
            # Before it has no writer any more: retention must not take it for one with events.
            self._segments.pop()
        self._seal()
        try:
            os.truncate(writer.segment.path, writer.synced)
        except OSError as error:
            log.warning("%s cannot be cut after a failed sync: %s", writer.segment.path.name, error)


def _size(segment: Segment) -> int:
    try:
        return segment.path.stat().st_size
    except FileNotFoundError:
        return 0

"""The segment log on real files: what is written is read, and what each kind of accident leaves is as documented."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google_crc32c import value as crc32c

from relay.eventlog import high_water, reader
from relay.eventlog.high_water import RESERVE, GivenOut
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import FellBehind, LogReader, last_seq_before
from relay.eventlog.record import HEADER_SIZE, Record, encode_header
from relay.eventlog.segment import START, Point, index_path, load_index, paths, replace_index
from relay.eventlog.writer import Block, SegmentWriter
from relay.kit.clock import SteadyClock
from relay.kit.errors import LogError
from tests.support.stream import append, record

SMALL = 2000
"""Bytes of a segment, so that a few records fill one."""


class Time:
    """A time of day that can be set, and a steady clock beside it, in seconds after the first record's time."""

    def __init__(self) -> None:
        self.steady = self.ahead = 0.0

    def clock(self) -> SteadyClock:
        start = record(1).time_us
        return SteadyClock(
            lambda: start + int((self.steady + self.ahead) * 1e6), lambda: 1_000_000 + int(self.steady * 1e6)
        )


def opened(folder: Path, **options: Any) -> SegmentLog:
    return SegmentLog(folder, **{"segment_bytes": SMALL, "clock": Time().clock(), **options})


def filled(folder: Path, count: int, *, batch: int = 4, **options: Any) -> SegmentLog:
    """A log of `count` records, in batches."""
    log = opened(folder, **options)
    end = log.next_seq + count
    for start in range(log.next_seq, end, batch):
        append(log, [record(seq) for seq in range(start, min(start + batch, end))])
    return log


def everything(log: SegmentLog, after: int | None = None, size: int = 1000) -> list[Record]:
    reader, found = LogReader(log), []
    seq = log.first_seq - 1 if after is None else after
    while records := reader.read(seq, size):
        found += records
        seq = records[-1].seq
    return found


def seqs(log: SegmentLog, after: int | None = None) -> list[int]:
    return [found.seq for found in everything(log, after)]


def crash(log: SegmentLog) -> None:
    """Leave the files as they are, as SIGKILL does."""
    log._unlock()


def release_locks(folder: Path) -> None:
    """A log that could not be opened leaves its lock to the garbage collector of this process."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}") == str(folder / "lock"):
                os.close(int(fd))
        except OSError:
            continue


def spoil(path: Path, offset: int, size: int = 1) -> None:
    data = bytearray(path.read_bytes())
    for at in range(offset, offset + size):
        data[at] ^= 0xFF
    path.write_bytes(data)


def offset_of(path: Path, seq: int) -> int:
    return path.read_bytes().index(encode_header(record(seq)))


# Reading and writing


def test_what_is_written_is_read(tmp_path: Path) -> None:
    log = filled(tmp_path, 100)
    assert len(log.segments) > 3
    assert everything(log) == [record(seq) for seq in range(1, 101)]
    assert (log.first_seq, log.last_seq, log.next_seq) == (1, 100, 101)


@pytest.mark.parametrize("after", [0, 1, 3, 4, 17, 50, 99, 100])
def test_reading_starts_anywhere(tmp_path: Path, after: int) -> None:
    log = filled(tmp_path, 100)
    assert seqs(log, after) == list(range(after + 1, 101))


def test_a_reader_follows_the_writer(tmp_path: Path) -> None:
    log = opened(tmp_path)
    reader, found = LogReader(log), []
    for seq in range(1, 60):
        assert reader.read(seq - 1) == []
        append(log, [record(seq)])
        found += reader.read(seq - 1)
    assert [one.seq for one in found] == list(range(1, 60))


def test_a_frame_larger_than_a_block(tmp_path: Path) -> None:
    log = opened(tmp_path)
    frames = [os.urandom(10), os.urandom(3_000_000), os.urandom(20)]
    written = [record(seq, frame=frame) for seq, frame in enumerate(frames, 1)]
    append(log, written)
    assert everything(log) == written


def test_it_goes_on_after_closing(tmp_path: Path) -> None:
    filled(tmp_path, 10).close()
    log = filled(tmp_path, 10)
    assert seqs(log) == list(range(1, 21))


def test_only_an_empty_log_begins_at_the_initial_seq(tmp_path: Path) -> None:
    log = opened(tmp_path, initial_seq=1000)
    assert (log.first_seq, log.last_seq) == (1000, 999)
    append(log, [record(1000)])
    log.close()
    assert opened(tmp_path, initial_seq=5).next_seq == 1001


def test_one_process_at_a_time(tmp_path: Path) -> None:
    log = opened(tmp_path)
    with pytest.raises(LogError) as caught:
        opened(tmp_path)
    assert caught.value.reason == "log-locked"
    log.close()
    opened(tmp_path)


def test_segments_are_rotated_by_age(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=1 << 20, segment_seconds=10.0)
    for seq in range(1, 5):
        append(log, [record(seq)._replace(time_us=seq * 6_000_000)])
    assert [segment.first_seq for segment in log.segments] == [1, 3]


def test_seqs_may_be_passed_over(tmp_path: Path) -> None:
    log = filled(tmp_path, 10)
    log.advance(1000)
    assert log.last_seq == 999
    append(log, [record(1000)])
    assert seqs(log) == [*range(1, 11), 1000]
    log.advance(5)
    assert log.next_seq == 1001
    assert seqs(log, 500) == [1000]


# Retention


def test_trim_by_window(tmp_path: Path) -> None:
    time = Time()
    log = filled(tmp_path, 100, clock=time.clock())
    segments = log.segments
    time.steady = (segments[3].created_us - record(1).time_us) / 1e6 + 10.0
    log.trim(10.0 - 1e-6, 0, keep_from=101)
    assert log.first_seq == segments[3].first_seq
    assert seqs(log) == list(range(log.first_seq, 101))
    assert len(list(tmp_path.glob("*.idx"))) == len(log.segments)


def test_a_clock_that_jumps_ahead_deletes_and_dates_nothing(tmp_path: Path) -> None:
    time = Time()
    log = filled(tmp_path, 100, clock=time.clock())
    time.ahead = 400 * 86_400
    assert log.trim(3600.0, 0, keep_from=101) == 0
    assert log.time_us() < record(1).time_us + 1_000_000
    time.steady += 120
    log.time_us()
    assert log.trim(3600.0, 0, keep_from=101) == 0, "nor when it lasts"
    time.steady += 3600
    assert log.trim(3600.0, 0, keep_from=101) > 0, "what was seen to grow old goes"


def test_a_start_with_a_clock_that_is_far_ahead_deletes_nothing_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(filled(tmp_path, 100))
    time = Time()
    time.ahead = 400 * 86_400
    log = opened(tmp_path, clock=time.clock())
    assert log.trim(3600.0, 0, keep_from=101) == 0
    monkeypatch.setattr("relay.eventlog.log.DOUBT_SECONDS", 0.0)
    assert log.trim(3600.0, 0, keep_from=101) > 0


def test_segments_that_a_wrong_clock_dated_go_by_the_time_of_their_files(tmp_path: Path) -> None:
    time = Time()
    log = opened(tmp_path, clock=time.clock(), segment_bytes=300)
    for seq in range(1, 41):
        append(log, [record(seq)._replace(time_us=record(1).time_us + 10**15)])
    old = record(1).time_us / 1e6 - 7200
    for path in paths(tmp_path)[:5]:
        os.utime(path, (old, old))
    assert log.trim(3600.0, 0, keep_from=41) == 4


def test_trim_by_size_keeps_the_newest(tmp_path: Path) -> None:
    log = filled(tmp_path, 100)
    log.trim(1e9, log.bytes() // 2, keep_from=101)
    assert log.bytes() <= len(log.segments) * SMALL and 1 < log.first_seq < 100
    log.trim(1e9, 1, keep_from=101)
    assert len(log.segments) == 1 and seqs(log)[-1] == 100


def test_trim_keeps_what_is_still_needed(tmp_path: Path) -> None:
    log = filled(tmp_path, 100)
    log.trim(0.0, 1, keep_from=50)
    assert log.first_seq <= 50 < log.segments[1].first_seq


def test_a_segment_that_cannot_be_deleted_leaves_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, unlink = filled(tmp_path, 100), os.unlink

    def refused(path: Path) -> None:
        if path == oldest:
            raise OSError(errno.EIO, "cannot be deleted")
        unlink(path)

    oldest = log.segments[0].path
    monkeypatch.setattr(os, "unlink", refused)
    for _ in range(2):
        with pytest.raises(OSError, match="cannot be deleted"):
            log.trim(1e9, 1, keep_from=101)
    assert seqs(log) == list(range(1, 101))
    monkeypatch.undo()
    log.trim(1e9, 1, keep_from=101)
    assert len(log.segments) == 1 and not oldest.exists()


def test_an_open_reader_outlives_its_segment(tmp_path: Path) -> None:
    log = filled(tmp_path, 100)
    reader = LogReader(log)
    first = reader.read(0, 1)
    log.trim(1e9, 1, keep_from=101)
    found, seq = list(first), first[-1].seq
    with pytest.raises(FellBehind):
        while records := reader.read(seq, 1):
            found += records
            seq = records[-1].seq
    assert [one.seq for one in found] == list(range(1, seq + 1))


def open_files() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def test_a_deleted_segment_is_read_on_for_a_while_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its room on the disk is not free before, however little at a time its reader takes."""
    log = filled(tmp_path, 100)
    deleted = f"{log.segments[0].path} (deleted)"
    reader = LogReader(log)
    reader.read(0, 1)
    log.trim(1e9, 1, keep_from=101)
    assert [one.seq for one in reader.read(1, 1)] == [2]
    assert deleted in open_files()
    monkeypatch.setattr("relay.eventlog.reader.DELETED_SECONDS", 0.0)
    with pytest.raises(FellBehind):
        reader.read(2, 1)
    assert deleted not in open_files()


def test_reading_before_the_window(tmp_path: Path) -> None:
    log = filled(tmp_path, 100)
    log.trim(1e9, 1, keep_from=101)
    with pytest.raises(FellBehind):
        LogReader(log).read(0)


# Accidents


@pytest.mark.parametrize("lost", [1, 5, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 1])
def test_a_torn_end_is_cut(tmp_path: Path, lost: int) -> None:
    log = filled(tmp_path, 10, segment_bytes=1 << 20)
    crash(log)
    path = paths(tmp_path)[-1]
    os.truncate(path, path.stat().st_size - lost)
    log = opened(tmp_path)
    assert path.stat().st_size == offset_of(path, 9) + record(9).size
    assert log.next_seq >= 11, "the seq of what was cut is not used again"
    append(log, [record(log.next_seq)])
    assert seqs(log) == [*range(1, 10), log.last_seq]


@pytest.mark.parametrize("rubbish", [b"\0" * 4096, os.urandom(5000)])
def test_rubbish_at_the_end_is_cut(tmp_path: Path, rubbish: bytes) -> None:
    log = filled(tmp_path, 10, segment_bytes=1 << 20)
    crash(log)
    path = paths(tmp_path)[-1]
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(rubbish)
    log = opened(tmp_path)
    assert path.stat().st_size == whole
    assert log.next_seq >= 11 + len(rubbish) // HEADER_SIZE
    assert seqs(log) == list(range(1, 11))


def test_a_crash_without_damage_leaves_no_gap(tmp_path: Path) -> None:
    crash(filled(tmp_path, 10))
    assert opened(tmp_path).next_seq == 11


def test_what_a_killed_process_had_not_synced_is_on_the_disk_before_it_is_read(tmp_path: Path) -> None:
    """It is in the kernel's memory, and looks as if it was there: consumers get it, and then the power goes."""
    synced: list[str] = []

    def sync(fd: int) -> None:
        os.fdatasync(fd)
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)

    crash(filled(tmp_path, 10))
    log = opened(tmp_path, sync=sync)
    assert synced == [log.segments[-1].path.name]


def test_a_segment_without_a_record_is_removed(tmp_path: Path) -> None:
    crash(filled(tmp_path, 10))
    (tmp_path / "0000000000000011.seg").write_bytes(b"ATREL")
    log = opened(tmp_path)
    assert 11 <= log.next_seq <= 12
    assert log.segments[-1].first_seq < 11
    append(log, [record(log.next_seq)])
    assert seqs(log) == [*range(1, 11), log.last_seq]


@pytest.mark.parametrize("sealed", [True, False])
def test_a_damaged_frame_costs_one_event(tmp_path: Path, sealed: bool) -> None:
    log = filled(tmp_path, 30, segment_bytes=1 << 20)
    path = paths(tmp_path)[0]
    crash(log)
    if sealed:
        crash(filled(tmp_path, 5))
    spoil(path, offset_of(path, 7) + HEADER_SIZE + 1)
    log = opened(tmp_path)
    assert seqs(log) == [seq for seq in range(1, log.next_seq) if seq != 7]
    assert log.next_seq == (36 if sealed else 31), "what is damaged in the middle leaves no gap at the end"


def test_a_damaged_header_costs_up_to_the_next_index_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.eventlog.writer.INDEX_EVERY", 500)
    monkeypatch.setattr("relay.eventlog.repair.INDEX_EVERY", 500)
    log = filled(tmp_path, 60, segment_bytes=1 << 20)
    crash(log)
    path = paths(tmp_path)[0]
    points = load_index(path)
    assert len(points) > 4
    spoil(path, offset_of(path, points[2].seq) + 10)
    found = seqs(opened(tmp_path))
    assert found == [*range(1, points[2].seq), *range(points[3].seq, 61)]


def test_a_record_inside_a_frame_is_never_served(tmp_path: Path) -> None:
    """A host may send a frame that looks like a record. A damaged header before it must not bring it to light."""
    forged = record(6, frame=b"forged")
    hostile = record(5, frame=b"x" * 40 + encode_header(forged) + forged.frame + b"y" * 40)
    log = opened(tmp_path, segment_bytes=1 << 20)
    written = [hostile if seq == 5 else record(seq) for seq in range(1, 11)]
    append(log, written)
    crash(log)
    path = paths(tmp_path)[0]
    data = path.read_bytes()
    for spoilt in range(HEADER_SIZE):
        path.write_bytes(data)
        spoil(path, data.index(encode_header(hostile)) + spoilt)
        log = opened(tmp_path)
        assert forged not in everything(log)
        assert log.next_seq > 10
        crash(log)


def test_a_missing_segment_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    crash(filled(tmp_path, 100))
    files = paths(tmp_path)
    gone, after = (int(path.stem) for path in files[2:4])
    files[2].unlink()
    log = opened(tmp_path)
    assert seqs(log) == [*range(1, gone), *range(after, 101)]
    assert seqs(log, gone) == list(range(after, 101))
    assert log.next_seq == 101


def test_a_missing_newest_segment_leaves_a_gap(tmp_path: Path) -> None:
    crash(filled(tmp_path, 100))
    newest = paths(tmp_path)[-1]
    newest.unlink()
    log = opened(tmp_path)
    assert log.next_seq > RESERVE
    assert seqs(log) == list(range(1, int(newest.stem)))
    append(log, [record(log.next_seq)])
    crash(log)
    assert opened(tmp_path).next_seq == log.next_seq


@pytest.mark.parametrize("clean", [True, False])
def test_all_segments_gone(tmp_path: Path, clean: bool) -> None:
    log = filled(tmp_path, 100)
    log.close() if clean else crash(log)
    for path in paths(tmp_path):
        path.unlink()
    assert opened(tmp_path).next_seq >= 101


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: spoil(path, 9)])
def test_without_the_mark_there_is_doubt(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    filled(tmp_path, 10).close()
    damage(tmp_path / high_water.NAME)
    assert opened(tmp_path).next_seq == 11 + RESERVE


def test_seqs_passed_over_stay_so_after_a_clean_end(tmp_path: Path) -> None:
    log = filled(tmp_path, 10)
    log.advance(5000)
    log.close()
    assert opened(tmp_path).next_seq == 5000


def lost_newest(folder: Path) -> None:
    paths(folder)[-1].unlink()


def lost_a_header(folder: Path) -> None:
    newest = paths(folder)[-1]
    index_path(newest).unlink()
    spoil(newest, newest.read_bytes().index(encode_header(record(99))) + 13)


def lost_the_mark(folder: Path) -> None:
    (folder / high_water.NAME).write_bytes(b"")


def lost_both_marks(folder: Path) -> None:
    lost_the_mark(folder)
    (folder / high_water.GIVEN_OUT).write_bytes(b"")


@pytest.mark.parametrize("accident", [lost_newest, lost_a_header, lost_the_mark, lost_both_marks])
def test_what_a_start_passes_over_stays_passed_over(tmp_path: Path, accident: Callable[[Path], None]) -> None:
    """Killed before its first event, and again: no start gives out what was given out before the accident."""
    crash(filled(tmp_path, 100))
    accident(tmp_path)
    starts = []
    for _ in range(3):
        log = opened(tmp_path)
        starts.append(log.next_seq)
        crash(log)
    assert min(starts) > 100 and starts[1:] == starts[:-1]


@pytest.mark.parametrize("step", range(12))
def test_a_start_may_be_killed_at_any_step(tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends before each write, sync, rename, cut and deletion of an opening in doubt, in turn."""
    crash(filled(tmp_path, 100))
    lost_newest(tmp_path)
    spoil(paths(tmp_path)[-1], paths(tmp_path)[-1].stat().st_size - 3)
    steps = iter(range(100))

    class Killed(BaseException):
        pass

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == step:
                raise Killed
            return call(*args, **kwargs)

        return attempt

    with monkeypatch.context() as patched:
        for name in ("pwrite", "fsync", "replace", "truncate", "unlink"):
            patched.setattr(f"os.{name}", counted(getattr(os, name)))
        try:
            crash(opened(tmp_path))
        except Killed:
            release_locks(tmp_path)
    log = opened(tmp_path)
    assert log.next_seq > 100
    crash(log)
    assert opened(tmp_path).next_seq >= log.next_seq


def test_a_log_that_was_cut_short_is_in_doubt(tmp_path: Path) -> None:
    """The newest segment without its end, at a record's border, as a file system may leave it."""
    log = filled(tmp_path, 98)
    log.note_given_out()
    newest = paths(tmp_path)[-1]
    crash(log)
    os.truncate(newest, newest.read_bytes().index(encode_header(record(97))))
    log = opened(tmp_path)
    assert log.last_seq > RESERVE and seqs(log) == list(range(1, 97))


def test_a_log_that_was_cut_short_since_it_was_noted_is_in_doubt(tmp_path: Path) -> None:
    """A process that was killed has said of each batch that it was given out, synced or not."""
    log = filled(tmp_path, 50)
    log.note_given_out()
    append(log, [record(seq) for seq in range(51, 99)])
    newest = paths(tmp_path)[-1]
    crash(log)
    os.truncate(newest, newest.read_bytes().index(encode_header(record(95))))
    log = opened(tmp_path)
    assert log.last_seq > RESERVE and seqs(log) == list(range(1, 95))


@pytest.mark.parametrize("clean", [True, False])
def test_after_a_silence_as_many_seqs_are_passed_over_as_may_have_been_given_out(tmp_path: Path, clean: bool) -> None:
    """A snapshot of the machine brings back log and database alike: nothing but the time contradicts."""
    log = filled(tmp_path, 100)
    log.close() if clean else crash(log)
    time = Time()
    time.ahead = 3600.0
    log = opened(tmp_path, clock=time.clock())
    assert 100 + 3599 * 5000 <= log.next_seq <= 101 + 3600 * 5000
    crash(log)
    assert opened(tmp_path).next_seq == log.next_seq, "whatever the clock says next time"


def test_a_crash_alone_leaves_no_gap(tmp_path: Path) -> None:
    log = filled(tmp_path, 10)
    log.note_given_out()
    crash(log)
    log = filled(tmp_path, 10)
    crash(log)
    assert seqs(opened(tmp_path)) == list(range(1, 21))


def test_a_mark_that_had_no_room_is_stored_by_the_next_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path, 10, segment_bytes=1 << 20)
    log._segment_bytes = 1

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(high_water, "store", full)
        with pytest.raises(LogError):
            append(log, [record(11)])
    append(log, [record(11)])
    stored = high_water.load(tmp_path)
    assert stored is not None and stored.segment == log.segments[-1].first_seq == 11
    crash(log)
    lost_newest(tmp_path)
    assert opened(tmp_path).next_seq > 11


def test_records_that_stand_twice_are_read_once(tmp_path: Path) -> None:
    crash(filled(tmp_path, 60))
    for path in paths(tmp_path)[:2]:
        data = path.read_bytes()
        path.write_bytes(data + data[data.index(encode_header(record(int(path.stem) + 2))) :])
    log = opened(tmp_path)
    for start in (0, 1, 5, 20, 59):
        assert seqs(log, start) == list(range(start + 1, 61))
    crash(log)
    newest = paths(tmp_path)[-1]
    data = newest.read_bytes()
    again = data.index(encode_header(record(int(newest.stem))))
    newest.write_bytes(data + data[again:])
    log = opened(tmp_path)
    assert newest.read_bytes() == data
    assert seqs(log) == list(range(1, 61)) and log.next_seq > 60


def test_the_reserve_is_renewed(tmp_path: Path) -> None:
    log = filled(tmp_path, 10)
    log.advance(RESERVE * 3)
    append(log, [record(log.next_seq)])
    crash(log)
    paths(tmp_path)[-1].unlink()
    assert opened(tmp_path).next_seq > RESERVE * 3


@pytest.mark.parametrize("end", ["in order", "in order, newest lost", "killed, newest lost", "killed, newest spoiled"])
def test_the_mark_alone_says_enough(tmp_path: Path, end: str) -> None:
    """What was given out beside it is not there: it was an older relay's log, or the folder lost it."""
    log = filled(tmp_path, 10)
    if "spoiled" not in end:
        log.advance(RESERVE * 3)
    if "newest" in end:
        append(log, [record(seq) for seq in range(log.next_seq, log.next_seq + 30)])
    given = log.next_seq
    log.close() if "in order" in end else crash(log)
    newest = paths(tmp_path)[-1]
    if "lost" in end:
        newest.unlink()
    elif "spoiled" in end:
        index_path(newest).unlink()
        spoil(newest, START, newest.stat().st_size - START)
    (tmp_path / high_water.GIVEN_OUT).unlink()
    assert opened(tmp_path).next_seq >= given


def test_damage_to_what_was_given_out_is_noticed(tmp_path: Path) -> None:
    crash(filled(tmp_path, 10))
    path = tmp_path / high_water.GIVEN_OUT
    path.write_bytes(path.read_bytes().replace(b"\x0b\0\0", b"\x02\0\0"))
    assert opened(tmp_path).next_seq == 11 + RESERVE


def test_a_disk_that_is_too_full_for_what_helps_takes_the_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is a hint, and what was given out was noted durably as the run began."""
    log, write_given_out = filled(tmp_path, 4), high_water.write_given_out

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def written(fd: int, given: GivenOut, *, durable: bool) -> None:
        write_given_out(fd, given, durable=durable) if durable else full()

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(high_water, "write_given_out", written)
    for seq in range(5, 61):
        append(log, [record(seq)])
    assert seqs(log) == list(range(1, 61)) and len(log.segments) > 2
    monkeypatch.undo()
    crash(log)
    assert seqs(opened(tmp_path)) == list(range(1, 61))


def test_seqs_that_could_not_be_passed_over_are_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path, 4)

    def full(*_: object, durable: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(high_water, "write_given_out", full)
    with pytest.raises(LogError):
        log.advance(100)
    monkeypatch.undo()
    append(log, [record(5)])
    assert seqs(log) == [1, 2, 3, 4, 5]


def test_no_seq_from_the_mark_on_is_given_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.eventlog.log.RESERVE", 10)
    log = opened(tmp_path, segment_bytes=1 << 20)
    for seq in range(1, 41):
        append(log, [record(seq)])
        mark = high_water.load(tmp_path)
        assert mark is not None and mark.reserved > seq


def test_unreadable_stretches_are_told_apart_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.eventlog.log.MAX_LOST", 3)
    log = filled(tmp_path, 10)
    for _ in range(2):
        for seq in range(1, 6):
            log.note_lost(seq, seq)
    assert log._lost == {1: 1, 2: 2, 3: 3}


def test_a_log_that_was_not_synced_is_in_doubt_after_a_crash_only(tmp_path: Path) -> None:
    """Older relays could publish before they synced, and left a mark that says so."""

    def leave_mark(clean: bool) -> None:
        mark = high_water.load(tmp_path)
        assert mark is not None
        high_water.store(tmp_path, mark._replace(clean=clean, synced=False))

    log = filled(tmp_path, 10)
    log.close()
    leave_mark(clean=True)
    log = filled(tmp_path, 10)
    assert seqs(log) == list(range(1, 21))
    crash(log)
    leave_mark(clean=False)
    assert opened(tmp_path).next_seq > RESERVE


# The index is a hint


def lies() -> dict[str, Callable[[Path], object]]:
    def points_elsewhere(path: Path) -> None:
        points = load_index(path)
        replace_index(path, [point._replace(offset=point.offset + 13) for point in points])

    def names_other_seqs(path: Path) -> None:
        points = load_index(path)
        replace_index(path, [point._replace(seq=max(point.seq - 3, 1) + number) for number, point in enumerate(points)])

    def points_past_the_end(path: Path) -> None:
        replace_index(path, [Point(1, 1, 1 << 40)])

    return {
        "missing": lambda path: index_path(path).unlink(),
        "empty": lambda path: index_path(path).write_bytes(b""),
        "rubbish": lambda path: index_path(path).write_bytes(os.urandom(999)),
        "cut": lambda path: os.truncate(index_path(path), 40),
        "elsewhere": points_elsewhere,
        "other-seqs": names_other_seqs,
        "past-the-end": points_past_the_end,
    }


@pytest.mark.parametrize("lie", lies().values(), ids=lies().keys())
def test_a_lying_index_changes_nothing(
    tmp_path: Path, lie: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.eventlog.writer.INDEX_EVERY", 300)
    monkeypatch.setattr("relay.eventlog.repair.INDEX_EVERY", 300)
    log = filled(tmp_path, 100)
    for segment in log.segments:
        lie(segment.path)
    for after in range(101):
        assert seqs(log, after) == list(range(after + 1, 101))
    crash(log)
    log = opened(tmp_path)
    assert log.next_seq == 101
    assert seqs(log) == list(range(1, 101))
    assert load_index(log.segments[-1].path), "made anew for the newest segment"


def test_a_damaged_segment_header_costs_nothing(tmp_path: Path) -> None:
    crash(filled(tmp_path, 100))
    for path in paths(tmp_path):
        spoil(path, 3, 20)
    log = opened(tmp_path)
    assert seqs(log) == list(range(1, 101))
    assert abs(log.segments[0].created_us / 1e6 - time.time()) < 60


# Disks that fail


class Moody:
    """fdatasync with an outcome for each call to come; then it succeeds."""

    def __init__(self) -> None:
        self.outcomes: list[bool] = []

    def __call__(self, fd: int) -> None:
        if self.outcomes and not self.outcomes.pop(0):
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(fd)


class Disk:
    """fdatasync that fails when told to."""

    def __init__(self) -> None:
        self.failing = False

    def __call__(self, fd: int) -> None:
        if self.failing:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(fd)


def test_a_failed_sync_is_tried_again_in_a_new_segment(tmp_path: Path) -> None:
    disk = Disk()
    log = filled(tmp_path, 10, sync=disk, segment_bytes=1 << 20)
    disk.failing = True
    for _ in range(3):
        with pytest.raises(LogError) as caught:
            append(log, [record(11), record(12)])
        assert caught.value.reason == "log-io"
        assert seqs(log) == list(range(1, 11)), "what is not durable is not read"
    disk.failing = False
    append(log, [record(11), record(12)])
    assert len(log.segments) == 2, "what the kernel says of the old file's pages is not to be trusted any more"
    assert seqs(log) == list(range(1, 13))
    crash(log)
    log = opened(tmp_path)
    assert seqs(log) == list(range(1, 13)) and log.next_seq == 13


@pytest.mark.parametrize("copy", [False, True], ids=["relay", "edge"])
def test_the_newest_events_stay_when_the_next_segment_has_none_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: bool
) -> None:
    """A disk that is full as a segment begins: everything would go, and an edge not know where it was."""
    log = filled(tmp_path, 100, copy=copy, segment_seconds=0.0)

    def full(_: SegmentWriter, block: Block) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device for {len(block.data)} bytes")

    monkeypatch.setattr(SegmentWriter, "write", full)
    with pytest.raises(LogError):
        append(log, [record(101)])
    assert log.segments[-1].first_seq == 101
    assert log.trim(3600.0, 1, log.next_seq) == 24
    assert seqs(log) == [97, 98, 99, 100]
    crash(log)
    log = opened(tmp_path, copy=copy)
    assert seqs(log) == [97, 98, 99, 100] and log.next_seq == 101


def test_the_newest_events_stay_while_a_segment_without_any_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention has a thread of its own, and a disk that fails takes long to cut a file."""
    disk = Moody()

    def slow(path: Path, size: int) -> None:
        log.trim(1e9, 1, keep_from=log.next_seq)
        truncate(path, size)

    log, truncate = filled(tmp_path, 8, sync=disk, segment_seconds=0.0), os.truncate
    monkeypatch.setattr(os, "truncate", slow)
    disk.outcomes += [True, False]
    with pytest.raises(LogError):
        append(log, [record(9)])
    assert seqs(log) == [5, 6, 7, 8]


def test_a_file_system_that_says_at_the_end_that_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may. What was synced is there, the file is closed, and its number may be another file's by now."""
    log, close = filled(tmp_path, 8, segment_seconds=0.0), os.close
    failed: list[int] = []

    def closed(fd: int) -> None:
        close(fd)
        if not failed:
            failed.append(fd)
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "close", closed)
    append(log, [record(9)])
    assert failed
    assert seqs(log) == list(range(1, 10))


@pytest.mark.parametrize("first", [11, 15], ids=["next", "behind a gap"])
def test_a_segment_that_never_had_a_record_is_made_once(tmp_path: Path, first: int) -> None:
    """In a copy seqs may be left out where it begins. Two of one name would go together, one of them in use."""
    disk = Moody()
    crash(filled(tmp_path, 10, copy=True, segment_bytes=1 << 20))
    log = opened(tmp_path, copy=True, sync=disk, segment_bytes=1 << 20)
    disk.outcomes += [True, False, True, False, True, False]
    batch = [record(first), record(first + 1)]
    for _ in range(3):
        with pytest.raises(LogError):
            append(log, batch)
    append(log, batch)
    assert [segment.first_seq for segment in log.segments] == [1, first]
    assert log.trim(3600.0, 1, log.next_seq) == 1
    assert seqs(log) == [first, first + 1]


def test_what_a_failed_write_left_in_an_older_segment_does_not_count(tmp_path: Path) -> None:
    crash(filled(tmp_path, 10, segment_bytes=1 << 20))
    crash(filled(tmp_path, 10))
    leftover = record(11, frame=b"not what was published")
    with paths(tmp_path)[0].open("ab") as file:
        file.write(encode_header(leftover) + leftover.frame)
    log = opened(tmp_path)
    assert everything(log) == [record(seq) for seq in range(1, 21)]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write stops in the middle of a record; later there is room."""
    log = filled(tmp_path, 10, segment_bytes=1 << 20)
    pwrite = os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        if offset >= 2000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data[: 2000 - offset], offset)

    batch = [record(seq, frame=os.urandom(700)) for seq in range(11, 15)]
    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(3):
        with pytest.raises(LogError):
            append(log, batch)
    assert seqs(log) == list(range(1, 11))
    monkeypatch.setattr(os, "pwrite", pwrite)
    append(log, batch)
    assert everything(log) == [record(seq) for seq in range(1, 11)] + batch
    assert len(log.segments) == 1


@pytest.mark.parametrize("accident", ["torn", "segment gone", "mark gone", "in order"])
def test_a_copy_goes_on_after_its_newest_record(tmp_path: Path, accident: str) -> None:
    """Its seqs are another relay's: what is gone comes again with the seq it had, so none is passed over."""
    log = opened(tmp_path, copy=True)
    append(log, [record(1_000_000), record(1_000_007)])
    append(log, [record(seq) for seq in range(1_000_010, 1_000_050)])
    assert seqs(log) == [1_000_000, 1_000_007, *range(1_000_010, 1_000_050)]
    assert seqs(log, after=1_000_003)[:2] == [1_000_007, 1_000_010]
    if accident == "in order":
        log.close()
    else:
        crash(log)
    newest = paths(tmp_path)[-1]
    if accident == "torn":
        os.truncate(newest, newest.stat().st_size - 5)
    elif accident == "segment gone":
        newest.unlink()
    elif accident == "mark gone":
        (tmp_path / high_water.NAME).unlink()
    log = opened(tmp_path, copy=True)
    kept = seqs(log)
    assert log.next_seq == kept[-1] + 1 <= 1_000_050
    again = list(range(log.next_seq, 1_000_060))
    append(log, [record(seq) for seq in again])
    assert seqs(log) == [*kept, *again]


def test_version_is_in_the_header(tmp_path: Path) -> None:
    crash(filled(tmp_path, 1))
    assert struct.unpack("<8sI", paths(tmp_path)[0].read_bytes()[:12]) == (b"ATRELAYL", 1)


def test_a_log_of_a_newer_relay_is_refused_and_left_alone(tmp_path: Path) -> None:
    crash(filled(tmp_path, 40))
    newest = paths(tmp_path)[-1]
    fields = struct.Struct("<8sIQQQ")
    magic, version, *rest = fields.unpack(newest.read_bytes()[: fields.size])
    header = fields.pack(magic, version + 1, *rest)
    newest.write_bytes(header + struct.pack("<I", crc32c(header)) + b"records of a form that nobody here knows")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        with pytest.raises(LogError) as refused:
            opened(tmp_path)
        assert refused.value.reason == "log-format" and newest.name in str(refused.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_version_is_damage(tmp_path: Path) -> None:
    crash(filled(tmp_path, 40))
    newest = paths(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:8] + b"\x02" + newest.read_bytes()[9:])
    assert seqs(opened(tmp_path)) == list(range(1, 41))


# Times


def test_a_time_is_found(tmp_path: Path) -> None:
    log = filled(tmp_path, 60)
    log.advance(1000)
    append(log, [record(seq) for seq in range(1000, 1020)])
    times = {found.seq: found.time_us for found in everything(log)}
    assert len(log.segments) > 3
    for time_us in {at + shift for at in times.values() for shift in (-1, 0, 1)}:
        earlier = [seq for seq, at in times.items() if at < time_us]
        found = last_seq_before(log, time_us)
        assert [seq for seq in times if seq <= found] == earlier
    assert last_seq_before(log, 0) == 0
    assert last_seq_before(log, 2**62) == log.last_seq


@pytest.mark.parametrize("lacking", ["indexes", "header"])
@pytest.mark.parametrize("mtime", [0, 4e9])
def test_a_time_is_found_without_what_helps(tmp_path: Path, lacking: str, mtime: float) -> None:
    crash(filled(tmp_path, 60))
    damaged = paths(tmp_path)[2]
    if lacking == "indexes":
        for path in paths(tmp_path):
            index_path(path).unlink()
    else:
        damaged.write_bytes(b"\xff" + damaged.read_bytes()[1:])
    os.utime(damaged, (mtime, mtime))
    log = opened(tmp_path)
    for found in everything(log):
        assert last_seq_before(log, found.time_us) == found.seq - 1


def test_a_time_is_found_with_few_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is a millisecond of work, and any consumer of the JSON stream may name a time."""
    log = SegmentLog(tmp_path)
    for first in range(1, 4000, 100):
        append(log, [record(seq, frame=b"x" * 3000) for seq in range(first, first + 100)])
    looks: list[Path] = []

    def noted(path: Path) -> list[Point]:
        looks.append(path)
        return load_index(path)

    monkeypatch.setattr(reader, "load_index", noted)
    for seq in (1, 777, 2500, 4000):
        looks.clear()
        assert last_seq_before(log, record(seq).time_us) == seq - 1
        assert len(looks) <= 2
    log.close()


def test_a_time_in_an_empty_log(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert last_seq_before(log, 1) == last_seq_before(log, 2**62) == log.last_seq

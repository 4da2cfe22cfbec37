"""A sector of the log's disk that cannot be read costs what was in it; neither readers nor a start stop there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from relay.eventlog import high_water
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.segment import START, index_path, load_index, paths
from relay.kit.errors import LogError
from tests.support.stream import append, record

SECTOR = 512
SEGMENT_BYTES = 20_000
COUNT = 200

_pread = os.pread


class Disk:
    """Fails as a disk does: bytes before a bad sector are read, those in it are an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bad: set[tuple[str, int]] = set()
        self.error = errno.EIO
        monkeypatch.setattr(os, "pread", self.pread)

    def spoil(self, path: Path, offset: int) -> None:
        self.bad.add((path.name, offset // SECTOR))

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        name = Path(os.readlink(f"/proc/self/fd/{fd}")).name
        for sector in range(offset // SECTOR, (offset + size - 1) // SECTOR + 1):
            if (name, sector) in self.bad:
                if sector * SECTOR <= offset:
                    raise OSError(self.error, os.strerror(self.error))
                return _pread(fd, sector * SECTOR - offset, offset)
        return _pread(fd, size, offset)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def filled(folder: Path) -> SegmentLog:
    """Some segments with an index point for every few records."""
    log = SegmentLog(folder, segment_bytes=SEGMENT_BYTES)
    for start in range(1, COUNT + 1, 4):
        append(log, [record(seq, frame=b"%d" % seq * 60) for seq in range(start, start + 4)])
    return log


def seqs(log: SegmentLog, after: int = 0) -> list[int]:
    reader, found = LogReader(log), []
    while records := reader.read(after, 3_000):
        after = records[-1].seq
        found += [one.seq for one in records]
    return found


def lost() -> float:
    return REGISTRY.get_sample_value("relay_log_lost_events_total") or 0.0


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_readers_get_past_it(
    tmp_path: Path,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    newest: bool,
    where: float,
) -> None:
    monkeypatch.setattr("relay.eventlog.writer.INDEX_EVERY", 2_000)
    log, before = filled(tmp_path), lost()
    segment = log.segments[-1 if newest else 1]
    disk.spoil(segment.path, int(where * segment.path.stat().st_size))
    found = seqs(log)
    missing = sorted(set(range(1, COUNT + 1)) - set(found))
    assert found == sorted(found) and 0 < len(missing) < 40
    assert missing == list(range(missing[0], missing[-1] + 1)) and missing[0] >= segment.first_seq
    assert f"events {missing[0]} to {missing[-1]} of the log cannot be read" in caplog.text
    # Everyone gets past it, from wherever; it is said and counted once.
    assert seqs(log, missing[0]) == list(range(missing[-1] + 1, COUNT + 1))
    assert seqs(log) == found
    assert lost() - before == len(missing) and caplog.text.count("cannot be read") == 1


@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.9])
def test_a_start_gets_past_it(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, where: float) -> None:
    monkeypatch.setattr("relay.eventlog.writer.INDEX_EVERY", 2_000)
    filled(tmp_path)._unlock()
    newest = paths(tmp_path)[-1]
    disk.spoil(newest, int(where * newest.stat().st_size))
    log = SegmentLog(tmp_path)
    assert log.next_seq > COUNT
    found = seqs(log)
    assert len(found) > COUNT - 40 and found == sorted(found)
    append(log, [record(log.next_seq)])
    assert seqs(log) == [*found, log.last_seq]


def test_every_file_of_the_log_may_have_one(tmp_path: Path, disk: Disk) -> None:
    filled(tmp_path)._unlock()
    highest = COUNT
    for name in [high_water.NAME, high_water.GIVEN_OUT, *(path.name for path in paths(tmp_path))]:
        disk.bad = {(name, 0)}
        log = SegmentLog(tmp_path, segment_bytes=SEGMENT_BYTES)
        assert log.next_seq > highest, name
        append(log, [record(log.next_seq)])
        highest = log.last_seq
        assert seqs(log)[-1] == highest
        log._unlock()


def test_a_bad_index_is_no_index(tmp_path: Path, disk: Disk) -> None:
    log = filled(tmp_path)
    disk.spoil(index_path(log.segments[0].path), 0)
    assert load_index(log.segments[0].path) is not None
    assert seqs(log) == list(range(1, COUNT + 1))


def test_another_error_is_not_passed_over(tmp_path: Path, disk: Disk) -> None:
    log = filled(tmp_path)
    disk.error = errno.EAGAIN
    disk.spoil(log.segments[0].path, START)
    with pytest.raises(LogError) as raised:
        seqs(log)
    assert raised.value.reason == "log-io"

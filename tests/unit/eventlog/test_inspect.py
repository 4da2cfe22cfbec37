"""What the operator's tools say of a log, while it is written and when it is damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.eventlog import inspect
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import HEADER_SIZE, encode_header
from relay.eventlog.segment import Damage, paths
from tests.support.stream import append, record


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SegmentLog:
    monkeypatch.setattr("relay.eventlog.writer.INDEX_EVERY", 300)
    monkeypatch.setattr("relay.eventlog.repair.INDEX_EVERY", 300)
    log = SegmentLog(tmp_path, segment_bytes=1200)
    for start in range(1, 101, 4):
        append(log, [record(seq) for seq in range(start, start + 4)])
    return log


def test_summaries_cover_the_whole_log(log: SegmentLog) -> None:
    found = inspect.summaries(log.directory)
    assert [one.first_seq for one in found] == [segment.first_seq for segment in log.segments]
    assert [one.last_seq for one in found[:-1]] == [one.first_seq - 1 for one in found[1:]]
    assert found[-1].last_seq == 100 and found[-1].last_time_us == record(100).time_us
    assert sum(one.bytes for one in found) == log.bytes()


@pytest.mark.parametrize("after", [0, 1, 37, 99, 100, 500])
def test_events_are_all_after_a_seq(log: SegmentLog, after: int) -> None:
    assert list(inspect.events(log.directory, after)) == [record(seq) for seq in range(after + 1, 101)]


def test_a_sound_log(log: SegmentLog) -> None:
    verdicts = list(inspect.verify(log.directory))
    assert all(verdict.sound and not verdict.torn for verdict in verdicts)
    assert sum(verdict.records for verdict in verdicts) == 100


def test_what_is_wrong_is_found(log: SegmentLog) -> None:
    files = paths(log.directory)
    data = bytearray(files[1].read_bytes())
    spoilt = int(files[1].stem) + 2
    at = data.index(encode_header(record(spoilt)))
    data[at + HEADER_SIZE] ^= 1
    files[1].write_bytes(data)
    files[3].unlink()
    with files[-1].open("ab") as file:
        file.write(os.urandom(30))
    verdicts = list(inspect.verify(log.directory))
    assert [verdict.sound for verdict in verdicts[:5]] == [True, False, True, False, True]
    assert verdicts[1].damage == [Damage(at, record(spoilt).size)]
    assert verdicts[3].missing_before
    assert verdicts[-1].torn == 30 and verdicts[-1].sound
    assert spoilt not in [one.seq for one in inspect.events(log.directory)]


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    assert not [*inspect.summaries(tmp_path), *inspect.verify(tmp_path), *inspect.events(tmp_path)]


def test_records_that_stand_twice_are_told_and_read_once(log: SegmentLog) -> None:
    """A copy of a segment's end behind it, as some file systems leave it after a crash."""
    files = paths(log.directory)
    for path in (files[1], files[-1]):
        data = path.read_bytes()
        first = data.index(encode_header(record(int(path.stem) + 2)))
        path.write_bytes(data + data[first:])
    verdicts = list(inspect.verify(log.directory))
    assert [verdict.sound for verdict in verdicts] == [
        number not in (1, len(files) - 1) for number in range(len(files))
    ]
    assert all(damage.out_of_order for verdict in (verdicts[1], verdicts[-1]) for damage in verdict.damage)
    assert not verdicts[-1].torn
    assert [one.seq for one in inspect.events(log.directory)] == list(range(1, 101))

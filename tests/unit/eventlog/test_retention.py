"""Retention by what is free on the disk, and the room that is set aside for a start on a full one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from relay.eventlog import spare
from relay.eventlog.log import SegmentLog
from relay.eventlog.retention import Keep, Retention
from relay.kit.clock import SteadyClock
from tests.support.logs import logged
from tests.support.stream import append, record

DISK = 100 << 30


def filled(folder: Path) -> SegmentLog:
    log = SegmentLog(folder, segment_bytes=2000)
    for seq in range(1, 101):
        append(log, [record(seq)])
    return log


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A disk on which `count` bytes are free."""
    found = SimpleNamespace(f_bavail=count, f_frsize=1, f_blocks=DISK)
    monkeypatch.setattr(os, "statvfs", lambda _: found)


def trimmed(log: SegmentLog, min_free: int | None) -> int:
    """How many segments go."""
    before = len(log.segments)
    Retention(log, Keep(1e9, 0, min_free), lambda: 101, lambda _: None).trim()
    return before - len(log.segments)


def test_the_oldest_events_go_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path)
    free(monkeypatch, 10_000)
    assert trimmed(log, 10_000) == 0
    assert trimmed(log, 13_000) == 2
    assert trimmed(log, 0) == 0


def test_a_disk_that_lacks_more_than_the_log_has_leaves_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(tmp_path)
    free(monkeypatch, 0)
    assert trimmed(log, log.bytes()) == trimmed(filled(tmp_path / "more"), 1 << 40) > 0
    assert len(log.segments) == 1


def test_what_sql_lacks_stays_however_full_the_disk_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path)
    free(monkeypatch, 0)
    Retention(log, Keep(0.0, 1, 1 << 40), lambda: 50, lambda _: None, lambda: 50).trim()
    assert log.first_seq <= 50 < log.segments[1].first_seq


def test_what_was_deleted_is_told_a_round_late(tmp_path: Path) -> None:
    """A feed may hold a block that was read before."""
    log, told = filled(tmp_path), list[int]()
    retention = Retention(log, Keep(1e9, 4000), lambda: 101, told.append)
    retention.tidy()
    retention.tidy()
    assert told == [1, log.first_seq] and log.first_seq > 1


def test_by_default_two_gigabytes_stay_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path)
    free(monkeypatch, (2 << 30) + 1)
    assert trimmed(log, None) == 0
    free(monkeypatch, (2 << 30) - 1)
    assert trimmed(log, None) == 1


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"relay_log_trimmed_{name}_total") or 0.0


def test_what_goes_early_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, before = filled(tmp_path), counted("early")
    free(monkeypatch, 10_000)
    trimmed(log, 10_000)
    assert counted("early") == before
    trimmed(log, 13_000)
    assert counted("early") == before + 2


def test_what_is_not_settled_is_not_kept_for_ever(tmp_path: Path) -> None:
    seconds, start = 0.0, record(1).time_us
    clock = SteadyClock(lambda: start + int(seconds * 1e6), lambda: 1_000_000 + int(seconds * 1e6))
    log, before = SegmentLog(tmp_path, segment_bytes=2000, clock=clock), counted("unsettled")
    for seq in range(1, 101):
        append(log, [record(seq)])
    total, stored_from = log.bytes(), 50
    # The oldest event of all is not settled, and SQL has half of the log.
    retention = Retention(log, Keep(10.0, 1), lambda: 1, lambda _: None, lambda: stored_from)
    seconds = 19.0
    retention.trim()
    assert log.bytes() == total and counted("unsettled") == before, "for twice the window it waits, whatever the cap"
    seconds = 21.0
    retention.trim()
    assert log.first_seq <= 50 < log.segments[1].first_seq, "what SQL does not have stays"
    assert counted("unsettled") > before
    stored_from = 101
    retention.trim()
    assert len(log.segments) == 1


def test_what_is_not_settled_goes_when_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, before = filled(tmp_path), counted("unsettled")
    free(monkeypatch, 10_000)
    Retention(log, Keep(1e9, 0, 13_000), lambda: 1, lambda _: None, lambda: 101).trim()
    assert counted("unsettled") == before + 2


def test_room_is_set_aside_and_given_back_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare.give_back(tmp_path / "not there")
    free(monkeypatch, spare.PLENTY - 1)
    spare.set_aside(tmp_path)
    assert not (tmp_path / spare.NAME).exists()
    free(monkeypatch, spare.PLENTY)
    spare.set_aside(tmp_path)
    assert (tmp_path / spare.NAME).stat().st_size == spare.SIZE
    spare.give_back(tmp_path)
    assert (tmp_path / spare.NAME).exists()
    free(monkeypatch, spare.SCARCE - 1)
    spare.give_back(tmp_path)
    assert not (tmp_path / spare.NAME).exists()


def test_room_that_cannot_be_set_aside_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        spare.set_aside(tmp_path)
    monkeypatch.undo()
    spare.set_aside(tmp_path)
    assert (tmp_path / spare.NAME).stat().st_size == spare.SIZE


def test_a_disk_that_stays_full_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt to write asks for room, for as long as that takes."""
    retention = Retention(filled(tmp_path), Keep(1e9, 0, 10_000), lambda: 0, lambda _: None, lambda: 0)
    for times in (1, 2):
        free(monkeypatch, 0)
        for _ in range(5):
            retention.trim()
        assert sum("of what has to stay free" in line for line in logged(caplog)) == times
        free(monkeypatch, 100_000)
        retention.trim()

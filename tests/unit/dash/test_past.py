"""The week on disk: bounded, whole after a crash at any step, begun anew when it is damaged, never in the way."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import gevent
import pytest
from gevent.monkey import get_original

from relay.dash.history import History
from relay.dash.past import FILE, RANGES, SAVE_SECONDS, SERIES, Past
from relay.eventlog import disk
from tests.support.dash_week import plant_week
from tests.support.logs import logged

NOW = 1_800_000_000.0
# In a native thread, which has no hub.
pause = get_original("time", "sleep")


def newest(past: Past) -> float:
    return past.course("1h", "received", NOW).values[-1]


def saved(folder: Path, value: float) -> Past:
    past = Past(folder)
    past.note(NOW, {"received": value})
    past.save()
    return past


def test_the_next_start_has_what_was_kept(tmp_path: Path) -> None:
    saved(tmp_path, 7.0)
    assert newest(Past(tmp_path)) == 7.0
    assert newest(Past()) != newest(Past())


def test_a_week_fits_and_the_file_is_as_large_as_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    saved(tmp_path / "empty", 0.0)
    plant_week(tmp_path, NOW)
    size = (tmp_path / FILE).stat().st_size
    assert size == (tmp_path / "empty" / FILE).stat().st_size < 64 << 10
    past = Past(tmp_path)
    for name, shape in RANGES.items():
        for series in SERIES:
            known = [value for value in past.course(name, series.name, NOW).values if value == value]
            assert len(known) > 0.9 * shape.slots, (name, series)


@pytest.mark.parametrize("step", ["write", "fsync", "replace", "sync_directory"])
def test_a_crash_at_any_step_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    past = saved(tmp_path, 1.0)
    past.note(NOW + 15, {"received": 2.0})

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    if step == "write":
        # Half of it is written.
        data = (tmp_path / FILE).read_bytes()
        (tmp_path / f"{FILE}.tmp").write_bytes(data[: len(data) // 2])
    else:
        with monkeypatch.context() as patched:
            patched.setattr(disk if step == "sync_directory" else os, step, crash)
            with pytest.raises(Crash):
                disk.replace(tmp_path / FILE, past._rings.to_bytes())
    found = Past(tmp_path).course("1h", "received", NOW + 15).values[-2:]
    assert found[0] == 1.0 and (found[1] == 2.0) is (step == "sync_directory")
    # What the crash left is in nobody's way.
    saved(tmp_path, 3.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "huge", "folder", "zeros"])
def test_a_damaged_file_is_begun_anew_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 7.0)
    path = tmp_path / FILE
    data = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "huge":
        os.truncate(path, 1 << 40)
    else:
        changed = {"cut": data[:-100], "changed": data[:-100] + b"x" + data[-99:], "empty": b""}
        path.write_bytes(changed.get(damage, b"\0" * len(data)))
    with caplog.at_level(logging.WARNING):
        past = Past(tmp_path)
    assert [message.split(":")[0] for message in logged(caplog)] == ["the dashboard's history starts afresh"]
    past.note(NOW, {"received": 8.0})
    assert newest(past) == 8.0
    if damage != "folder":
        past.save()
        assert newest(Past(tmp_path)) == 8.0


def test_a_disk_that_takes_nothing_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    past = Past(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            past.note(NOW, {"received": 1.0})
            past.save()
    assert [message.split(":")[0] for message in logged(caplog)] == ["the dashboard's history cannot be kept on disk"]
    (tmp_path / "gone").mkdir()
    past.save()
    assert newest(Past(tmp_path / "gone")) == 1.0


def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over: list[bool] = []

    def hang(_path: Path, _data: bytes) -> None:
        while not over:
            pause(0.01)

    monkeypatch.setattr(disk, "replace", hang)
    monkeypatch.setattr("relay.dash.history.STOP_SECONDS", 0.1)
    sampled = History(Past(tmp_path))
    sampled.start()
    try:
        with gevent.Timeout(30):
            sampled.stop()
    finally:
        over.append(True)


def test_it_is_written_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("relay.dash.past.time.monotonic", lambda: now)
    past = Past(tmp_path)
    written = []
    monkeypatch.setattr(disk, "replace", lambda path, data: written.append(now))
    for _ in range(61):
        past.save_if_due()
        now += 5.0
    assert written == [1000.0 + SAVE_SECONDS * minute for minute in range(6)]

"""A disk that hangs in a small file beside the log: health names it, and a stop leaves it behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent.monkey import get_original

from relay.eventlog import disk
from relay.store.decisions import CRAWL_ENABLED
from relay.stream import checkpoint, decisions, disk_thread
from tests.support.stream import Room
from tests.support.wait import PATIENCE, until

# In a native thread, which has no hub.
pause = get_original("time", "sleep")


@pytest.fixture(autouse=True)
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The disk takes these two files once the test is over."""
    replace, over = disk.replace, [False]

    def hang(path: Path, data: bytes) -> None:
        while path.name in (checkpoint.NAME, decisions.NAME) and not over[0]:
            pause(0.01)
        replace(path, data)

    monkeypatch.setattr(disk, "replace", hang)
    monkeypatch.setattr(disk_thread, "HUNG_SECONDS", 0.2)
    monkeypatch.setattr(decisions, "LOOK_SECONDS", 0.05)
    yield
    over[0] = True


def is_told_and_left_behind(room: Room, name: str) -> None:
    until(lambda: (room.stream.problem or "").startswith(f"{name}: the disk has not answered for "))
    began = time.monotonic()
    room.stop()
    assert time.monotonic() - began < 12 * PATIENCE


@pytest.mark.timeout(120)
def test_in_the_checkpoint_for_a_host_that_begins_anew(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(uid=1)
    room.wait_for(1)
    room.cursor.start(1000)
    is_told_and_left_behind(room, "checkpoint")


@pytest.mark.timeout(120)
def test_in_what_an_operator_decided(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    room.stream.decisions.note("setting", CRAWL_ENABLED, "0")
    is_told_and_left_behind(room, "decisions")

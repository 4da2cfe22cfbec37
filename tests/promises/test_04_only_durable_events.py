"""Promise 4: Consumers see only durable events; of one account, in commit order. There is no mode without sync.

Power loss: what was written but not synced is gone, or there in part. What a consumer has seen must still be there.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from tests.support import databases
from tests.support.durable_steps import Step, Steps
from tests.support.platter import Platter
from tests.support.stream import Room, append, record


def test_everything_published_survives(tmp_path: Path, new_database_url: Callable[[], str]) -> None:
    database_url, other_url = new_database_url(), new_database_url()
    platter = Platter(tmp_path / "safe")
    room = Room(tmp_path, database_url, sync=platter, segment_bytes=20_000)
    room.start()
    chance = random.Random(3)
    for round_number in range(12):
        for _ in range(chance.randint(1, 80)):
            room.submit(chance.randint(1, 5))
        target = room.upstream_seq - chance.randint(0, 3)
        room.wait_for(target)
        # From here to the copy nothing switches: this is the moment at which the power goes.
        published = room.stream.firehose.last_seq
        lost = tmp_path / f"lost-{round_number}"
        shutil.copytree(platter.safe, lost / "persist")
        newest = max((lost / "persist").glob("*.seg"))
        with newest.open("ab") as file:
            file.write(chance.choice((b"", b"\0" * chance.randint(1, 5000), chance.randbytes(300))))
        after = SegmentLog(lost / "persist")
        assert after.next_seq > published
        after.close()
        databases.wipe(other_url)
        again = Room(lost, other_url)
        assert again.read(0, until=published)[:published] == list(range(1, published + 1))
        again.stop()
    room.stop()


class Killed(BaseException):
    """The process would have ended."""


def kill_before_sync(step: Step) -> None:
    if step.name == "sync":
        raise Killed


def test_what_a_start_shows_survives(tmp_path: Path) -> None:
    """A kill leaves a batch that was written and not synced: the next start shows it, and then the power goes."""
    folder, lost = tmp_path / "persist", tmp_path / "lost"
    folder.mkdir()
    lost.mkdir()
    with Steps(folder) as steps:
        log = SegmentLog(folder, sync=lambda fd: os.fdatasync(fd))
        append(log, [record(1), record(2)])
        steps.before = kill_before_sync
        with pytest.raises(Killed):
            append(log, [record(3), record(4)])
        log._unlock()
        steps.before = lambda _: None
        log = SegmentLog(folder, sync=lambda fd: os.fdatasync(fd))
        shown = LogReader(log).read(0)
        for name, data in steps.states(Step("end", ""))["lost"].items():
            (lost / name).write_bytes(data)
        log.close()
    log = SegmentLog(lost)
    assert LogReader(log).read(0) == shown == [record(seq) for seq in (1, 2, 3, 4)]
    log.close()

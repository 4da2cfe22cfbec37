"""Power loss: what was written but not synced is gone, or there in part. What a consumer has seen must still be there.

The sync function copies the synced file's bytes to a second folder, which thereby holds what a disk would after the
power goes, but for what it may hold beyond that.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from relay.eventlog.high_water import NAME
from relay.eventlog.log import SegmentLog
from tests.support import databases
from tests.support.stream import Room


class Platter:
    """What is safe on the disk: a copy of every file as of its last fdatasync."""

    def __init__(self, safe: Path) -> None:
        self.safe = safe
        safe.mkdir()

    def __call__(self, fd: int) -> None:
        os.fdatasync(fd)
        source = Path(os.readlink(f"/proc/self/fd/{fd}"))
        shutil.copy(source, self.safe / source.name)
        # The mark is synced by its own code, always before what it stands for.
        mark = source.parent / NAME
        if mark.exists():
            shutil.copy(mark, self.safe / NAME)


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


def test_sql_is_never_ahead_of_the_safe_log(tmp_path: Path, database_url: str) -> None:
    """The projection's position is only ever of events that are on the disk, whenever the power goes."""
    platter = Platter(tmp_path / "safe")
    room = Room(tmp_path, database_url, sync=platter)
    room.start()
    for number in range(5):
        for _ in range(40):
            room.submit(1)
        room.wait_for(number * 40 + 20)
        room.stream.projector.flush()
        position = room.stream.projector.stored_position
        shutil.copytree(platter.safe, tmp_path / str(number))
        assert SegmentLog(tmp_path / str(number)).last_seq >= position > 0
    room.stop()

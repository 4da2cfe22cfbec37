"""Promise 3: The `seq` that goes out rises strictly, for ever: across restart, crash, torn writes, clock jumps and
older databases.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.atproto.frames import Event, decode
from tests.support import databases
from tests.support.stream import Room, payloads

DISASTERS = ("stop", "crash", "torn", "junk", "clock", "newest segment", "no log", "older database", "no database")


def live(room: Room, count: int) -> list[int]:
    """The seqs that a consumer at the head sees while `count` events come."""
    feed = room.stream.firehose.attach(None)
    seen: list[int] = []
    for _ in range(count):
        room.submit(1, own=True)
    while len(seen) < count:
        if data := feed.next(0.05):
            seen += [event.seq for event in map(decode, payloads(data)) if isinstance(event, Event)]
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_no_disaster_and_no_two_of_them_give_a_seq_out_twice(
    tmp_path: Path, database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, now = random.Random(seed), time.time_ns
    disasters = chance.sample(DISASTERS, len(DISASTERS))
    persist, highest, last_time, saved = tmp_path / "persist", 0, "", False
    for disaster in [*disasters, "stop"]:
        room = Room(tmp_path, database_url, segment_bytes=4_000)
        room.start()
        seen = live(room, chance.randint(1, 60))
        assert seen == sorted(set(seen)) and seen[0] > highest, f"after {disaster}"
        highest = seen[-1]
        newest = room.events(seen[-1] - 1)[-1]
        assert newest.time >= last_time
        last_time = newest.time
        room.stream.projector.flush()
        # The log says twice a second what was given out: a disk that lies about the last half second is not promised.
        room.log.note_given_out()
        room.abandon() if disaster in ("crash", "torn", "junk") else room.stop()
        segments = sorted(persist.glob("*.seg"))
        if disaster == "torn":
            size = segments[-1].stat().st_size
            with segments[-1].open("r+b") as file:
                file.truncate(chance.randrange(size))
        elif disaster == "junk":
            with segments[-1].open("ab") as file:
                file.write(chance.randbytes(500))
        elif disaster == "clock":
            back = chance.randint(1, 10**6) * 10**9
            monkeypatch.setattr(time, "time_ns", lambda back=back: now() - back)
        elif disaster == "newest segment":
            segments[-1].unlink()
        elif disaster == "no log":
            shutil.rmtree(persist)
            # There is no record left that says how late it was.
            last_time = ""
        elif disaster == "older database" and saved:
            databases.bring_back(database_url)
            saved = False
        elif disaster == "no database":
            databases.wipe(database_url)
        if not saved:
            databases.save(database_url)
            saved = True
    databases.bring_back(database_url)


def test_a_database_restored_from_before_all_of_it_takes_no_seq_back(
    tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    url = new_database_url()
    Room(tmp_path, url).stop()
    databases.save(url)
    room = Room(tmp_path, url)
    room.start()
    seen = live(room, 40)
    room.stop()
    databases.bring_back(url)
    room = Room(tmp_path, url)
    room.start()
    assert live(room, 1)[0] > seen[-1]
    room.stop()

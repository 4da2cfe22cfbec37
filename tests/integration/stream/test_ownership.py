"""One log for one database: two halves of different relays are refused, and who lost one half goes on."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from relay.eventlog import identity
from relay.kit.errors import StoreError
from relay.store import projection
from tests.support import databases
from tests.support.relay_process import RELAY
from tests.support.stream import Room


def filled(folder: Path, url: str, events: int = 5) -> None:
    room = Room(folder, url)
    room.start()
    for uid in range(1, events + 1):
        room.submit(uid)
    room.wait_for(events)
    room.stop()


def test_a_log_with_events_is_refused_beside_the_database_of_another(tmp_path: Path, database_url: str) -> None:
    filled(tmp_path / "a", database_url)
    shutil.copytree(tmp_path / "a", tmp_path / "of-an-older-release")
    (tmp_path / "of-an-older-release" / "persist" / identity.NAME).unlink()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "persist" / identity.NAME).write_text("0123456789abcdef\n")
    for other in ("b", "of-an-older-release"):
        with pytest.raises(StoreError, match=r"store-log.*relay log adopt"):
            Room(tmp_path / other, database_url)
    room = Room(tmp_path / "a", database_url)
    room.stop()


def test_a_new_log_takes_the_database_and_the_former_one_is_refused(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk of the log is lost; should it turn up again, it does not go on as if nothing had been."""
    filled(tmp_path / "a", database_url)
    with caplog.at_level(logging.WARNING):
        room = Room(tmp_path / "new", database_url)
    assert "former log is refused" in caplog.text
    room.stop()
    with pytest.raises(StoreError, match="store-log"):
        Room(tmp_path / "a", database_url)


def test_a_backup_from_before_the_log_was_lost_is_still_its_own(tmp_path: Path, database_url: str) -> None:
    filled(tmp_path / "a", database_url)
    databases.save(database_url)
    filled(tmp_path / "new", database_url)
    databases.bring_back(database_url)
    room = Room(tmp_path / "new", database_url)
    assert room.db.read(projection.owner) == identity.load(room.log.directory)[0]
    room.start()
    room.db.write(projection.set_owner, identity.load(room.log.directory)[1])
    position = room.stream.projector.pending.stored_position
    room.submit(1)
    room.wait_until(lambda: room.stream.projector.pending.stored_position > position)
    assert room.db.read(projection.owner) == identity.load(room.log.directory)[0]
    room.stop()
    with pytest.raises(StoreError, match="store-log"):
        Room(tmp_path / "a", database_url)


def test_a_database_from_before_there_were_identities_is_taken(tmp_path: Path, database_url: str) -> None:
    filled(tmp_path / "a", database_url)
    room = Room(tmp_path / "a", database_url)
    room.db.write(lambda tx: tx.execute("DELETE FROM relay_setting WHERE key = ?", (projection.LOG_KEY,)))
    room.submit(1)
    room.start()
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 6)
    assert room.db.read(projection.owner) == identity.load(room.log.directory)[0]
    room.stop()
    databases.wipe(database_url)
    Room(tmp_path / "a", database_url).stop()


def test_who_lost_the_database_to_another_writes_nothing_more(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path / "a", database_url)
    room.start()
    room.submit(1)
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 1)
    room.db.write(projection.set_owner, "another")
    room.submit(2)
    room.wait_until(lambda: "another relay has taken it" in str(room.stream.problem))
    assert room.db.read(projection.position)[0] == 1
    room.db.write(projection.set_owner, identity.load(room.log.directory)[0])
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 2 and room.stream.problem is None)
    room.stop()


def test_an_operator_says_which_log_goes_on(tmp_path: Path, database_url: str) -> None:
    filled(tmp_path / "a", database_url)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "persist" / identity.NAME).unlink()
    settings = {"DATABASE_URL": database_url, "RELAY_PERSIST_DIR": str(tmp_path / "b" / "persist")}
    done = subprocess.run(
        [RELAY, "log", "adopt"], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "the database now belongs to the log in" in done.stdout, done.stderr
    Room(tmp_path / "b", database_url).stop()
    with pytest.raises(StoreError, match="store-log"):
        Room(tmp_path / "a", database_url)

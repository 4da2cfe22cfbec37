"""Promise 11: Log first: SQL holds no event's effect and no word of the relay's own on an account before the log has
it. Dropping what SQL learned since any stored position, and starting again, gives the same state, but for what the
network tells again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from relay.eventlog.log import SegmentLog
from relay.store import accounts, projection
from tests.integration.ingest.test_event_path import post
from tests.support import databases
from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.platter import Platter
from tests.support.plc import FakePlc
from tests.support.stream import Room
from tests.support.wait import until


def state_of(path: EventPath, dids: list[str]) -> dict[str, Any]:
    """What SQL knows of the accounts and of the log."""
    path.stream.projector.flush()
    return {**path.db.read(accounts.many_by_did, dids), "position": path.db.read(projection.position)[0]}


def test_a_database_from_any_moment_learns_all_of_it_again(
    tmp_path: Path, database_url: str, plc: FakePlc, pds: FakePds
) -> None:
    path = EventPath(tmp_path / "persist", database_url, plc)
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(5)]
    dids = [repo.did for repo in repos]
    for seq, repo in enumerate(repos, 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
    path.logged(5)
    path.ingest.moderation.takedown(dids[0])
    path.close()
    databases.save(database_url)
    path._open()
    host = path.host(pds.url)
    path.ingest.moderation.restore(dids[0])
    path.ingest.moderation.takedown(dids[1])
    path.put(host, repos[2].account_frame(6, active=False, status="deleted"))
    pds.repo_status[dids[3]] = {"did": dids[3], "active": False, "status": "deactivated"}
    path.put(host, repos[3].account_frame(7, active=False, status="deactivated"))
    for seq in range(8, 12):
        path.put(host, post(repos[4], f"3kb{seq}").frame(seq))
    until(lambda: host.cursor.position == 11)
    count = path.stream.firehose.last_seq
    expected = state_of(path, dids)
    assert [expected[did][0].status for did in dids[:2]] == ["active", "takendown"]
    path.close()
    databases.bring_back(database_url)
    path._open()
    assert state_of(path, dids) == expected and path.stream.firehose.last_seq == count
    assert not any(path.host(pds.url).cursor.begin(seq) for seq in range(1, 12)), "an event would be taken twice"
    path.close()


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

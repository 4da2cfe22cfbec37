"""Promise 11: Log first: SQL holds no event's effect and no word of the relay's own on an account before the log has
it. Dropping what SQL learned since any stored position, and starting again, gives the same state, but for what the
network tells again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from relay.atproto.frames import Kind
from relay.eventlog.log import SegmentLog
from relay.kit.errors import StoreError
from relay.store import accounts, hosts, projection
from tests.support import databases
from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.platter import Platter
from tests.support.plc import FakePlc
from tests.support.repo import post
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
        position = room.stream.projector.pending.stored_position
        shutil.copytree(platter.safe, tmp_path / str(number))
        assert SegmentLog(tmp_path / str(number)).last_seq >= position > 0
    room.stop()


def test_a_database_that_goes_back_beneath_the_relay_is_brought_up_to_the_log(
    tmp_path: Path, database_url: str, plc: FakePlc, pds: FakePds, other_pds: FakePds
) -> None:
    """Accounts, repos, takedowns, hosts and cursors: all that the older database lacks, without a restart."""
    path = EventPath(tmp_path / "persist", database_url, plc)
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(5)]
    for seq, repo in enumerate(repos, 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
    path.logged(5)
    path.ingest.moderation.takedown(repos[0].did)
    path.close()
    databases.save(database_url)
    path._open()
    host, other = path.host(pds.url), path.host(other_pds.url, account_limit=7)
    new = [path.repo(pds.url), path.repo(other_pds.url)]
    dids = [repo.did for repo in (*repos, *new)]
    path.ingest.moderation.restore(dids[0])
    path.ingest.moderation.takedown(dids[1])
    path.put(host, repos[2].account_frame(6, active=False, status="deleted"))
    for seq in range(7, 12):
        path.put(host, post(repos[4], f"3kb{seq}").frame(seq))
    path.put(host, post(new[0], "3kaaa").frame(12))
    path.put(other, post(new[1], "3kaaa").frame(1))
    until(lambda: host.cursor.position == 12 and other.cursor.position == 1)
    expected, hosts_before = state_of(path, dids), path.db.read(hosts.all_rows)
    databases.bring_back_beneath(database_url)
    # An event that touches none of what was lost moves SQL's position past it.
    path.put(host, post(repos[3], "3kccc").frame(13))
    until(lambda: host.cursor.position == 13 and not path.stream.projector.problem)
    state = state_of(path, dids)
    changed = {"position", dids[3]}
    assert {key: state[key] for key in state.keys() - changed} == {
        key: expected[key] for key in expected.keys() - changed
    }
    assert [(row.id, row.hostname, row.account_limit, row.account_count) for row in path.db.read(hosts.all_rows)] == [
        (row.id, row.hostname, row.account_limit, row.account_count) for row in hosts_before
    ]
    assert [row.last_seq for row in path.db.read(hosts.all_rows)] == [13, 1]
    expected = state
    path.restart()
    assert state_of(path, dids) == expected
    uid = path.db.read(accounts.many_by_did, dids)[dids[1]][0].uid
    assert path.stream.suppressions.hides(uid, 1, Kind.COMMIT), "the past of what was taken down is hidden"
    path.close()


def test_sql_is_asked_nothing_while_it_is_older_than_the_relay_left_it(
    tmp_path: Path, database_url: str, plc: FakePlc, pds: FakePds
) -> None:
    """What it says of an account would be a rev from the past, or no takedown."""
    path = EventPath(tmp_path / "persist", database_url, plc)
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.close()
    databases.save(database_url)
    path._open()
    host = path.host(pds.url)
    path.put(host, post(repo, "3kbbb").frame(2))
    path.logged(2)
    path.stream.projector.flush()
    path.stream.projector._loop.stop()
    newest = path.stream.projector.account(repo.did)
    databases.bring_back_beneath(database_url)
    refused = 0
    for _ in range(3):
        try:
            assert path.stream.projector.account(repo.did) == newest
        except StoreError:
            refused += 1
    assert refused, "nothing shows that the older database was asked"
    path.stream.projector.start()
    until(lambda: _asked(path, repo.did) == newest)
    path.close()


def _asked(path: EventPath, did: str) -> object:
    try:
        return path.stream.projector.account(did)
    except StoreError:
        return None

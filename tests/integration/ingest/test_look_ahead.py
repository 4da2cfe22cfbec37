"""Events that stand in line find their accounts in memory when their turn comes, and judge by what is true then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn
from zlib import crc32

import pytest

from relay.ingest.delivery import Delivery, Wait
from relay.ingest.lanes import LANES
from relay.ingest.waits import Waits
from relay.store.accounts import AccountAndRepo
from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.present import present
from tests.support.repo import RepoBuilder, post
from tests.support.wait import until


def nobody_waits(_waits: Waits, delivery: Delivery, wait: Wait) -> NoReturn:
    raise AssertionError(f"an event of {delivery.event.did} waits: {wait}")


def known(path: EventPath, pds: FakePds, count: int) -> list[RepoBuilder]:
    """Accounts of which SQL alone knows, each with one commit."""
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(count)]
    for seq, repo in enumerate(repos, 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
    path.logged(count)
    path.restart()
    return repos


def test_an_account_that_was_looked_for_ahead_needs_no_wait(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    repos = known(path, pds, 3)
    requests = path.plc.requests
    ahead = path.ingest.lanes._look_ahead
    for repo in repos:
        ahead.want(repo.did)
    until(lambda: all(path.ingest.accounts.remembers(repo.did) for repo in repos), 30)
    monkeypatch.setattr(Waits, "run", nobody_waits)
    host = path.host(pds.url)
    for seq, repo in enumerate(repos, 4):
        path.put(host, post(repo, "3kbbb").frame(seq))
    assert len(path.logged(6)) == 6
    assert path.plc.requests == requests
    path.store()
    assert [path.stored(repo.did)[1].rev for repo in repos] == [repo.rev for repo in repos]


def test_events_behind_others_in_their_lane_are_looked_for(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    repos = known(path, pds, LANES + 1)
    wanted: list[str] = []
    monkeypatch.setattr(path.ingest.lanes._look_ahead, "want", wanted.append)
    monkeypatch.setattr(path.ingest.lanes._look_ahead, "wait", lambda did: None)
    host = path.host(pds.url)
    path.put(host, post(repos[0], "3kbbb").frame(LANES + 2))
    path.logged(LANES + 2)
    assert not wanted
    for seq, repo in enumerate(repos[1:], LANES + 3):
        path.put(host, post(repo, "3kbbb").frame(seq))
    lanes: set[int] = set()
    behind: list[str] = []
    for repo in repos[1:]:
        lane = crc32(repo.did.encode()) % LANES
        if lane in lanes:
            behind.append(repo.did)
        lanes.add(lane)
    assert behind and wanted == behind
    path.logged(2 * LANES + 2)


def test_what_was_read_before_a_takedown_is_not_kept(path: EventPath, pds: FakePds) -> None:
    (repo,) = known(path, pds, 1)

    def find(dids: Sequence[str]) -> dict[str, AccountAndRepo]:
        found = path.stream.projector.accounts(dids)
        path.ingest.moderation.takedown(repo.did)
        return found

    path.ingest.accounts.look_ahead([repo.did], find)
    assert present(path.ingest.accounts.lookup(repo.did)).row.status == "takendown"


def test_what_sql_has_yet_to_learn_is_known(path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo,) = known(path, pds, 1)
    projector = path.stream.projector
    monkeypatch.setattr(projector, "_flush", lambda: False)
    path.put(path.host(pds.url), post(repo, "3kbbb").frame(2))
    path.logged(2)
    until(lambda: present(present(projector.account(repo.did))[1]).rev == repo.rev)
    assert projector.accounts([repo.did, "did:plc:nobody"]) == {repo.did: projector.account(repo.did)}
    assert present(path.db.read(projector._find, [repo.did])[repo.did][1]).rev != repo.rev


@pytest.mark.parametrize(
    "column", ["pds = 'no address'", "key_code = NULL, pds = 'http://a b'"], ids=["a word", "a space"]
)
def test_a_stored_document_that_cannot_be_read_is_looked_up(path: EventPath, pds: FakePds, column: str) -> None:
    """As after an upgrade that reads addresses more strictly. The account's events must not wait for ever."""
    (repo,) = known(path, pds, 1)
    path.resolver.stop()
    path.db.write(lambda tx: tx.execute(f"UPDATE identity SET {column}"))
    path.restart()
    host = path.host(pds.url)
    path.put(host, post(repo, "3kbbb").frame(2))
    assert until(lambda: host.cursor.position == 2, 10)
    assert len(path.events()) == 2

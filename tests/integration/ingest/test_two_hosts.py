"""Events of one account from two hosts, as while it moves from one to the other, that are judged at the same time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gevent.event import Event

from relay.store.accounts import AccountAndRepo
from tests.support.event_path import DropCounter, EventPath
from tests.support.pds import FakePds
from tests.support.repo import post
from tests.support.wait import until


class SlowSql:
    """What the accounts ask of SQL: how often it was `asked`; no answer comes before `answers` is set."""

    def __init__(self, find: Callable[[str], AccountAndRepo | None]) -> None:
        self._find = find
        self.asked = 0
        self.answers = Event()

    def find(self, did: str) -> AccountAndRepo | None:
        found = self._find(did)
        self.asked += 1
        assert self.answers.wait(60)
        return found


def test_a_new_account_is_made_once_and_on_its_last_host(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows for one DID could never be stored, and with them nothing else."""
    former, host, repo = path.host(pds.url), path.host(other_pds.url), path.repo(pds.url)
    # Whose it is is known from here on, and the account is not.
    path.put(host, post(repo, "3kaaa").frame(1))
    assert until(lambda: host.cursor.position == 1, 30)
    drops.watch("wrong-host")
    accounts = path.ingest.accounts
    sql = SlowSql(accounts._find)
    monkeypatch.setattr(accounts, "_find", sql.find)
    path.move(repo, other_pds.url)
    before, after = post(repo, "3kbbb"), post(repo, "3kccc")
    with path.plc.holding():
        asked = path.plc.asked[repo.did]
        path.put(host, after.frame(2))
        until(lambda: path.plc.asked[repo.did] > asked, 30)
        path.put(former, before.frame(1))
        until(lambda: sql.asked == 1, 30)
    until(lambda: sql.asked == 2, 30)
    sql.answers.set()
    assert until(lambda: (former.cursor.position, host.cursor.position) == (1, 2), 30)
    path.store()
    row, stored = path.stored(repo.did)
    assert (row.uid, row.host_id, stored.rev) == (1, host.id, repo.rev)
    assert drops.since("wrong-host") == 1 and len(path.events()) == 1

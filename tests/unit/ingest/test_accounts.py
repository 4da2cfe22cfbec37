"""An account's state survives being packed, is small, and is the newest that is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from relay.atproto.cid import Cid
from relay.atproto.events import STATUSES
from relay.ingest import accounts
from relay.ingest.accounts import Accounts, AccountState, pack, unpack
from relay.kit.generations import RecordCache
from relay.store.accounts import AccountAndRepo, AccountRow, RepoRow
from tests.support.hosts import known_host
from tests.support.present import present
from tests.support.repo import account_did

DID = account_did(1)
COMMIT, DATA = Cid.of_dag_cbor(b"commit"), Cid.of_dag_cbor(b"data")


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("gap", [False, True])
def test_an_account_comes_back_as_it_was(status: str, gap: bool) -> None:
    row = AccountRow(2**53, DID, 2**40, status, "active")
    repo = RepoRow(row.uid, "3lbtest222222", COMMIT, DATA, gap)
    assert unpack(DID, pack(row, repo)) == (row, repo)
    assert unpack(DID, pack(AccountRow(1, DID, 1, "active", status), None)) == (
        AccountRow(1, DID, 1, "active", status),
        None,
    )
    assert len(pack(row, repo)) < 105


def test_a_status_of_another_relays_is_not_kept() -> None:
    assert pack(AccountRow(1, DID, 1, "quarantined", "active"), None) == b""


# What happens while SQL is asked


def test_an_account_that_was_made_meanwhile_is_not_made_twice() -> None:
    host, made = known_host(), list[AccountState]()

    def find(did: str) -> None:
        made.append(known.create(did, host))

    known = Accounts(find, RecordCache(10).accounts, 1)
    assert known.lookup(DID) is made[0]


def test_what_sql_said_before_an_admin_changed_it_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an account that memory has no room for, or cannot keep, nothing else tells."""
    monkeypatch.setattr(accounts, "BUSY", 1)
    other = account_did(2)
    rows = {DID: AccountRow(1, DID, 1, "active", "on-holiday"), other: AccountRow(2, other, 1, "active", "active")}
    asked: list[str] = []

    def find(did: str) -> AccountAndRepo:
        found = rows[did], None
        asked.append(did)
        if asked == [DID]:
            taken_down = present(known.lookup(DID))
            known.set_own_status(taken_down, "takendown")
            rows[DID] = taken_down.row
            known.lookup(other)
        return found

    known = Accounts(find, RecordCache(10).accounts, 1)
    assert present(known.lookup(DID)).row.status == "takendown"


def test_what_is_read_ahead_takes_the_place_of_nothing_newer() -> None:
    memory = RecordCache(10).accounts
    row = AccountRow(1, DID, 1, "active", "active")
    old, new = (RepoRow(1, rev, COMMIT, DATA, False) for rev in ("3lbtest222222", "3lbtest222223"))

    def find_many(dids: Sequence[str]) -> dict[str, AccountAndRepo]:
        memory.put(DID, pack(row, new))
        return {DID: (row, old)}

    known = Accounts(lambda did: None, memory, 1)
    known.look_ahead([DID], find_many)
    assert present(known.lookup(DID)).repo == new

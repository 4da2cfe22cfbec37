"""An account's state survives being packed, and is small."""

from __future__ import annotations

import pytest

from relay.atproto.cid import Cid
from relay.atproto.events import STATUSES
from relay.ingest.accounts import pack, unpack
from relay.store.accounts import AccountRow, RepoRow
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

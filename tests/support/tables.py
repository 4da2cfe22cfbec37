"""Rows for tests of the tables, and what they ask for and the relay does not."""

from __future__ import annotations

from relay.store.accounts import AccountAndRepo, AccountRow, many_by_did
from relay.store.database import Transaction


def by_uid(tx: Transaction, uid: int) -> AccountAndRepo | None:
    """The account numbered `uid` and its repo, if a commit of it is known; None when the account is not."""
    row = tx.row("SELECT did FROM account WHERE uid = ?", (uid,))
    return many_by_did(tx, [row[0]])[row[0]] if row else None


def account(uid: int, host_id: int = 1, status: str = "active", upstream_status: str = "active") -> AccountRow:
    return AccountRow(uid, f"did:plc:{uid:024d}", host_id, status, upstream_status)

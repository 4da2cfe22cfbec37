"""What tests ask the tables for, and the relay does not."""

from __future__ import annotations

from relay.store.accounts import AccountAndRepo, many_by_did
from relay.store.database import Transaction


def by_uid(tx: Transaction, uid: int) -> AccountAndRepo | None:
    """The account numbered `uid` and its repo, if a commit of it is known; None when the account is not."""
    row = tx.row("SELECT did FROM account WHERE uid = ?", (uid,))
    return many_by_did(tx, [row[0]])[row[0]] if row else None

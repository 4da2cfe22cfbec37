"""The accounts in memory: who hosts them, their status, their last rev and data, and how admins change that.

Partitions look accounts up here and put new state back; the admin API takes down and restores through it. SQL is
behind it: read on a miss, written by the projector. Must not know of frames or verification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cachetools import LRUCache

from relay import metrics
from relay.errors import RelayError
from relay.ingest.host import Host
from relay.store import accounts as table
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Database


class AccountUnknown(RelayError):
    """No event of this DID was ever accepted here."""

    def __init__(self, did: str) -> None:
        super().__init__("account-unknown", did)


@dataclass(slots=True, eq=False)
class AccountState:
    """One account as the event path knows it: ahead of SQL by what the projector has not written yet.

    The rows are replaced, never changed in place, since the projector holds the same objects.
    """

    row: AccountRow
    repo: RepoRow | None


FindAccount = Callable[[str], tuple[AccountRow, RepoRow | None] | None]


class Accounts:
    """A bounded cache of account states. Behind it, `find` knows every account as of the newest published event."""

    def __init__(self, db: Database, find: FindAccount, capacity: int, next_uid: int) -> None:
        self._db = db
        self._find = find
        self._cache: LRUCache[str, AccountState] = LRUCache(capacity)
        self._next_uid = next_uid
        self._generation = 0
        metrics.QUEUE_SIZE.labels("accounts").set_function(lambda: len(self._cache))
        metrics.QUEUE_CAPACITY.labels("accounts").set(capacity)

    def lookup(self, did: str) -> AccountState | None:
        """The account of `did`, or None when it is new here. Raises StoreError when SQL is needed and away."""
        state: AccountState | None = self._cache.get(did)
        while state is None:
            generation = self._generation
            found = self._find(did)
            if found is None:
                return None
            # An admin may have changed the account while SQL answered: then what it said is stale.
            if generation == self._generation:
                state = self._cache.setdefault(did, AccountState(*found))
        return state

    def create(self, did: str, host: Host) -> AccountState:
        """A new account on `host`, counted there; `host-throttled` from the start when the host is at its limit."""
        status = "active" if host.account_count < host.account_limit else "host-throttled"
        host.account_count += 1
        state = AccountState(AccountRow(self._next_uid, did, host.id, status, "active"), None)
        self._next_uid += 1
        self._cache[did] = state
        return state

    def set_local_status(self, did: str, status: str) -> AccountState:
        """Give `did` a status of the relay's own, in memory and in SQL, durable on return.

        Raises AccountUnknown, or StoreError when SQL is away; then nothing has changed.
        """
        state = self.lookup(did)
        if state is None:
            raise AccountUnknown(did)
        before = state.row.status
        # Memory first: from here on nothing of a taken-down account passes the gate while SQL is being written.
        state.row = replace(state.row, status=status)
        self._cache[did] = state
        self._generation += 1
        try:
            self._db.write(table.put_status, state.row)
        except BaseException:
            state.row = replace(state.row, status=before)
            raise
        return state

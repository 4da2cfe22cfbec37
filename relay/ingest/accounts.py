"""The accounts in memory: who hosts them, their status, their last rev and data.

The gate looks accounts up here and gives them their new state; moderation changes their status. SQL is behind it: read
on a miss, written by the projector. Must not know of frames or verification.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

from relay.atproto.cid import LENGTH, Cid
from relay.atproto.events import DESYNCHRONIZED, STATUSES
from relay.hosts.host import Host
from relay.kit import metrics
from relay.kit.background import in_turns
from relay.kit.generations import RecordPart
from relay.store.accounts import AccountAndRepo, AccountRow, RepoRow

# As objects an account takes a kilobyte, packed a tenth of that; unpacking costs a twentieth of an event.
BUSY = 4096

# uid, host id, both statuses, whether commits were missed
_HEAD = struct.Struct(">QQBBB")
_CODES = {status: code for code, status in enumerate(STATUSES)}


class AccountState:
    """One account as the event path knows it: ahead of SQL by what the projector has not written yet.

    `row` is who hosts it and its status, `repo` the newest commit of its repo, if one is known. They are changed by
    `set_row` and `set_repo` alone, which memory follows, and never in place, because the projector holds the same
    objects. There is one object for an account, whoever holds it. `moved`: the host's status in the row is still the
    word of the former host.
    """

    __slots__ = ("__weakref__", "_memory", "moved", "repo", "row")

    def __init__(self, row: AccountRow, repo: RepoRow | None) -> None:
        self.row = row
        self.repo = repo
        self._memory: RecordPart | None = None
        self.moved = False

    def set_row(self, row: AccountRow) -> None:
        """The account's host or its status has changed."""
        self.row = row
        if self._memory is not None:
            self.pack_into(self._memory)

    def set_repo(self, repo: RepoRow | None) -> None:
        """There is a newer commit."""
        self.repo = repo
        if self._memory is not None:
            self.pack_into(self._memory)

    @property
    def desynchronized(self) -> bool:
        """Whether the relay or the account's host says that events of it are missing."""
        return DESYNCHRONIZED in (self.row.status, self.row.upstream_status)

    def pack_into(self, memory: RecordPart) -> None:
        """Keep the account in `memory`, as it is now and with later changes by whoever still holds this object."""
        self._memory = memory
        memory.put(self.row.did, pack(self.row, self.repo))

    def unpacked(self) -> None:
        """From now on this object is what is known of the account, and `memory` need not follow it."""
        self._memory = None


FindAccount = Callable[[str], AccountAndRepo | None]


class Accounts:
    """The accounts' states: the busiest as objects, and a bounded number of others packed in `memory`.

    Behind them, `find` knows every account as of the newest published event.
    """

    def __init__(self, find: FindAccount, memory: RecordPart, next_uid: int) -> None:
        self._find = find
        self._memory = memory
        self._busy: OrderedDict[str, AccountState] = OrderedDict()
        # States that are no longer among the busiest, but still held by somebody.
        self._held: WeakValueDictionary[str, AccountState] = WeakValueDictionary()
        self._next_uid = next_uid
        self._generation = 0
        metrics.show_bound("busy-accounts", self._busy.__len__, BUSY)

    def number_from(self, next_uid: int) -> None:
        """New accounts get uids from `next_uid` on."""
        self._next_uid = max(self._next_uid, next_uid)

    def lookup(self, did: str) -> AccountState | None:
        """The account of `did`, or None when it is new here. Raises StoreError when SQL is needed and away."""
        state = self._busy.get(did)
        if state is not None:
            self._busy.move_to_end(did)
            return state
        state = self._in_memory(did)
        while state is None:
            generation = self._generation
            found = self._find(did)
            # While SQL answered the account may have been looked up, or made, for another event of it.
            state = self._busy.get(did) or self._in_memory(did)
            if state is None:
                if found is None:
                    return None
                # If an admin changed the account meanwhile, the answer is stale.
                if generation == self._generation:
                    state = AccountState(*found)
        self._keep_busy(state)
        return state

    def remembers(self, did: str) -> bool:
        """Whether `lookup` needs no SQL."""
        return did in self._busy or did in self._held or self._memory.get(did) is not None

    def look_ahead(self, dids: Sequence[str], find: Callable[[Sequence[str]], Mapping[str, AccountAndRepo]]) -> None:
        """Keep in memory what `find` knows of these accounts; it may block. Raises StoreError as `find` does."""
        generation = self._generation
        for did, known in find([did for did in dids if not self.remembers(did)]).items():
            # As in `lookup`: what an admin changed meanwhile, or anybody looked up, is newer.
            if generation == self._generation and not self.remembers(did):
                self._memory.put(did, pack(*known))

    def if_busy(self, did: str) -> AccountState | None:
        """The account of `did` if it is among the busiest."""
        return self._busy.get(did)

    def create(self, did: str, host: Host) -> AccountState:
        """A new account on `host`, counted there; `host-throttled` from the start if the host is at its limit."""
        status = "active" if host.account_count < host.account_limit else "host-throttled"
        host.account_count += 1
        row = AccountRow(self._next_uid, did, host.id, status, "active")
        self._next_uid += 1
        state = AccountState(row, None)
        self._keep_busy(state)
        return state

    def set_own_status(self, state: AccountState, status: str) -> None:
        """Give the account a status of the relay's own, in memory. The caller holds `state` until it is in the log."""
        state.set_row(replace(state.row, status=status))
        self._generation += 1

    def made_after(self, uid: int) -> list[AccountRow]:
        """The accounts in memory that were created after the one with `uid`."""
        packed = (unpack(did, record)[0] for did, record in in_turns(self._memory.items()))
        rows = {row.did: row for row in packed if row.uid > uid}
        # Objects come last, as they are newer; iterated over copies, since lookups change both.
        for states in (list(self._held.values()), list(self._busy.values())):
            rows.update((state.row.did, state.row) for state in states if state.row.uid > uid)
        return list(rows.values())

    def _in_memory(self, did: str) -> AccountState | None:
        state = self._held.get(did)
        if state is None and (record := self._memory.get(did)) is not None:
            state = AccountState(*unpack(did, record))
        return state

    def _keep_busy(self, state: AccountState) -> None:
        state.unpacked()
        self._busy[state.row.did] = state
        self._busy.move_to_end(state.row.did)
        if len(self._busy) > BUSY:
            did, idle = self._busy.popitem(last=False)
            idle.pack_into(self._memory)
            self._held[did] = idle


def pack(row: AccountRow, repo: RepoRow | None) -> bytes:
    """The account and its repo, without the DID. Empty when they cannot be packed, and SQL has to be asked each time.

    That is so for a status without a code: a word of its host's own, or one that another relay has put into SQL.
    """
    status, upstream = _CODES.get(row.status), _CODES.get(row.upstream_status)
    if status is None or upstream is None:
        return b""
    head = _HEAD.pack(row.uid, row.host_id, status, upstream, repo is not None and repo.desynchronized)
    return head if repo is None else b"".join((head, repo.commit, repo.data, repo.rev.encode()))


def unpack(did: str, record: bytes) -> AccountAndRepo:
    """What was packed for `did`."""
    uid, host_id, status, upstream, gap = _HEAD.unpack_from(record)
    row = AccountRow(uid, did, host_id, STATUSES[status], STATUSES[upstream])
    repo = record[_HEAD.size :]
    if not repo:
        return row, None
    commit, data, rev = Cid(repo[:LENGTH]), Cid(repo[LENGTH : 2 * LENGTH]), repo[2 * LENGTH :].decode()
    return row, RepoRow(uid, rev, commit, data, bool(gap))

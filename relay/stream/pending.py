"""What SQL does not have yet: the newest rows of what events changed, and up to which event they say so.

The sequencer adds what `changes` made of each published event, and the projector writes it. Rows that were handed over
for writing are never changed: a reader may hold them while SQL answers. Must not know of SQL's statements.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from relay.kit import metrics
from relay.kit.generations import RecentSet
from relay.store import healing
from relay.store.accounts import AccountAndRepo, AccountRow, RepoRow
from relay.store.projection import ProjectionBatch, returns

KNOWN_PAIRS = 250_000
# With this many rows SQL is written before its time.
FLUSH_ROWS = 5_000
# What may wait for SQL. The events must be fewer than `high_water.RESERVE`: so far is the log's seq put ahead of SQL's
# position when a log is found to be behind it.
MAX_ROWS = 100_000
MAX_EVENTS = 500_000
# Accounts that moved lately: more than may be judged and not yet published.
MOVES = 16_384


@dataclass(slots=True)
class Changes:
    """The newest rows of what changed; `uids` finds the accounts among them by DID. `returned` are those that were not
    active at their hosts in between.
    """

    accounts: dict[int, AccountRow] = field(default_factory=dict)
    repos: dict[int, RepoRow] = field(default_factory=dict)
    suppressed: dict[int, int | None] = field(default_factory=dict)
    collections: dict[tuple[int, str], bool | None] = field(default_factory=dict)
    own_statuses: dict[int, str] = field(default_factory=dict)
    missed: dict[tuple[int, str], str] = field(default_factory=dict)
    uids: dict[str, int] = field(default_factory=dict)
    returned: set[int] = field(default_factory=set)

    def put_account(self, row: AccountRow) -> None:
        """Note the new state of an account."""
        before = self.accounts.get(row.uid)
        if before is not None and _returns(before, row):
            self.returned.add(row.uid)
        self.accounts[row.uid] = row
        self.uids[row.did] = row.uid

    def note_missed(self, host_id: int, did: str, reason: str) -> None:
        """Note that events of an account were dropped."""
        self.missed[host_id, did] = healing.of_both(self.missed.get((host_id, did)), reason)

    def update(self, later: Changes) -> None:
        """Add `later`, which wins where both have a row."""
        both = self.accounts.keys() & later.accounts.keys()
        self.returned |= later.returned
        self.returned |= {uid for uid in both if _returns(self.accounts[uid], later.accounts[uid])}
        self.accounts |= later.accounts
        self.repos |= later.repos
        self.suppressed |= later.suppressed
        self.collections |= later.collections
        self.own_statuses |= later.own_statuses
        for (host_id, did), reason in later.missed.items():
            self.note_missed(host_id, did, reason)
        self.uids |= later.uids

    def pieces(self, rows: int) -> list[Changes]:
        """The same in pieces of about `rows` rows; all rows of an account are in one piece."""
        if len(self) <= rows:
            return [self]
        sizes = Counter(chain(self.accounts, self.repos, self.suppressed, self.own_statuses))
        sizes.update(uid for uid, _ in self.collections)
        pieces = [Changes()]
        number_of: dict[int, int] = {}
        room = rows
        for uid, size in sizes.items():
            if room <= 0:
                pieces.append(Changes())
                room = rows
            number_of[uid] = len(pieces) - 1
            room -= size
        for account in self.accounts.values():
            pieces[number_of[account.uid]].put_account(account)
        for uid in self.returned:
            pieces[number_of[uid]].returned.add(uid)
        for repo in self.repos.values():
            pieces[number_of[repo.uid]].repos[repo.uid] = repo
        for uid, before_seq in self.suppressed.items():
            pieces[number_of[uid]].suppressed[uid] = before_seq
        for pair, present in self.collections.items():
            pieces[number_of[pair[0]]].collections[pair] = present
        for uid, status in self.own_statuses.items():
            pieces[number_of[uid]].own_statuses[uid] = status
        # Stored before the cursors, which come with the last piece.
        missed = list(self.missed.items())
        parts = [Changes(missed=dict(missed[start : start + rows])) for start in range(0, len(missed), rows)]
        return parts + pieces

    def batch(self, position: int, replay_from: int, log_ids: tuple[str, ...]) -> ProjectionBatch:
        """The batch to write, with the position that SQL has afterwards; without cursors."""
        return ProjectionBatch(
            position,
            replay_from,
            accounts=self.accounts,
            repos=self.repos,
            suppressed={uid: seq for uid, seq in self.suppressed.items() if seq is not None},
            unsuppressed={uid for uid, seq in self.suppressed.items() if seq is None},
            collections=self.collections,
            own_statuses=self.own_statuses,
            log_ids=log_ids,
            missed=self.missed,
            returned=self.returned,
        )

    def __len__(self) -> int:
        rows = len(self.accounts) + len(self.repos) + len(self.suppressed)
        return rows + len(self.collections) + len(self.own_statuses) + len(self.missed)


def _returns(before: AccountRow, after: AccountRow) -> bool:
    return returns(before.upstream_status, after.upstream_status)


class Told:
    """Which (account, collection) pairs SQL is known to have, so that the thousandth post is not written as the first
    was.
    """

    def __init__(self) -> None:
        self._known = RecentSet(KNOWN_PAIRS)
        metrics.show_bound("collections", lambda: len(self._known), 2 * KNOWN_PAIRS)

    def news(self, uid: int, told: Mapping[str, bool | None]) -> dict[tuple[int, str], bool | None]:
        """The part of `told` that SQL does not have; from now on it counts as stored."""
        found: dict[tuple[int, str], bool | None] = {}
        for name, present in told.items():
            pair = uid, name
            if not present:
                self._known.discard(pair)
            elif not self._known.add(pair):
                continue
            found[pair] = present
        return found

    def forget(self, uid: int, names: Iterable[str]) -> None:
        """What is stored of these collections of `uid` is in doubt."""
        for name in names:
            self._known.discard((uid, name))

    def forget_all(self) -> None:
        """SQL may have lost any of it."""
        self._known = RecentSet(KNOWN_PAIRS)


class Pending:
    """What SQL does not have yet: the events up to `position` are gathered, those up to `stored_position` are written.

    `gathered` comes with the next write, `writing` is what this one has yet to write, in pieces, and `told` what SQL
    is known to have of collections. `wake` is called when much is gathered.
    """

    def __init__(self, position: int, wake: Callable[[], None]) -> None:
        self.position = position
        self.stored_position = position
        self.gathered = Changes()
        self.writing: list[Changes] = []
        self.told = Told()
        self._wake = wake
        # uid -> the host that an account has moved to.
        self._moves: OrderedDict[int, int] = OrderedDict()
        metrics.PROJECTION_LAG.set_function(lambda: self.position - self.stored_position)
        metrics.show_bound("projection", self.rows, MAX_ROWS)
        metrics.show_bound("account-moves", self._moves.__len__, MOVES)

    def rows(self) -> int:
        """Rows that wait to be written."""
        return len(self.gathered) + sum(map(len, self.writing))

    @property
    def full(self) -> bool:
        """True when no more may be logged before SQL has caught up."""
        return self.position - self.stored_position >= MAX_EVENTS or self.rows() >= MAX_ROWS

    def note_move(self, row: AccountRow) -> None:
        """Gather that an account is on another host, which no event carries."""
        self.gathered.put_account(row)
        self._moves.pop(row.uid, None)
        self._moves[row.uid] = row.host_id
        if len(self._moves) > MOVES:
            self._moves.popitem(last=False)

    def add(
        self,
        position: int,
        account_rows: list[AccountRow],
        repo_rows: list[RepoRow],
        collections: Sequence[tuple[int, Mapping[str, bool | None]]] = (),
        own_statuses: Mapping[int, str] | None = None,
    ) -> None:
        """Gather what the events up to `position` change, once they are published.

        `collections` are uids with what an event says about their collections (`changes_of`); `own_statuses` are
        uid -> the status of the relay's own that was given to the account.
        """
        gathered = self.gathered
        for account in account_rows:
            # An event that was judged before its account moved is published after that, and names the former host.
            host_id = self._moves.get(account.uid, account.host_id)
            gathered.put_account(account if host_id == account.host_id else replace(account, host_id=host_id))
        for repo in repo_rows:
            gathered.repos[repo.uid] = repo
        for uid, told in collections:
            gathered.collections.update(self.told.news(uid, told))
        if own_statuses:
            gathered.own_statuses |= own_statuses
        self.position = position
        if len(gathered) >= FLUSH_ROWS:
            self._wake()


def merged(pieces: Sequence[Changes]) -> Changes:
    """All of `pieces` as one, each put over those before it."""
    if not any(map(len, pieces[:-1])):
        return pieces[-1]
    found = Changes()
    for piece in pieces:
        found.update(piece)
    return found


def newest(did: str, stored: AccountAndRepo | None, pending: Sequence[Changes]) -> AccountAndRepo | None:
    """The account of `did` and its repo: `stored` is what SQL has, and `pending` what comes after that, in order."""
    account, repo = stored or (None, None)
    for changes in pending:
        uid = account.uid if account else changes.uids.get(did, 0)
        changed = changes.accounts.get(uid)
        if changed is not None:
            # The relay's own status is the stored one, not the row's, as in `projection.write`.
            account = replace(changed, status=account.status) if account else changed
        own = changes.own_statuses.get(uid)
        if own is not None and account is not None:
            account = replace(account, status=own)
        repo = changes.repos.get(uid, repo)
    return (account, repo) if account else None

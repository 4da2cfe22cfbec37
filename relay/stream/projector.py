"""Gathers what logged events change in SQL and writes it in batches, with the log position they stand for.

Fed by the sequencer after each group commit, and by `ingest` with changes that have no event; asked by `ingest` for
accounts, since it alone knows what SQL does not have yet. Must not know how records become rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from gevent.event import Event as Signal

from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import StoreError
from relay.kit.generations import RecentSet
from relay.store import accounts, projection
from relay.store.accounts import AccountRow, RepoRow
from relay.store.batched_reads import BatchedReads
from relay.store.database import Database, within
from relay.store.projection import ProjectionBatch
from relay.stream.cursors import CursorBook
from relay.stream.suppressions import Suppressions

FLUSH_SECONDS = 0.5
FLUSH_ROWS = 5_000
# (account, collection) pairs that SQL is known to have, so that the thousandth post is not written as the first was.
KNOWN_PAIRS = 250_000
RETRY_SECONDS = 1.0

# What may wait for SQL. The events must be fewer than `high_water.RESERVE`: by so many is the log's seq put ahead of
# the position in SQL when a log is found to be behind it.
MAX_ROWS = 100_000
MAX_EVENTS = 500_000

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Changes:
    """The newest rows of what changed; `uids` finds those accounts by DID."""

    accounts: dict[int, AccountRow] = field(default_factory=dict)
    repos: dict[int, RepoRow] = field(default_factory=dict)
    suppressed: dict[int, int | None] = field(default_factory=dict)
    collections: dict[tuple[int, str], bool | None] = field(default_factory=dict)
    own_statuses: dict[int, str] = field(default_factory=dict)
    uids: dict[str, int] = field(default_factory=dict)

    def put_account(self, row: AccountRow) -> None:
        """Note the new state of an account."""
        self.accounts[row.uid] = row
        self.uids[row.did] = row.uid

    def update(self, later: Changes) -> None:
        """Put `later` over this."""
        self.accounts |= later.accounts
        self.repos |= later.repos
        self.suppressed |= later.suppressed
        self.collections |= later.collections
        self.own_statuses |= later.own_statuses
        self.uids |= later.uids

    def __len__(self) -> int:
        rows = len(self.accounts) + len(self.repos) + len(self.suppressed)
        return rows + len(self.collections) + len(self.own_statuses)


class Projector:
    """SQL's way behind the log: everything up to `position` was gathered, up to `stored_position` written."""

    def __init__(
        self, db: Database, book: CursorBook, suppressions: Suppressions, position: int, replay_from: int = 0
    ) -> None:
        self.position = position
        self.stored_position = position
        # From here on a restart reads the log, as SQL has it.
        self.stored_replay_from = replay_from
        self._db = db
        self._book = book
        self._stored = BatchedReads(db, accounts.many_by_did)
        self._known = RecentSet(KNOWN_PAIRS)
        self._gathered = Changes()
        self._writing = Changes()
        self._loop = Loop("projection", self._pass, FLUSH_SECONDS)
        self._trouble: str | None = None
        self._next_try = 0.0
        self._flushed = Signal()
        # Writes begun, and the newest of them that succeeded.
        self._rounds = 0
        self._stored_round = 0
        suppressions.watch(self._note_suppression)
        metrics.PROJECTION_LAG.set_function(lambda: self.position - self.stored_position)
        metrics.show_bound("projection", self._size, MAX_ROWS)
        metrics.show_bound("collections", lambda: len(self._known), 2 * KNOWN_PAIRS)

    @property
    def problem(self) -> str | None:
        """Why SQL falls behind the log, in words, or None."""
        return self._trouble or self._loop.problem

    @property
    def needed_from(self) -> int:
        """The first seq of the log that a restart would need, for SQL or for the cursors of hosts."""
        return min(self.stored_position + 1, self.stored_replay_from)

    @property
    def full(self) -> bool:
        """True when no more may be logged before SQL has caught up."""
        return self._size() >= MAX_ROWS or self.position - self.stored_position >= MAX_EVENTS

    def add(
        self,
        position: int,
        account_rows: list[AccountRow],
        repo_rows: list[RepoRow],
        collections: Sequence[tuple[int, Mapping[str, bool | None]]] = (),
        own_statuses: Mapping[int, str] | None = None,
    ) -> None:
        """Gather what the events up to `position` change, once they are published.

        `collections` are uids with what an event tells of their collections (`changes.told_by`); `own_statuses` are
        uid -> the status of the relay's own that was given to the account.
        """
        for account in account_rows:
            self._gathered.put_account(account)
        for repo in repo_rows:
            self._gathered.repos[repo.uid] = repo
        for uid, told in collections:
            self._add_collections(uid, told)
        if own_statuses:
            self._gathered.own_statuses |= own_statuses
        self.position = position
        if len(self._gathered) >= FLUSH_ROWS:
            self._loop.wake()

    def note_account(self, row: AccountRow) -> None:
        """Gather a change of an account that no event carries."""
        self._gathered.put_account(row)

    def forget_collections(self, uid: int, names: Iterable[str]) -> None:
        """What is stored of these collections of `uid` is in doubt: the next event that tells of one is written."""
        for name in names:
            self._known.discard((uid, name))

    def account(self, did: str) -> tuple[AccountRow, RepoRow | None] | None:
        """The account of `did` and its repo, at least as new as when this was called. Raises StoreError."""
        # What is pending now may be written before or after SQL is asked, and so be in neither: hold on to it.
        pending = self._writing, self._gathered
        stored = self._stored.get(did)
        return _newest(did, stored, (*pending, self._writing, self._gathered))

    def wait_for_room(self, timeout: float) -> bool:
        """Block while `full`, for `timeout` seconds at most. True when there is room."""
        if self.full:
            self._loop.wake()
            self._flushed.clear()
            self._flushed.wait(timeout)
        return not self.full

    def wait_until_stored(self, timeout: float) -> bool:
        """Block until all that is gathered now is in SQL, for `timeout` seconds at most. True when it is."""
        wanted, give_up = self._rounds + 1, time.monotonic() + timeout
        while self._stored_round < wanted:
            left = give_up - time.monotonic()
            if left <= 0:
                return False
            self._loop.wake()
            self._flushed.clear()
            self._flushed.wait(left)
        return True

    def start(self) -> None:
        """Start writing."""
        self._loop.start(after=FLUSH_SECONDS)

    def stop(self, timeout: float) -> None:
        """Stop after a last write, which is given `timeout` seconds; what it misses is in the log."""
        self._loop.stop()
        with suppress(StoreError), within(timeout):
            self.flush()

    def flush(self) -> bool:
        """Write all that is gathered now, in one transaction. False when SQL is away; then it is kept."""
        # No switch until the batch is whole: position, cursors and rows must be of the same moment.
        self._rounds += 1
        this_round = self._rounds
        self._writing.update(self._gathered)
        self._gathered = Changes()
        changes, position = self._writing, self.position
        batch = ProjectionBatch(
            position=position,
            replay_from=self._book.replay_from(),
            accounts=changes.accounts,
            repos=changes.repos,
            cursors=self._book.take_dirty(),
            started=self._book.take_started(),
            suppressed={uid: seq for uid, seq in changes.suppressed.items() if seq is not None},
            unsuppressed={uid for uid, seq in changes.suppressed.items() if seq is None},
            collections=changes.collections,
            own_statuses=changes.own_statuses,
        )
        try:
            self._db.write(projection.write, batch)
        except BaseException as error:
            self._book.give_back(batch.cursors, batch.started)
            if not isinstance(error, StoreError):
                raise
            self._trouble = f"database: {error}"
            log.warning("the projection is not written: %s", error)
            return False
        self._trouble = None
        self._writing = Changes()
        self.stored_position = position
        self.stored_replay_from = batch.replay_from
        self._stored_round = max(self._stored_round, this_round)
        self._flushed.set()
        return True

    def _pass(self) -> float | None:
        # Whoever waits for SQL wakes the loop, and must not make it ask a database that is away without a pause.
        now = time.monotonic()
        if now < self._next_try:
            return self._next_try - now
        if not (len(self._gathered) or len(self._writing) or self._book.dirty):
            return None
        self._next_try = now + RETRY_SECONDS
        if not self.flush():
            return RETRY_SECONDS
        self._next_try = 0.0
        return None

    def _add_collections(self, uid: int, told: Mapping[str, bool | None]) -> None:
        for name, present in told.items():
            pair = uid, name
            if not present:
                self._known.discard(pair)
            elif not self._known.add(pair):
                continue
            self._gathered.collections[pair] = present

    def _note_suppression(self, uid: int, before_seq: int | None) -> None:
        self._gathered.suppressed[uid] = before_seq

    def _size(self) -> int:
        return len(self._gathered) + len(self._writing)


def _newest(
    did: str, stored: tuple[AccountRow, RepoRow | None] | None, pending: Sequence[Changes]
) -> tuple[AccountRow, RepoRow | None] | None:
    account, repo = stored or (None, None)
    for changes in pending:
        uid = account.uid if account else changes.uids.get(did, 0)
        changed = changes.accounts.get(uid)
        if changed is not None:
            # The relay's own status is not the row's but the one stored, as in `projection.write`.
            account = replace(changed, status=account.status) if account else changed
        own = changes.own_statuses.get(uid)
        if own is not None and account is not None:
            account = replace(account, status=own)
        repo = changes.repos.get(uid, repo)
    return (account, repo) if account else None

"""Writes what logged events change into SQL, in batches, each with the log position that it stands for.

The sequencer adds to what is `pending` after each group commit, and `ingest` notes changes that have no event. `ingest`
asks for accounts here, where it is known what SQL does not have yet. Must not know how records become rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from gevent.event import Event as Signal
from gevent.lock import BoundedSemaphore

from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import LogError, StoreError
from relay.store import accounts, projection
from relay.store.accounts import AccountAndRepo, AccountRow, RepoRow
from relay.store.batched_reads import BatchedReads
from relay.store.database import Database, Transaction, within
from relay.store.projection import NotOurs, PositionMoved
from relay.stream.catch_up import CatchUp
from relay.stream.cursors import CursorBook
from relay.stream.pending import Changes, Pending, merged, newest
from relay.stream.suppressions import Suppressions

FLUSH_SECONDS = 0.5
RETRY_SECONDS = 1.0
# Rows in one transaction, and the minimum for a database that does not take that many in time.
PIECE_ROWS = 10_000
SMALLEST_PIECE = 100
# How often to check, while there is nothing to write, that SQL is where it was left.
LOOK_SECONDS = 5.0

MakeCatchUp = Callable[[int, int, int, tuple[str, ...]], CatchUp]

log = logging.getLogger(__name__)


class Projector:
    """SQL's way behind the log. `pending` is what SQL does not have yet."""

    def __init__(
        self,
        db: Database,
        book: CursorBook,
        suppressions: Suppressions,
        position: int,
        replay_from: int = 0,
        catch_up: MakeCatchUp | None = None,
        log_ids: tuple[str, ...] = (),
    ) -> None:
        """`log_ids` are the identity of the log and those of its forerunners. `catch_up` makes what brings an older
        database up to the log, when one is found in the place of this one.
        """
        self._loop = Loop("projection", self._pass, FLUSH_SECONDS)
        self.pending = Pending(position, self._loop.wake)
        # From where a restart would read the log, as stored in SQL.
        self.stored_replay_from = replay_from
        # Called before an older database is brought up to the log.
        self.went_back: Callable[[], None] = _nothing
        # Called when a host's numbers have begun anew, before its first event is taken.
        self.began_anew: Callable[[], None] = _nothing
        # The highest uid that was met while SQL was brought up to the log.
        self.max_uid = 0
        self._db = db
        self._book = book
        self._make_catch_up = catch_up
        self._log_ids = log_ids
        self._catch_up: CatchUp | None = None
        self._prepared = False
        self._caught_up = Signal()
        self._caught_up.set()
        # Where SQL may be: where it was left, or where a write that got no answer would have left it.
        self._may_be_at = {position}
        self._looked_at = time.monotonic()
        self._stored = BatchedReads(db, self._find)
        self._piece_rows = PIECE_ROWS
        self._trouble: str | None = None
        self._lost: str | None = None
        self._next_try = 0.0
        self._flushed = Signal()
        self._one_flush = BoundedSemaphore()
        # Writes begun, and the newest of them that succeeded.
        self._rounds = 0
        self._stored_round = 0
        suppressions.watch(self._note_suppression)
        metrics.RECOVERY_REMAINING.set_function(lambda: self._catch_up.remaining if self._catch_up else 0)

    @property
    def problem(self) -> str | None:
        """Why SQL falls behind the log, in words, or None."""
        behind = self._catch_up
        if behind is not None and self._trouble is None:
            return f"database: it is brought up to the log, {behind.remaining} events to go"
        return self._trouble or self._loop.problem

    @property
    def warning(self) -> str | None:
        """What the database has lost for good, in words, or None."""
        return self._lost

    @property
    def unstored_from(self) -> int:
        """The first seq of the log that SQL does not have."""
        return 1 + (self.pending.stored_position if self._catch_up is None else self._catch_up.position)

    def note_account(self, row: AccountRow) -> None:
        """Gather a change of an account that no event carries."""
        self.pending.gathered.put_account(row)

    def note_move(self, row: AccountRow) -> None:
        """Gather that an account is on another host."""
        self.pending.note_move(row)

    def note_repo(self, repo: RepoRow, collections: Mapping[str, bool | None]) -> None:
        """Gather what is known of a repo that no event carries."""
        self.pending.gathered.repos[repo.uid] = repo
        self.pending.gathered.collections.update(self.pending.told.news(repo.uid, collections))

    def note_missed(self, host_id: int, did: str, reason: str) -> None:
        """Gather that events of an account were dropped. Stored no later than its host's cursor moves past them."""
        self.pending.gathered.note_missed(host_id, did, reason)

    def forget_collections(self, uid: int, names: Iterable[str]) -> None:
        """What is stored of these collections of `uid` is in doubt: the next event that mentions one is written."""
        self.pending.told.forget(uid, names)

    def account(self, did: str) -> AccountAndRepo | None:
        """The account of `did` and its repo, at least as new as when this was called. Raises StoreError."""
        return self._newest([did], lambda: {did: self._stored.get(did)}).get(did)

    def accounts(self, dids: Sequence[str]) -> dict[str, AccountAndRepo]:
        """Those of these accounts that are known, as `account` says it of each. Raises StoreError."""
        return self._newest(dids, lambda: self._db.read(self._find, dids))

    def _newest(
        self, dids: Sequence[str], read: Callable[[], Mapping[str, AccountAndRepo | None]]
    ) -> dict[str, AccountAndRepo]:
        # What is pending may be written while SQL is asked, and then be in neither answer: hold on to it.
        pending = self.pending
        then = *pending.writing, pending.gathered
        if self._catch_up is not None:
            raise StoreError("store-behind", "the database is brought up to the log")
        stored = read()
        after = *then, *pending.writing, pending.gathered
        found = ((did, newest(did, stored.get(did), after)) for did in dids)
        return {did: known for did, known in found if known is not None}

    def wait_for_room(self, timeout: float) -> bool:
        """Block while `pending` is full, for `timeout` seconds at most. True when there is room."""
        if self.pending.full:
            self._loop.wake()
            self._flushed.clear()
            self._flushed.wait(timeout)
        return not self.pending.full

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

    def note_lost(self, events: int) -> None:
        """SQL lacks up to `events` events that the log no longer has."""
        if events:
            self._lost = f"database: it lacks up to {events} events that the log no longer has"

    @property
    def behind(self) -> bool:
        """True while SQL is brought up to the log."""
        return self._catch_up is not None

    def wait_until_caught_up(self) -> None:
        """Block while `behind`: ended by the projector, which goes on until SQL has everything."""
        self._caught_up.wait()

    def follow(self, behind: CatchUp, *, prepared: bool = False) -> None:
        """Bring SQL up to the log before anything else is written. Until then it is asked nothing.

        `prepared`: there is nothing in memory that an older database would have to be given first.
        """
        self.note_lost(behind.lost)
        self._prepared = prepared
        self._next_try = 0.0
        self._catch_up = behind
        self._caught_up.clear()
        self._loop.wake()

    def start(self) -> None:
        """Start writing."""
        self._loop.start(after=FLUSH_SECONDS)

    def stop(self, timeout: float) -> None:
        """Stop after a last write, which is given `timeout` seconds; what it misses is in the log."""
        self._loop.stop()
        with suppress(StoreError), within(timeout):
            self.flush()

    def flush(self) -> bool:
        """Write all that is gathered now. False when SQL is away or is not where it was left; then it is kept.

        What is too much for one transaction goes in several, which move nothing but rows until the last one.
        """
        with self._one_flush:
            return self._flush()

    def _flush(self) -> bool:
        if self._catch_up is not None:
            return False
        pending = self.pending
        # Nothing switches until the batch is whole: position, cursors and rows must be of the same moment.
        self._rounds += 1
        this_round, position, replay_from = self._rounds, pending.position, self._book.replay_from()
        cursors, started, gaps = self._book.take_dirty(), self._book.take_started(), self._book.take_gaps()
        # Handed over for writing, and never changed from here on.
        pending.writing = merged((*pending.writing, pending.gathered)).pieces(self._piece_rows)
        pending.gathered = Changes()
        try:
            while len(pending.writing) > 1:
                # Writing them again does no harm: from an older position the log gives the same rows.
                batch = pending.writing[0].batch(pending.stored_position, self.stored_replay_from, self._log_ids)
                batch.now = time.time()
                self._db.write(projection.write, batch, frozenset(self._may_be_at))
                del pending.writing[0]
            batch = pending.writing[0].batch(position, replay_from, self._log_ids)
            batch.cursors, batch.started, batch.gaps, batch.now = cursors, started, gaps, time.time()
            expected = frozenset(self._may_be_at)
            self._may_be_at.add(position)
            self._db.write(projection.write, batch, expected)
        except BaseException as error:
            self._book.give_back(cursors, started, gaps)
            if isinstance(error, PositionMoved):
                self._note_moved(error)
            elif isinstance(error, NotOurs):
                self._note_taken()
            elif isinstance(error, StoreError):
                self._piece_rows = max(self._piece_rows // 2, SMALLEST_PIECE)
                self._trouble = f"database: {error}"
                log.debug("the projection is not written: %s", error)
            else:
                raise
            return False
        if started:
            self.began_anew()
        self._trouble = None
        self._piece_rows = min(self._piece_rows * 2, PIECE_ROWS)
        pending.writing = []
        self._may_be_at = {position}
        pending.stored_position = position
        self.stored_replay_from = replay_from
        self._stored_round = max(self._stored_round, this_round)
        self._flushed.set()
        return True

    def _find(self, tx: Transaction, dids: Sequence[str]) -> dict[str, AccountAndRepo]:
        """What SQL has of these accounts, once it is sure that it is not an older state than it was left in."""
        left_at = self.pending.stored_position
        position, _ = projection.position(tx)
        if position < left_at:
            self._looked_at = 0.0
            raise StoreError("store-behind", f"the database is at {position}, and was at {left_at}")
        return accounts.many_by_did(tx, dids)

    def _note_moved(self, moved: PositionMoved) -> None:
        """SQL is not where it was left."""
        pending = self.pending
        if pending.stored_position < moved.found <= pending.position:
            # A write that got no answer was stored after all.
            self._may_be_at = {moved.found}
            return
        if moved.found > pending.position or self._make_catch_up is None:
            self._trouble = f"database: it is at {moved.found} and the log at {pending.position}"
            log.error("the database is at %d, ahead of the log: another relay has written to it", moved.found)
            return
        metrics.STORE_WENT_BACK.inc()
        log.error(
            "the database went back from %d to %d: the log is applied to it again", pending.stored_position, moved.found
        )
        pending.told.forget_all()
        self._trouble = None
        self.stored_replay_from = moved.replay_from
        self.follow(self._make_catch_up(moved.found, pending.stored_position, moved.replay_from, self._log_ids))

    def _note_taken(self) -> None:
        """SQL is another log's now."""
        self._trouble = "database: it belongs to another log: another relay has taken it"
        log.error(
            "nothing is written: the database belongs to another log. Another relay has taken it: stop one of them"
        )

    def _catch_up_with(self, behind: CatchUp) -> float:
        """Go on with bringing SQL up to the log; seconds to the next pass."""
        try:
            if not self._prepared:
                self.went_back()
                self._prepared = True
            behind.run()
        except (StoreError, LogError) as error:
            self._trouble = f"database: {error}"
            log.warning("bringing the database up to the log failed, and is tried again: %s", error)
            return RETRY_SECONDS
        except NotOurs:
            self._note_taken()
            return RETRY_SECONDS
        except PositionMoved as moved:
            self._catch_up = None
            self._may_be_at = {behind.position}
            self.pending.stored_position = behind.until
            self._note_moved(moved)
            return RETRY_SECONDS
        self._trouble = None
        self._catch_up = None
        self._may_be_at = {behind.position}
        self.pending.stored_position = behind.position
        self.pending.position = max(self.pending.position, behind.position)
        self.max_uid = max(self.max_uid, behind.max_uid)
        self._next_try = 0.0
        # What is kept beside the log in memory is in force: it is stored as if it had never been.
        self._book.forget_stored()
        self._caught_up.set()
        return 0.0

    def _pass(self) -> float | None:
        # Callers that wait for SQL wake the loop, which must not ask an absent database without a pause.
        now = time.monotonic()
        if now < self._next_try:
            return self._next_try - now
        if self._catch_up is not None:
            self._next_try = now + RETRY_SECONDS
            return self._catch_up_with(self._catch_up)
        if not (self.pending.rows() or self._book.dirty):
            # Callers that began to wait for the next round while the last one was written have waited enough.
            if not self._one_flush.locked():
                self._rounds = self._stored_round = self._rounds + 1
                self._flushed.set()
            self._look(now)
            return None
        self._next_try = now + RETRY_SECONDS
        if not self.flush():
            return RETRY_SECONDS
        self._next_try = 0.0
        return None

    def _look(self, now: float) -> None:
        """While there is nothing to write, check now and then that SQL still is where it was left."""
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        # Whether the database answers is for the health check to say.
        with suppress(StoreError):
            found, replay_from = self._db.read(projection.position)
            if found not in self._may_be_at and not self.pending.rows():
                self._note_moved(PositionMoved(found, replay_from))

    def _note_suppression(self, uid: int, before_seq: int | None) -> None:
        self.pending.gathered.suppressed[uid] = before_seq


def _nothing() -> None:
    pass

"""Brings a database that is behind up to the log, piece by piece: each makes progress, whatever becomes of the next.

Made at the start, and while the relay runs when an older database takes the place of the present one; run to its end
by whoever may write the projection. Yields between events. Must not know why the database is behind.
"""

from __future__ import annotations

import logging
import time

from gevent.threadpool import ThreadPool

from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.record import Record
from relay.kit import metrics
from relay.kit.background import end_threads, in_thread, in_turns
from relay.store import accounts, projection
from relay.store.accounts import AccountAndRepo
from relay.store.database import Database
from relay.store.projection import ProjectionBatch
from relay.stream import replay

# A piece ends with either. It is one transaction, and an account is written once in it, however often it changed.
PIECE_RECORDS = 10_000
PIECE_BYTES = 32 << 20
READ_BYTES = 512 << 10
# Accounts that are not asked for again in the next pieces.
KNOWN_ACCOUNTS = 100_000
SAY_SECONDS = 10.0

log = logging.getLogger(__name__)


class CatchUp:
    """From SQL's `position` to `until`. What the log no longer has is skipped, counted and logged.

    A restart scans the log from `replay_from`, which stays as it is. `max_uid` is the highest uid that was seen.
    """

    def __init__(
        self,
        segment_log: SegmentLog,
        db: Database,
        position: int,
        until: int,
        replay_from: int,
        log_ids: tuple[str, ...] = (),
    ) -> None:
        self.position = position
        self.until = until
        self.max_uid = 0
        self.applied = 0
        self.lost = _lost(segment_log, position, until)
        # Where SQL may be: at the last piece that was stored, or at one of which no answer came.
        self.stored_at = {position}
        self._db = db
        self._replay_from = replay_from
        self._log_ids = log_ids
        self._reader = LogReader(segment_log)
        self._pool = ThreadPool(1)
        self._read_to = max(position, segment_log.first_seq - 1)
        self._known: replay.Known = {}
        self._told: set[int] = set()
        self._began = self._said = time.monotonic()
        if self.lost:
            metrics.STORE_LOST_EVENTS.inc(self.lost)
            log.error(
                "the database is at %d, but the log begins at %d: up to %d events between them are lost to it, with the"
                " takedowns and accounts among them",
                position,
                segment_log.first_seq,
                self.lost,
            )

    @property
    def remaining(self) -> int:
        """Events that are still to be applied, about."""
        return max(self.until - max(self._read_to, self.position), 0)

    def run(self) -> None:
        """Go on to the end. Raises StoreError, LogError, PositionMoved or NotOurs; then it may be called again."""
        while self.step():
            pass
        end_threads(self._pool)
        if self.applied:
            log.info("applied %d events of the log to the database", self.applied)

    def step(self) -> bool:
        """Apply the next piece. False when there is none. Raises as `run`."""
        records = self._next_records()
        if not records:
            return False
        events = [(record, event) for record in in_turns(records) if (event := replay.event_of(record)) is not None]
        known = self._known_of(sorted({event.did for _, event in events}))
        batch = ProjectionBatch(records[-1].seq, self._replay_from, log_ids=self._log_ids)
        told = set(self._told)
        replay.fold(batch, in_turns(events), known, told)
        expected = frozenset(self.stored_at)
        self.stored_at.add(batch.position)
        self._db.write(projection.write, batch, expected)
        self.stored_at = {batch.position}
        self._told = told
        self.position = self._read_to = batch.position
        self._known = known if len(known) <= KNOWN_ACCOUNTS else {}
        self.applied += len(records)
        self.max_uid = max(self.max_uid, *(record.uid for record in records))
        self._say()
        return self.position < self.until

    def _next_records(self) -> list[Record]:
        records: list[Record] = []
        size, after = 0, self._read_to
        while len(records) < PIECE_RECORDS and size < PIECE_BYTES and after < self.until:
            more = in_thread(self._pool, self._reader.read, after, READ_BYTES)
            if not more:
                break
            after = more[-1].seq
            records += more
            size += sum(record.size for record in more)
        return records if not records or after <= self.until else [one for one in records if one.seq <= self.until]

    def _known_of(self, dids: list[str]) -> replay.Known:
        """What is known of these accounts, and of those of earlier pieces: a copy, since the piece may fail."""
        missing = [did for did in dids if did not in self._known]
        found = self._db.read(accounts.many_by_did, missing) if missing else {}
        unknown: dict[str, AccountAndRepo | None] = dict.fromkeys(missing)
        return {**self._known, **unknown, **found}

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_SECONDS:
            self._said = now
            rate = self.applied / (now - self._began)
            log.info("the database is at %d, %d events to go, %.0f a second", self.position, self.remaining, rate)


def _lost(segment_log: SegmentLog, position: int, until: int) -> int:
    """How many events after `position` the log may have had and no longer has."""
    segments = segment_log.segments
    if position >= until or not segments or segments[0].first_seq <= position + 1:
        return 0
    # Nothing was ever before the first segment but seqs that were passed over.
    return 0 if segments[0].previous == 0 else segments[0].first_seq - position - 1

"""Writes another relay's events into the log of this edge, as they are, and publishes them once they are durable.

The copier is fed by the source and is the log's one writer, as the sequencer is in a relay, but seqs come with the
events. `Hidden` keeps in SQL whose past events the log must not hand out, so that no start has to read the whole log.
Must not know of connections or consumers.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from relay.atproto.events import HIDING_STATUSES
from relay.atproto.frames import Kind, Peeked
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.record import FLAG_HIDES, Record
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import StoreError
from relay.store import projection
from relay.store.database import Database
from relay.store.projection import ProjectionBatch
from relay.stream.group_commit import GroupCommit
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail

FLUSH_SECONDS = 1.0

log = logging.getLogger(__name__)


def uid_of(did: str) -> int:
    """The number by which an edge knows an account, without a table: 63 bits of the DID's hash.

    Should two of the network's accounts ever share one, hiding the past of one hides the other's as well.
    """
    return int.from_bytes(hashlib.sha256(did.encode()).digest()[:8]) >> 1


class Copier:
    """The queue and the writer. `logged` is told how far the log is; `backfill`: an empty log begins with all that the
    upstream has.
    """

    def __init__(
        self,
        segment_log: SegmentLog,
        tail: Tail,
        suppressions: Suppressions,
        logged: Callable[[int], None],
        *,
        backfill: bool,
    ) -> None:
        self._log = segment_log
        self._logged = logged
        self._backfill = backfill
        self._last_seq = segment_log.last_seq
        self._commits: GroupCommit[tuple[Peeked, bytes]] = GroupCommit(
            "edge", segment_log, tail, suppressions, self._records_of, self._published
        )

    def on_failure(self, make_room: Callable[[], None]) -> None:
        """Have `make_room` called when the log cannot be written, which may be for want of room."""
        self._commits.make_room = make_room

    @property
    def problem(self) -> str | None:
        """Why nothing can be logged now, in words, or None."""
        return self._commits.problem

    @property
    def cursor(self) -> int | None:
        """The seq to go on after: of the newest event that was put, or that the log has."""
        return self._last_seq or (0 if self._backfill else None)

    def put(self, event: Peeked, frame: bytes) -> None:
        """Take one event; blocks while the queue is full. One whose seq does not rise is passed over."""
        if event.seq <= self._last_seq:
            metrics.EDGE_PASSED_OVER.labels("repeated").inc()
            return
        self._commits.put((event, frame), len(frame))
        self._last_seq = event.seq

    def start(self) -> None:
        """Start logging."""
        self._commits.start()

    def stop(self, timeout: float) -> None:
        """Log all that was put, within `timeout` seconds, then stop; the rest comes again from the upstream."""
        self._commits.stop(timeout)

    def _records_of(self, batch: list[tuple[Peeked, bytes]]) -> list[Record]:
        time_us = self._log.time_us()
        return [_record(event, frame, time_us) for event, frame in batch]

    def _published(self, _: list[tuple[Peeked, bytes]], records: list[Record]) -> None:
        self._logged(records[-1].seq)


def _record(event: Peeked, frame: bytes, time_us: int) -> Record:
    """`event` as the log keeps it; of no host and no upstream seq but its own.

    Its past stays hidden for good once it was: whether the upstream shows it again cannot be told from its events.
    """
    flags = FLAG_HIDES if event.kind is Kind.ACCOUNT and event.status in HIDING_STATUSES else 0
    return Record(event.seq, time_us, uid_of(event.did), 0, 0, event.kind, 0, flags, frame)


class Hidden:
    """The marks of `suppressions` in SQL, with the position in the log that they stand for.

    The log has the same in its flags, so what SQL lacks after a crash is read from there.
    """

    def __init__(self, db: Database, segment_log: SegmentLog, suppressions: Suppressions) -> None:
        """Bring `suppressions` up to the log. Blocks. Raises StoreError, LogError."""
        self._db = db
        self._changed: dict[int, int | None] = {}
        self._trouble: str | None = None
        self._loop = Loop("hidden", self.flush, FLUSH_SECONDS)
        suppressions.restore(db.read(projection.suppressions))
        suppressions.watch(self._note)
        position, _ = db.read(projection.position)
        self.stored_position = min(position, segment_log.last_seq)
        self.position = _apply(segment_log, suppressions, self.stored_position)

    @property
    def problem(self) -> str | None:
        """Why SQL falls behind, in words, or None."""
        return self._trouble or self._loop.problem

    def advance(self, position: int) -> None:
        """Everything up to `position` is in the log, and its marks are set."""
        self.position = position

    def start(self) -> None:
        """Start writing."""
        self._loop.start(after=FLUSH_SECONDS)

    def stop(self) -> None:
        """Stop after a last write; what it misses is in the log."""
        self._loop.stop()
        self.flush()

    def flush(self) -> None:
        """Write what changed. When SQL is away it is kept."""
        position, changed = self.position, self._changed
        if position == self.stored_position and not changed:
            return
        self._changed = {}
        batch = ProjectionBatch(
            position,
            position + 1,
            suppressed={uid: seq for uid, seq in changed.items() if seq is not None},
            unsuppressed={uid for uid, seq in changed.items() if seq is None},
        )
        try:
            self._db.write(projection.write, batch)
        except StoreError as error:
            self._changed = changed | self._changed
            self._trouble = f"database: {error}"
            log.warning("what is hidden is not written: %s", error)
            return
        self._trouble = None
        self.stored_position = position

    def _note(self, uid: int, before_seq: int | None) -> None:
        self._changed[uid] = before_seq


def _apply(segment_log: SegmentLog, suppressions: Suppressions, position: int) -> int:
    """Set the marks of the records after `position`; the log's last seq."""
    reader = LogReader(segment_log)
    seq = max(position, segment_log.first_seq - 1)
    while records := reader.read(seq):
        seq = records[-1].seq
        for record in records:
            if record.flags:
                suppressions.apply(record)
    return seq

"""Keeps in SQL whose past events an edge's log must not hand out, so that no start has to read the whole log.

Fed by the marks of `suppressions` and the copier's progress. The log has the same in its flags, so SQL may be away for
as long as it likes, or go back: what it lacks for events that are still there is read from the log, and what has left
the window needs no mark. Must not know of connections or consumers.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import islice

from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import StoreError
from relay.store import projection
from relay.store.database import Database, within
from relay.store.projection import PositionMoved, ProjectionBatch
from relay.stream.suppressions import Suppressions

FLUSH_SECONDS = 1.0
LAST_WRITE_SECONDS = 5.0
# Changes that wait for SQL. With more than that, all marks are written when it is back.
MAX_CHANGED = 100_000
# Rows of one transaction: a slow disk must get through with it in time.
ROWS_AT_A_TIME = 10_000

log = logging.getLogger(__name__)


class Hidden:
    """The marks of `suppressions` in SQL, with the position in the log that they stand for."""

    def __init__(self, db: Database, segment_log: SegmentLog, suppressions: Suppressions) -> None:
        """Bring `suppressions` up to the log. Blocks. Raises StoreError, LogError."""
        self._db = db
        self._suppressions = suppressions
        self._changed: dict[int, int | None] = {}
        # More changed than is kept.
        self._all_changed = False
        self._trouble: str | None = None
        self._loop = Loop("hidden", self.flush, FLUSH_SECONDS)
        suppressions.restore(db.read(projection.suppressions))
        suppressions.watch(self._note)
        position, _ = db.read(projection.position)
        # Where SQL may be: where it was left, or where a write would have left it of which no answer came.
        self._may_be_at = {position}
        self.stored_position = min(position, segment_log.last_seq)
        self.position = apply_after(segment_log, suppressions, self.stored_position)
        metrics.PROJECTION_LAG.set_function(lambda: self.position - self.stored_position)
        metrics.show_bound("edge-hidden", lambda: len(self._changed), MAX_CHANGED)

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
        """Stop after a last write, which is given some seconds; what it misses is in the log."""
        self._loop.stop()
        with suppress(StoreError), within(LAST_WRITE_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Write what changed. When SQL is away it is kept."""
        if self.position == self.stored_position and not (self._changed or self._all_changed):
            return
        # No switch until these are of the same moment.
        position, changed, all_changed = self.position, self._changed, self._all_changed
        self._changed, self._all_changed = {}, False
        if all_changed:
            changed = {**self._suppressions.marks(), **changed}
        try:
            self._write(changed, position)
        except PositionMoved as moved:
            self._note_moved(moved.found)
            return
        except BaseException as error:
            self._all_changed = self._all_changed or all_changed
            for uid, before_seq in changed.items() if not self._all_changed else ():
                if uid not in self._changed:
                    self._note(uid, before_seq)
            if not isinstance(error, StoreError):
                raise
            self._trouble = f"database: {error}"
            log.debug("what is hidden is not written: %s", error)
            return
        self._trouble = None
        self.stored_position = position

    def _write(self, changed: dict[int, int | None], position: int) -> None:
        """The position with the last of the pieces: until then a start reads from the log what is missing."""
        rest = iter(changed.items())
        left = len(changed)
        while True:
            piece = dict(islice(rest, ROWS_AT_A_TIME))
            left -= len(piece)
            reached = self.stored_position if left else position
            batch = ProjectionBatch(
                reached,
                reached + 1,
                suppressed={uid: seq for uid, seq in piece.items() if seq is not None},
                unsuppressed={uid for uid, seq in piece.items() if seq is None},
            )
            expected = frozenset(self._may_be_at)
            self._may_be_at.add(reached)
            self._db.write(projection.write, batch, expected)
            # Where SQL is ahead of the log, it stays so.
            self._may_be_at = {max(reached, at) for at in expected}
            if not left:
                return

    def _note_moved(self, found: int) -> None:
        """SQL is not where it was left: an older state of it lacks marks, and nothing tells which. The next write has
        them all, and a start until then reads from the log what is missing.
        """
        if found < self.stored_position:
            metrics.STORE_WENT_BACK.inc()
            log.error(
                "the database went back from %d to %d: it is told again what is hidden", self.stored_position, found
            )
        self._trouble = f"database: it is at {found}, and was left at {self.stored_position}"
        self._changed, self._all_changed = {}, True
        self._may_be_at = {found}
        self.stored_position = min(found, self.stored_position)

    def _note(self, uid: int, before_seq: int | None) -> None:
        if self._all_changed:
            return
        self._changed[uid] = before_seq
        if len(self._changed) > MAX_CHANGED:
            # Rows of marks that are gone stay: they hide nothing, and go with the next start.
            self._changed, self._all_changed = {}, True


def apply_after(segment_log: SegmentLog, suppressions: Suppressions, position: int) -> int:
    """Set the marks of the log's records after `position`; the log's last seq. Raises LogError."""
    reader = LogReader(segment_log)
    seq = max(position, segment_log.first_seq - 1)
    while records := reader.read(seq):
        seq = records[-1].seq
        for record in records:
            if record.flags:
                suppressions.apply(record)
    return seq

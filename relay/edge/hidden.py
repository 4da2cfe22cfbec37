"""Keeps in SQL whose past events the log of an edge must not hand out, so that no start has to read the whole log.

Opened and run by `edge_app`, told by the copier how far the log is. The log has the same in its flags, so what SQL
lacks after a crash is read from there. Must not know of frames or connections.
"""

from __future__ import annotations

import logging

import gevent

from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.kit.errors import StoreError
from relay.store import projection
from relay.store.database import Database
from relay.store.projection import ProjectionBatch
from relay.stream.suppressions import Suppressions

FLUSH_SECONDS = 1.0

log = logging.getLogger(__name__)


class Hidden:
    """The marks of `suppressions` in SQL, with the position in the log that they stand for."""

    def __init__(self, db: Database, segment_log: SegmentLog, suppressions: Suppressions) -> None:
        """Bring `suppressions` up to the log. Blocks. Raises StoreError, LogError."""
        self.problem: str | None = None
        self._db = db
        self._changed: dict[int, int | None] = {}
        self._greenlet: gevent.Greenlet[[], None] | None = None
        suppressions.restore(db.read(projection.suppressions))
        suppressions.watch(self._note)
        position, _ = db.read(projection.position)
        self.stored_position = min(position, segment_log.last_seq)
        self.position = _apply(segment_log, suppressions, self.stored_position)

    def advance(self, position: int) -> None:
        """Everything up to `position` is in the log, and its marks are set."""
        self.position = position

    def start(self) -> None:
        """Start writing."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop after a last write; what it misses is in the log."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=FLUSH_SECONDS)
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
            self.problem = f"database: {error}"
            log.warning("what is hidden is not written: %s", error)
            return
        self.problem = None
        self.stored_position = position

    def _note(self, uid: int, before_seq: int | None) -> None:
        self._changed[uid] = before_seq

    def _run(self) -> None:
        while True:
            gevent.sleep(FLUSH_SECONDS)
            try:
                self.flush()
            except Exception as error:
                self.problem = f"hidden: {error}"
                log.exception("writing what is hidden failed")


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

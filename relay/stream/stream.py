"""Builds the room over an open log: brings SQL up to it, and starts and stops what runs, in order.

Used by `app` and by tests that need the whole room. Holds no logic of the event path.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from relay.eventlog.log import SegmentLog
from relay.eventlog.retention import Keep, Retention
from relay.store.database import Database
from relay.stream import ownership
from relay.stream.catch_up import CatchUp
from relay.stream.checkpoint import Checkpoint, Checkpoints
from relay.stream.cursors import CursorBook
from relay.stream.decisions import Decisions
from relay.stream.firehose import Firehose
from relay.stream.projector import Projector
from relay.stream.recovery import recover
from relay.stream.sequencer import Sequencer
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail

log = logging.getLogger(__name__)


class Stream:
    """The room's parts, recovered but not yet started. SQL that lacks much is brought up to the log while they run."""

    def __init__(self, segment_log: SegmentLog, db: Database, keep: Keep) -> None:
        """Raises StoreError, LogError."""
        self.log = segment_log
        self.suppressions = Suppressions()
        self.cursors = CursorBook(segment_log)
        log_ids = ownership.claim(segment_log, db)
        # Before cursors are looked for: hosts may be among them.
        self.decisions = Decisions(segment_log.directory, db)
        recovered = recover(segment_log, db, self.cursors, self.suppressions, log_ids)
        self._next_uid = recovered.next_uid
        self.projector = Projector(
            db,
            self.cursors,
            self.suppressions,
            recovered.position,
            recovered.replay_from,
            partial(CatchUp, segment_log, db),
            log_ids,
        )
        self.projector.note_lost(recovered.lost)
        if recovered.behind is not None:
            self.projector.follow(recovered.behind, prepared=True)
        self.tail = Tail(segment_log.last_seq, self.suppressions)
        self._checkpoints = Checkpoints(segment_log.directory, self._checkpoint, segment_log.last_seq)
        self.projector.began_anew = self._checkpoints.write
        self.firehose = Firehose(segment_log, self.tail, self.suppressions)
        self.sequencer = Sequencer(segment_log, self.tail, self.projector, self.suppressions)
        self.retention = Retention(
            segment_log,
            keep,
            # What a restart would need, for SQL or for the cursors of hosts.
            lambda: min(self.projector.unstored_from, self.projector.stored_replay_from),
            self.firehose.trimmed,
            lambda: self.projector.unstored_from,
        )
        self.sequencer.on_failure(self.retention.wake)

    @property
    def problem(self) -> str | None:
        """What is wrong, in words, or None."""
        disk = self._checkpoints.problem or self.decisions.problem
        return self.sequencer.problem or disk or self.projector.problem

    @property
    def warning(self) -> str | None:
        """What is lost for good, in words, or None."""
        return self.projector.warning

    @property
    def next_uid(self) -> int:
        """Above every uid ever used, once SQL is brought up to the log."""
        return max(self._next_uid, self.projector.max_uid + 1)

    def _checkpoint(self) -> Checkpoint:
        # No switch in here: all of it must be of the same moment.
        return Checkpoint(self.tail.head, self.cursors.replay_from(), self.cursors.all(), self.suppressions.marks())

    def start(self) -> None:
        """Start logging, projecting and trimming."""
        self._checkpoints.start()
        self.decisions.start()
        self.projector.start()
        self.sequencer.start()
        self.retention.start()

    def drain(self, timeout: float) -> None:
        """Log and publish what was submitted, within `timeout` seconds; nothing may be submitted from now on."""
        if not self.sequencer.stop(timeout):
            log.error("events were not logged in time; their hosts will send them again")

    def stop(self, timeout: float) -> None:
        """Drain, write the projection, and close the log. Takes `timeout` seconds at most, and a little."""
        deadline = time.monotonic() + timeout
        self.retention.stop()
        self.drain(timeout)

        def left(part: float = 1.0) -> float:
            return max(part * (deadline - time.monotonic()), 1.0)

        # A disk that hangs in a small file leaves the projection and the log their time.
        self._checkpoints.stop(left(0.25))
        self.decisions.stop(left(0.25))
        self.projector.stop(left())
        self.firehose.close()
        self.sequencer.close_log(left())

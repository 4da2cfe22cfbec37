"""Writes another relay's events into the log of this edge, as they are, and publishes them once they are durable.

Fed by the source; the one writer of the log, as the sequencer is in a relay, but seqs come with the events. Must not
know of connections, consumers or SQL.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from relay.atproto.events import HIDING_STATUSES
from relay.atproto.frames import Kind
from relay.atproto.passing import Passed
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import FLAG_HIDES, Record
from relay.eventlog.writer import encode_block
from relay.kit import metrics
from relay.stream.durable import DurableLog
from relay.stream.group_commit import QUEUE_BYTES, QUEUE_EVENTS, Batches
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail


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
        self._tail = tail
        self._suppressions = suppressions
        self._logged = logged
        self._backfill = backfill
        self._last_seq = segment_log.last_seq
        self._disk = DurableLog(segment_log)
        self._batches = batches = Batches("edge", self._disk, self._log_batch)
        metrics.QUEUE_SIZE.labels("edge").set_function(lambda: len(batches))
        metrics.QUEUE_CAPACITY.labels("edge").set(QUEUE_EVENTS)
        metrics.QUEUE_SIZE.labels("edge-bytes").set_function(lambda: batches.bytes)
        metrics.QUEUE_CAPACITY.labels("edge-bytes").set(QUEUE_BYTES)

    @property
    def problem(self) -> str | None:
        """Why nothing can be logged now, in words, or None."""
        return self._batches.problem

    @property
    def cursor(self) -> int | None:
        """The seq to go on after: of the newest event that was put, or that the log has."""
        return self._last_seq or (0 if self._backfill else None)

    def put(self, event: Passed, frame: bytes) -> None:
        """Take one event; blocks while the queue is full. One whose seq does not rise is passed over."""
        if event.seq <= self._last_seq:
            metrics.EDGE_PASSED_OVER.labels("repeated").inc()
            return
        self._batches.put((event, frame), len(frame))
        self._last_seq = event.seq

    def start(self) -> None:
        """Start logging."""
        self._batches.start()

    def stop(self, timeout: float) -> None:
        """Log all that was put, within `timeout` seconds, then stop; the rest comes again from the upstream."""
        self._batches.stop(timeout)

    def _log_batch(self, batch: list[tuple[Passed, bytes]]) -> None:
        # The clock may be set back; the time in the log never is.
        time_us = max(time.time_ns() // 1000, self._log.last_time_us)
        records = [_record(event, frame, time_us) for event, frame in batch]
        self._disk.write(encode_block(records))
        for record in records:
            if record.flags:
                self._suppressions.apply(record)
        self._tail.publish(records)
        self._logged(records[-1].seq)
        metrics.LOG_BATCH_EVENTS.observe(len(batch))
        for event, _ in batch:
            _EVENTS_LOGGED[event.kind].inc()


def _record(event: Passed, frame: bytes, time_us: int) -> Record:
    """`event` as the log keeps it; of no host and no upstream seq but its own.

    Its past stays hidden for good once it was: whether the upstream shows it again cannot be told from its events.
    """
    flags = FLAG_HIDES if event.kind is Kind.ACCOUNT and event.status in HIDING_STATUSES else 0
    return Record(event.seq, time_us, uid_of(event.did), 0, 0, event.kind, 0, flags, frame)


_EVENTS_LOGGED = {kind: metrics.EVENTS_LOGGED.labels(kind.name.lower()) for kind in Kind}

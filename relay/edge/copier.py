"""Writes another relay's events into the log of this edge, as they are, and publishes them once they are durable.

The copier is fed by the source and is the log's one writer, as the sequencer is in a relay, but seqs come with the
events. Must not know of connections or consumers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from relay.atproto.events import HIDING_STATUSES
from relay.atproto.frames import Kind, Peeked
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import FLAG_HIDES, Record
from relay.kit import metrics
from relay.stream.group_commit import GroupCommit, record_times
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
        self._logged = logged
        self._backfill = backfill
        self._last_seq = segment_log.last_seq
        self._commits: GroupCommit[tuple[Peeked, bytes]] = GroupCommit(
            "edge", segment_log, tail, suppressions, self._records_of, self._published
        )

    def on_failure(self, make_room: Callable[[], None]) -> None:
        """Have `make_room` called when the log cannot be written, which may be for lack of room."""
        self._commits.make_room = make_room

    @property
    def problem(self) -> str | None:
        """Why nothing can be logged now, in words, or None."""
        return self._commits.problem

    @property
    def cursor(self) -> int | None:
        """The seq to go on after: of the newest event that was put, or that the log has."""
        return self._last_seq or (0 if self._backfill else None)

    def put(self, event: Peeked, frame: bytes) -> bool:
        """Take one event; blocks while the queue is full. False for one that is passed over: its seq does not rise."""
        if event.seq <= self._last_seq:
            metrics.EDGE_PASSED_OVER.labels("repeated").inc()
            return False
        self._commits.put((event, frame), len(frame))
        self._last_seq = event.seq
        return True

    def start(self) -> None:
        """Start logging."""
        self._commits.start()

    def stop(self, timeout: float) -> None:
        """Log all that was put, within `timeout` seconds, then stop; the rest comes again from the upstream."""
        self._commits.stop(timeout)

    def close_log(self, timeout: float) -> None:
        """Close the log within `timeout` seconds; it is left as it is when the disk does not answer."""
        self._commits.close_log(timeout)

    def _records_of(self, batch: list[tuple[Peeked, bytes]]) -> list[Record]:
        times = record_times(self._log, (frame for _, frame in batch))
        return [_record(event, frame, time_us) for (event, frame), time_us in zip(batch, times, strict=True)]

    def _published(self, _: list[tuple[Peeked, bytes]], records: list[Record]) -> None:
        self._logged(records[-1].seq)


def _record(event: Peeked, frame: bytes, time_us: int) -> Record:
    """`event` as the log keeps it; of no host and no upstream seq but its own.

    Its past stays hidden for good once it was: whether the upstream shows it again cannot be told from its events.
    """
    flags = FLAG_HIDES if event.kind is Kind.ACCOUNT and event.status in HIDING_STATUSES else 0
    return Record(event.seq, time_us, uid_of(event.did), 0, 0, event.kind, 0, flags, frame)

"""The single writer: gives events their seq, makes them durable in batches, and only then lets anyone see them.

Accepted events come from the partitions and from admins. Per batch: number, write and sync off the hub, publish,
project, and tell the sender. Never in another order. Must not know of hosts, consumers or SQL.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

from relay.atproto.frames import Kind, uint
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import Record
from relay.eventlog.writer import encode_block
from relay.kit import metrics
from relay.store.accounts import AccountRow, RepoRow
from relay.stream.durable import DurableLog
from relay.stream.group_commit import QUEUE_BYTES, QUEUE_EVENTS, Batches
from relay.stream.projector import Projector
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail

WAIT_SECONDS = 1.0

log = logging.getLogger(__name__)


class Entry:
    """What the log takes: an accepted event of a host, or an announcement of the relay's own.

    Before it is submitted it says: `uid`; `status`, the index in `events.STATUSES` of what the host says of the
    account; `head` and `tail`, its frame around `seq` (`frames.split_at_seq`). `account` and `repo` are the rows that
    the event changes, `collections` is what it tells of collections (`changes.told_by`). `hides`: with this `#account`
    event the account's past becomes unreadable. `host_id` and `upstream_seq` are 0 for the relay's own.
    """

    __slots__ = (
        "account",
        "collections",
        "head",
        "hides",
        "host_id",
        "kind",
        "repo",
        "status",
        "tail",
        "uid",
        "upstream_seq",
    )

    uid: int
    status: int
    head: bytes
    tail: bytes

    def __init__(self, kind: Kind, host_id: int = 0, upstream_seq: int = 0) -> None:
        self.kind = kind
        self.host_id = host_id
        self.upstream_seq = upstream_seq
        self.account: AccountRow | None = None
        self.repo: RepoRow | None = None
        self.collections: Mapping[str, bool | None] | None = None
        self.hides = False

    def logged(self) -> None:
        """Called once the event is durable and published."""


class Submission(Entry):
    """An entry that calls `finished` when it is logged."""

    __slots__ = ("finished",)

    def __init__(
        self,
        kind: Kind,
        uid: int,
        host_id: int,
        upstream_seq: int,
        status: int,
        head: bytes,
        tail: bytes,
        account: AccountRow | None,
        repo: RepoRow | None,
        finished: Callable[[], None] | None,
        hides: bool = False,
        collections: Mapping[str, bool | None] | None = None,
    ) -> None:
        super().__init__(kind, host_id, upstream_seq)
        self.uid, self.status, self.head, self.tail = uid, status, head, tail
        self.account, self.repo, self.hides, self.collections = account, repo, hides, collections
        self.finished = finished

    def logged(self) -> None:
        """Tell whoever submitted it."""
        if self.finished is not None:
            self.finished()


class Sequencer:
    """Owns the order of all events."""

    def __init__(self, log: SegmentLog, tail: Tail, projector: Projector, suppressions: Suppressions) -> None:
        self._log = log
        self._disk = DurableLog(log)
        self._tail = tail
        self._projector = projector
        self._suppressions = suppressions
        self._batches = batches = Batches("sequencer", self._disk, self._log_batch, self._wait_for_sql)
        metrics.QUEUE_SIZE.labels("sequencer").set_function(lambda: len(batches))
        metrics.QUEUE_CAPACITY.labels("sequencer").set(QUEUE_EVENTS)
        metrics.QUEUE_SIZE.labels("sequencer-bytes").set_function(lambda: batches.bytes)
        metrics.QUEUE_CAPACITY.labels("sequencer-bytes").set(QUEUE_BYTES)

    @property
    def problem(self) -> str | None:
        """Why nothing can be logged now, in words, or None."""
        return self._batches.problem

    def submit(self, item: Entry) -> None:
        """Take one event; blocks while the queue is full. Events come out in the order in which this returns."""
        self._batches.put(item, len(item.head) + len(item.tail))

    def start(self) -> None:
        """Start logging."""
        self._batches.start()

    def stop(self, timeout: float) -> bool:
        """Log all that was submitted, then stop. False when `timeout` seconds were not enough; the rest is dropped,
        unfinished, and comes again from its hosts.
        """
        return self._batches.stop(timeout)

    def _wait_for_sql(self) -> None:
        while not self._projector.wait_for_room(WAIT_SECONDS):
            pass

    def _log_batch(self, batch: list[Entry]) -> None:
        records = self._number(batch)
        self._disk.write(encode_block(records))
        self._publish(batch, records)

    def _number(self, batch: list[Entry]) -> list[Record]:
        # The clock may be set back; the time in the log never is.
        time_us = max(time.time_ns() // 1000, self._log.last_time_us)
        return [
            Record(
                seq,
                time_us,
                item.uid,
                item.host_id,
                item.upstream_seq,
                item.kind,
                item.status,
                self._suppressions.flags_for(item.uid, item.hides) if item.kind == Kind.ACCOUNT else 0,
                b"".join((item.head, uint(seq), item.tail)),
            )
            for seq, item in enumerate(batch, self._log.next_seq)
        ]

    def _publish(self, batch: list[Entry], records: list[Record]) -> None:
        for record in records:
            if record.flags:
                self._suppressions.apply(record)
        self._tail.publish(records)
        self._projector.add(
            records[-1].seq,
            [item.account for item in batch if item.account is not None],
            [item.repo for item in batch if item.repo is not None],
            [(item.uid, item.collections) for item in batch if item.collections],
        )
        metrics.LOG_BATCH_EVENTS.observe(len(batch))
        for kind, count in Counter(item.kind for item in batch).items():
            _EVENTS_LOGGED[kind].inc(count)
        for item in batch:
            try:
                item.logged()
            except Exception:
                log.exception("after logging an event of uid %d", item.uid)


_EVENTS_LOGGED = {kind: metrics.EVENTS_LOGGED.labels(kind.name.lower()) for kind in Kind}

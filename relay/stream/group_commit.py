"""The log's one writer: takes events in batches, makes each batch durable off the hub, and only then publishes it.

Used by the sequencer of a relay and by the copier of an edge, which say what the records of a batch are. Callers of
`put` wait while the queue is full; the hub never waits for the disk, however long that is full or broken. Must not know
of hosts or SQL, or more of a frame than how many operations it has.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import gevent
from gevent.event import Event as Signal

from relay.atproto.events import Kind
from relay.atproto.frames import MAX_OPS, op_count
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import Record
from relay.eventlog.writer import Block, encode_block
from relay.kit import metrics
from relay.kit.errors import LogError
from relay.stream.disk_thread import DiskThread
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail

QUEUE_EVENTS = 4096
QUEUE_BYTES = 32 << 20
BATCH_EVENTS = 512
BATCH_BYTES = 1 << 20
WAIT_SECONDS = 1.0
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

# Batches start at least this far apart, unless the next one is full: each costs a sync, and a chunk for every consumer.
# With so many events that a batch is large, fewer batches are enough.
BATCH_SECONDS = 0.01
LARGE_BATCH_EVENTS = 32
LARGE_BATCH_SECONDS = 0.025

# A disk that takes longer than this for one batch counts as broken.
HUNG_SECONDS = 3.0

# How often the newest seq that was given out is stored.
NOTE_SECONDS = 0.5

T = TypeVar("T")
log = logging.getLogger(__name__)


class GroupCommit(Generic[T]):
    """The queue and the greenlet that works through it, one batch after the other, in order.

    `records_of` gives the records of a batch; `published` gets both once consumers may have them; `ready` is called
    before each batch is taken, and may block. `name` is the label of its metrics, `bytes` what is queued.
    """

    def __init__(
        self,
        name: str,
        segment_log: SegmentLog,
        tail: Tail,
        suppressions: Suppressions,
        records_of: Callable[[list[T]], list[Record]],
        published: Callable[[list[T], list[Record]], None],
        ready: Callable[[], None] | None = None,
    ) -> None:
        # Called when a batch could not be written, which may be for lack of room.
        self.make_room: Callable[[], None] = _nothing
        # Called with each batch; once it returns, the batch may be written and published.
        self.replicate: Callable[[Block], None] | None = None
        self.bytes = 0
        self._name = name
        self._log = segment_log
        self._tail = tail
        self._suppressions = suppressions
        self._records_of = records_of
        self._published = published
        self._ready = ready
        # Why nothing can be written now; why nothing can until a restart.
        self._trouble: str | None = None
        self._death: str | None = None
        self._note_at = 0.0
        # One native thread: the log is written by one at a time.
        self._disk = DiskThread("log", HUNG_SECONDS)
        self._queue: deque[tuple[T, int]] = deque()
        self._filled = Signal()
        self._batch_filled = Signal()
        # Callers that wait for room, in order: what was judged before a takedown must be in the log before it.
        self._blocked: deque[Signal] = deque()
        self._idle = Signal()
        self._idle.set()
        self._greenlet: gevent.Greenlet[[], None] | None = None
        metrics.show_bound(name, lambda: len(self._queue), QUEUE_EVENTS)
        metrics.show_bound(f"{name}-bytes", lambda: self.bytes, QUEUE_BYTES)

    @property
    def problem(self) -> str | None:
        """Why nothing can be logged now, in words, or None."""
        return self._death or self._trouble or self._disk.problem

    def put(self, item: T, size: int) -> None:
        """Take one event of `size` bytes; blocks while the queue is full. Events come out in the order of the calls."""
        if self._blocked or len(self._queue) >= QUEUE_EVENTS or self.bytes >= QUEUE_BYTES:
            self._wait_for_room()
        self._queue.append((item, size))
        self.bytes += size
        if len(self._queue) == 1:
            self._idle.clear()
            self._filled.set()
        if self._batch_is_full:
            self._batch_filled.set()

    def start(self) -> None:
        """Start logging."""
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.link_exception(self._note_death)

    def stop(self, timeout: float) -> bool:
        """Log everything that was put, then stop. False when `timeout` seconds were not enough; the rest is dropped."""
        if self._greenlet is None:
            return self._idle.is_set()
        drained = bool(self._idle.wait(timeout))
        self._greenlet.kill(timeout=WAIT_SECONDS)
        self._greenlet = None
        return drained

    def close_log(self, timeout: float) -> None:
        """Close the log, after what is being written. A disk that takes longer than `timeout` seconds is left behind;
        the log then counts as one that was not closed.
        """
        slow = LogError("log-io", f"the disk has not answered for {timeout:.0f} s")
        try:
            with gevent.Timeout(timeout, slow):
                self._disk.run(self._log.close)
        except LogError as error:
            log.error("the log was not closed properly: %s", error)

    def _run(self) -> None:
        while True:
            if not self._queue:
                self._idle.set()
                self._filled.clear()
                self._filled.wait(WAIT_SECONDS)
                continue
            started = time.monotonic()
            if self._ready is not None:
                self._ready()
            batch = self._take()
            self._commit(batch)
            apart = LARGE_BATCH_SECONDS if len(batch) >= LARGE_BATCH_EVENTS else BATCH_SECONDS
            left = started + apart - time.monotonic()
            if left > 0 and not self._batch_is_full:
                self._batch_filled.clear()
                self._batch_filled.wait(left)
            else:
                gevent.sleep(0)

    def _commit(self, batch: list[T]) -> None:
        """Write, sync, publish, report: never in another order."""
        records = self._records_of(batch)
        block = encode_block(records)
        if self.replicate is not None:
            self.replicate(block)
        self._write(block)
        for record in records:
            if record.flags:
                self._suppressions.apply(record)
        self._tail.publish(records)
        metrics.LOG_BATCH_EVENTS.observe(len(records))
        for kind, count in Counter([record.kind for record in records]).items():
            _EVENTS_LOGGED[kind].inc(count)
        self._published(batch, records)
        if time.monotonic() >= self._note_at:
            self._disk.run(self._log.note_given_out)
            self._note_at = time.monotonic() + NOTE_SECONDS

    def _write(self, block: Block) -> None:
        """Return once `block` is on the disk."""
        attempt = 0
        while (error := self._failure(block)) is not None:
            self._trouble = f"log: {error}"
            metrics.LOG_FAILURES.inc()
            self.make_room()
            if attempt == 0:
                log.error("the log cannot be written, and events wait: %s", error)
            gevent.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1
        if attempt:
            log.info("the log can be written again, after %d attempts", attempt)
        self._trouble = None

    def _failure(self, block: Block) -> Exception | None:
        try:
            self._disk.run(self._log.write, block)
        except Exception as error:
            return error.with_traceback(None)
        return None

    def _take(self) -> list[T]:
        batch: list[T] = []
        taken = 0
        while self._queue and len(batch) < BATCH_EVENTS and taken < BATCH_BYTES:
            item, size = self._queue.popleft()
            batch.append(item)
            taken += size
        self.bytes -= taken
        self._call_next()
        return batch

    @property
    def _batch_is_full(self) -> bool:
        return self.bytes >= BATCH_BYTES or len(self._queue) >= BATCH_EVENTS

    @property
    def _full(self) -> bool:
        return len(self._queue) >= QUEUE_EVENTS or self.bytes >= QUEUE_BYTES

    def _wait_for_room(self) -> None:
        turn = Signal()
        self._blocked.append(turn)
        try:
            while self._blocked[0] is not turn or self._full:
                turn.clear()
                turn.wait(WAIT_SECONDS)
        finally:
            self._blocked.remove(turn)
            # The next one runs, and looks for room, after this caller has taken its own.
            self._call_next()

    def _call_next(self) -> None:
        if self._blocked:
            self._blocked[0].set()

    def _note_death(self, greenlet: gevent.Greenlet[[], None]) -> None:
        # A bug. The log is intact, but only a restart helps, and the health check must say so.
        self._death = f"{self._name}: {greenlet.exception!r}"
        log.critical("the %s has crashed, and only a restart helps: %r", self._name, greenlet.exception)


def record_times(segment_log: SegmentLog, frames: Iterable[bytes]) -> list[int]:
    """The times of a batch's records, in microseconds: now, and after everything in the log.

    Each operation has a time of its own, so that a time names one message of the JSON stream. The beginnings of the
    frames are enough.
    """
    # The log does not keep how many operations its last event has.
    time_us = max(segment_log.time_us(), segment_log.last_time_us + MAX_OPS)
    times = []
    for frame in frames:
        times.append(time_us)
        time_us += op_count(frame)
    return times


_EVENTS_LOGGED = {kind.value: metrics.EVENTS_LOGGED.labels(kind.name.lower()) for kind in Kind}


def _nothing() -> None:
    pass

"""The pace of the log's one writer: a bounded queue, taken in batches that are as large as they get within some time.

Used by the sequencer, and by the copier of an edge. Whoever puts waits while the queue is full. Must not know what is
in the queue or what becomes of a batch.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import gevent
from gevent.event import Event as Signal

from relay.stream.durable import DurableLog

QUEUE_EVENTS = 4096
QUEUE_BYTES = 32 << 20
BATCH_EVENTS = 512
BATCH_BYTES = 1 << 20
WAIT_SECONDS = 1.0

# Batches start at least this far apart, unless they are full: consumers cost by the chunk, and so does a sync.
BATCH_SECONDS = 0.01

T = TypeVar("T")
log = logging.getLogger(__name__)


class Batches(Generic[T]):
    """The queue and the greenlet that hands its batches to `log_batch`, one after the other and in order.

    `ready` is called before each batch is taken, and may block. `name` is whose they are, `bytes` what is queued.
    """

    def __init__(
        self, name: str, disk: DurableLog, log_batch: Callable[[list[T]], None], ready: Callable[[], None] | None = None
    ) -> None:
        self._name = name
        self._disk = disk
        self._log_batch = log_batch
        self._ready = ready
        self._death: str | None = None
        self._queue: deque[tuple[T, int]] = deque()
        self.bytes = 0
        self._filled = Signal()
        self._room = Signal()
        self._idle = Signal()
        self._idle.set()
        self._greenlet: gevent.Greenlet[[], None] | None = None

    @property
    def problem(self) -> str | None:
        """Why nothing can be logged now, in words, or None."""
        return self._death or self._disk.problem

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, item: T, size: int) -> None:
        """Take one event of `size` bytes; blocks while the queue is full. They come out in the order of returning."""
        while len(self._queue) >= QUEUE_EVENTS or self.bytes >= QUEUE_BYTES:
            self._room.clear()
            self._room.wait(WAIT_SECONDS)
        self._queue.append((item, size))
        self.bytes += size
        self._idle.clear()
        self._filled.set()

    def start(self) -> None:
        """Start logging."""
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.link_exception(self._note_death)

    def stop(self, timeout: float) -> bool:
        """Log all that was put, then stop. False when `timeout` seconds were not enough; the rest is dropped."""
        if self._greenlet is None:
            return self._idle.is_set()
        drained = bool(self._idle.wait(timeout))
        self._greenlet.kill(timeout=WAIT_SECONDS)
        self._greenlet = None
        return drained

    def _run(self) -> None:
        while True:
            if not self._queue:
                self._idle.set()
                self._filled.clear()
                self._filled.wait(min(self._disk.sync_seconds, WAIT_SECONDS))
                self._disk.sync_if_due()
                continue
            started = time.monotonic()
            if self._ready is not None:
                self._ready()
            self._log_batch(self._take())
            self._disk.sync_if_due()
            pause = 0.0 if self._queue else started + BATCH_SECONDS - time.monotonic()
            gevent.sleep(max(pause, 0.0))

    def _note_death(self, greenlet: gevent.Greenlet[[], None]) -> None:
        # A bug: the log is as it was, but only a restart helps, and the health check must say so.
        self._death = f"{self._name}: {greenlet.exception!r}"
        log.critical("the %s has ended: %r", self._name, greenlet.exception)

    def _take(self) -> list[T]:
        batch: list[T] = []
        taken = 0
        while self._queue and len(batch) < BATCH_EVENTS and taken < BATCH_BYTES:
            item, size = self._queue.popleft()
            batch.append(item)
            taken += size
        self.bytes -= taken
        self._room.set()
        return batch

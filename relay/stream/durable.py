"""Brings blocks into the log, off the hub, however long the disk is full or broken, and syncs it when that is due.

Used by the one writer of a log: the sequencer, or the copier of an edge. `problem` says in words why nothing can be
written now. Must not know what is in a block.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import gevent
from gevent.threadpool import ThreadPool

from relay.eventlog.log import SegmentLog
from relay.eventlog.writer import Block
from relay.kit import metrics

# How often the disk is synced in mode `interval`.
SYNC_SECONDS = 0.1
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

log = logging.getLogger(__name__)


class DurableLog:
    """A log behind one native thread: it is written by one at a time, and the hub never waits for the disk."""

    def __init__(self, segment_log: SegmentLog) -> None:
        self.problem: str | None = None
        self._log = segment_log
        self._pool = ThreadPool(1)
        self._next_sync = 0.0

    @property
    def sync_seconds(self) -> float:
        """How far apart `sync_if_due` may be called at most."""
        return SYNC_SECONDS if self._log.sync_mode == "interval" else math.inf

    def write(self, block: Block) -> None:
        """Return once `block` is in the log."""
        attempt = 0
        while (error := self._in_thread(lambda: self._log.write(block))) is not None:
            self.problem = f"log: {error}"
            metrics.LOG_FAILURES.inc()
            if attempt == 0:
                log.error("the log cannot be written, events wait: %s", error)
            gevent.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1
        if attempt:
            log.warning("the log can be written again, after %d attempts", attempt)
        self.problem = None

    def sync_if_due(self) -> None:
        """In mode `interval`, bring what was written to the disk."""
        now = time.monotonic()
        if self._log.sync_mode == "interval" and now >= self._next_sync:
            self._next_sync = now + SYNC_SECONDS
            error = self._in_thread(self._log.sync)
            self.problem = None if error is None else f"log: {error}"

    def close(self) -> None:
        """End the thread."""
        self._pool.kill()

    def _in_thread(self, work: Callable[[], None]) -> Exception | None:
        """What went wrong: gevent would print an exception that leaves its thread."""

        def attempt() -> Exception | None:
            try:
                work()
            except Exception as error:
                return error
            return None

        result: Exception | None = self._pool.apply(attempt)
        return result

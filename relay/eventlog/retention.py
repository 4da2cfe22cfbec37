"""Deletes what is out of the replay window, once a minute.

Run by whoever opened the log. Must not know who writes or reads it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import gevent
from gevent.threadpool import ThreadPool

from relay.eventlog.log import SegmentLog
from relay.kit import metrics
from relay.stream.suppressions import Suppressions

TRIM_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """What replay keeps: `window` in seconds, `max_bytes` in all (0: no bound)."""

    window: float
    max_bytes: int


class Janitor:
    """Trims a log. `keep_from` gives the first seq that must stay whatever its age, since it is in no database yet."""

    def __init__(
        self,
        segment_log: SegmentLog,
        retention: Retention,
        suppressions: Suppressions,
        keep_from: Callable[[], int],
    ) -> None:
        self._log = segment_log
        self._suppressions = suppressions
        self._retention = retention
        self._keep_from = keep_from
        self._pool = ThreadPool(1)
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Begin to trim."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Trim no more."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=1.0)

    def trim(self) -> None:
        """Delete what is out of the replay window, once. Blocks on the disk."""
        now_us = time.time_ns() // 1000
        window, max_bytes = self._retention.window, self._retention.max_bytes
        try:
            removed = self._log.trim(now_us, window, max_bytes, self._keep_from())
            metrics.LOG_BYTES.set(self._log.bytes())
        except OSError as error:
            log.error("the log was not trimmed: %s", error)
        else:
            if removed:
                log.info("removed %d segments; the log now starts at %d", removed, self._log.first_seq)

    def tidy(self) -> None:
        """Delete what is out of the replay window, and forget which accounts' events are hidden in what was."""
        first_seq = self._log.first_seq
        self._pool.apply(self.trim)
        # One round late: a feed may hold a block that was read before it was deleted.
        self._suppressions.forget_before(first_seq)

    def _run(self) -> None:
        while True:
            self.tidy()
            gevent.sleep(TRIM_SECONDS)

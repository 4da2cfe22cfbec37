"""Deletes what is out of the replay window, once a minute.

Run by whoever opened the log. Must not know who writes or reads it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from gevent.threadpool import ThreadPool

from relay.eventlog.log import SegmentLog
from relay.kit import metrics
from relay.kit.background import Loop, in_thread

TRIM_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keep:
    """What replay keeps: `window` in seconds, `max_bytes` in all (0: no bound)."""

    window: float
    max_bytes: int


class Retention:
    """Trims a log. `keep_from` gives the first seq that must stay whatever its age, since it is in no database yet;
    `trimmed` is told the seq with which the log began before the latest round.
    """

    def __init__(
        self, segment_log: SegmentLog, keep: Keep, keep_from: Callable[[], int], trimmed: Callable[[int], None]
    ) -> None:
        self._log = segment_log
        self._keep = keep
        self._keep_from = keep_from
        self._trimmed = trimmed
        self._pool = ThreadPool(1)
        self._loop = Loop("retention", self.tidy, TRIM_SECONDS)

    def start(self) -> None:
        """Begin to trim."""
        self._loop.start()

    def stop(self) -> None:
        """Trim no more."""
        self._loop.stop()

    def trim(self) -> None:
        """Delete what is out of the replay window, once. Blocks on the disk."""
        now_us = time.time_ns() // 1000
        try:
            removed = self._log.trim(now_us, self._keep.window, self._keep.max_bytes, self._keep_from())
            metrics.LOG_BYTES.set(self._log.bytes())
        except OSError as error:
            log.error("the log was not trimmed: %s", error)
        else:
            if removed:
                log.info("removed %d segments; the log now starts at %d", removed, self._log.first_seq)

    def tidy(self) -> None:
        """Delete what is out of the replay window, and say from where on the log was readable until now."""
        first_seq = self._log.first_seq
        in_thread(self._pool, self.trim)
        # One round late: a feed may hold a block that was read before it was deleted.
        self._trimmed(first_seq)

"""Deletes what is out of the replay window, once a minute.

Run by whoever opened the log. Must not know who writes or reads it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from gevent.threadpool import ThreadPool

from relay.eventlog import spare
from relay.eventlog.log import SegmentLog
from relay.kit import metrics
from relay.kit.background import Loop, in_thread

TRIM_SECONDS = 60.0
MIN_FREE_BYTES = 2 << 30

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keep:
    """What replay keeps: `window` in seconds, `max_bytes` in all (0: no bound).

    `min_free` are the bytes that stay free on the disk, to which the oldest events go first. 0: none; None: 5 % of the
    disk or 2 GiB, whichever is less.
    """

    window: float
    max_bytes: int
    min_free: int | None = 0


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

    def wake(self) -> None:
        """Trim now: the disk may be full."""
        self._loop.wake()

    def stop(self) -> None:
        """Trim no more."""
        self._loop.stop()

    def trim(self) -> None:
        """Delete what is out of the replay window, once. Blocks on the disk."""
        try:
            removed = self._log.trim(self._keep.window, self._max_bytes(), self._keep_from())
            metrics.LOG_BYTES.set(self._log.bytes())
            if removed:
                log.info("removed %d segments; the log now starts at %d", removed, self._log.first_seq)
            spare.set_aside(self._log.directory)
        except OSError as error:
            log.error("the log was not trimmed: %s", error)

    def tidy(self) -> None:
        """Delete what is out of the replay window, and say from where on the log was readable until now."""
        first_seq = self._log.first_seq
        in_thread(self._pool, self.trim)
        # One round late: a feed may hold a block that was read before it was deleted.
        self._trimmed(first_seq)

    def _max_bytes(self) -> int:
        """The bound of the log by the operator's word and by what is free. Raises OSError."""
        most, directory = self._keep.max_bytes, self._log.directory
        disk = os.statvfs(directory)
        wanted = self._keep.min_free
        if wanted is None:
            wanted = min(disk.f_blocks * disk.f_frsize // 20, MIN_FREE_BYTES)
        lacking = wanted - spare.free_bytes(directory)
        if lacking <= 0:
            return most
        log.warning("the disk of the log has %d MB less than has to stay free: the oldest events go", lacking >> 20)
        room = max(self._log.bytes() - lacking, 1)
        return min(most, room) if most else room

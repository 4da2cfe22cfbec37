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
# How many times the window the log waits for what is not settled.
PATIENCE = 2

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

    `unsettled_from` gives the first seq that must stay although no host's cursor is past it. What is before it lets
    cursors tell what is new after a restart, so it stays for twice the window, but not where the disk is nearly full.
    """

    def __init__(
        self,
        segment_log: SegmentLog,
        keep: Keep,
        keep_from: Callable[[], int],
        trimmed: Callable[[int], None],
        unsettled_from: Callable[[], int] | None = None,
    ) -> None:
        self._log = segment_log
        self._keep = keep
        self._keep_from = keep_from
        self._trimmed = trimmed
        self._unsettled_from = unsettled_from
        # Whether it was said that the disk lacks room: while it is full, each attempt to write asks for some.
        self._said_lacking = False
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
            lacking = self._lacking()
            in_time = self._log.trim(self._keep.window, self._keep.max_bytes, self._keep_from())
            early = self._make_room(lacking, self._keep_from()) if lacking > 0 else 0
            metrics.LOG_TRIMMED_EARLY.inc(early)
            unsettled = self._trim_unsettled()
            removed = in_time + early + unsettled
            metrics.LOG_BYTES.set(self._log.bytes())
            if removed:
                log.info("deleted %d segments; the log now begins at %d", removed, self._log.first_seq)
            spare.set_aside(self._log.directory)
        except OSError as error:
            log.error("the log was not trimmed: %s", error)

    def tidy(self) -> None:
        """Delete what is out of the replay window, and say from where on the log was readable until now."""
        first_seq = self._log.first_seq
        in_thread(self._pool, self.trim)
        # One round late: a feed may hold a block that was read before it was deleted.
        self._trimmed(first_seq)

    def _trim_unsettled(self) -> int:
        """Give up waiting for events that hosts' cursors are held by. Returns how many segments went."""
        if self._unsettled_from is None:
            return 0
        keep_from = self._unsettled_from()
        removed = self._log.trim(PATIENCE * self._keep.window, 0, keep_from)
        if (lacking := self._lacking()) > 0:
            removed += self._make_room(lacking, keep_from)
        if removed:
            metrics.LOG_TRIMMED_UNSETTLED.inc(removed)
            log.warning(
                "deleted %d segments in which a host's cursor waited: after a restart it may send some events again",
                removed,
            )
        return removed

    def _make_room(self, lacking: int, keep_from: int) -> int:
        return self._log.trim(self._keep.window, max(self._log.bytes() - lacking, 1), keep_from)

    def _lacking(self) -> int:
        """How many bytes must come free for as much to stay free as has to. Raises OSError."""
        directory = self._log.directory
        disk = os.statvfs(directory)
        wanted = self._keep.min_free
        if wanted is None:
            wanted = min(disk.f_blocks * disk.f_frsize // 20, MIN_FREE_BYTES)
        lacking = wanted - spare.free_bytes(directory)
        if lacking > 0 and not self._said_lacking:
            log.warning(
                "the log's disk lacks %d MB of what has to stay free: the oldest events are deleted", lacking >> 20
            )
        self._said_lacking = lacking > 0
        return lacking

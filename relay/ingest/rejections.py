"""Counts and logs what is dropped, so that an operator can tell why a host's or an account's events are missing.

Told by partitions and subscribers. The counter sees every drop; the log is limited per host and reason, since a
hostile host must not fill the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from cachetools import TTLCache

from relay.kit import metrics

LINES_PER_WINDOW = 10
WINDOW_SECONDS = 60.0
CAPACITY = 10_000

# Ordinary in any replay after a reconnect: counted, but no line in the log.
QUIET = frozenset({"rev-old", "duplicate"})

DropObserver = Callable[[str, str], None]

log = logging.getLogger(__name__)


class Rejections:
    """The drop counter by reason, the log lines, and whoever else wants to know of drops per host."""

    def __init__(self, observer: DropObserver | None = None) -> None:
        """`observer(hostname, reason)` hears of every drop that is not quiet."""
        self._observer = observer
        # Shown as 0 from the start: a counter that begins at 1 has not risen for Prometheus, and its alert is silent.
        self._counters = {"internal-error": metrics.EVENTS_DROPPED.labels("internal-error")}
        self._lines: TTLCache[tuple[str, str], int] = TTLCache(CAPACITY, WINDOW_SECONDS)
        metrics.QUEUE_CAPACITY.labels("drop-lines").set(CAPACITY)

    def note(self, hostname: str, reason: str, did: str | None, seq: int | None, detail: str = "") -> None:
        """One event of `hostname` was dropped for `reason`."""
        counter = self._counters.get(reason)
        if counter is None:
            counter = self._counters[reason] = metrics.EVENTS_DROPPED.labels(reason)
        counter.inc()
        if reason in QUIET:
            return
        if self._observer is not None:
            self._observer(hostname, reason)
        lines = self._lines.get((hostname, reason), 0)
        if lines < LINES_PER_WINDOW:
            self._lines[hostname, reason] = lines + 1
            # From the hub: a TTLCache forgets as its length is asked, and a scrape comes from another thread.
            metrics.QUEUE_SIZE.labels("drop-lines").set(len(self._lines))
            more = " (further ones of this host and reason are not logged for a minute)"
            log.warning(
                "event rejected: reason=%s host=%s did=%s seq=%s %s%s",
                reason, hostname, did, seq, detail, more if lines + 1 == LINES_PER_WINDOW else "",
            )  # fmt: skip

"""Counts and logs what is dropped, so that an operator can tell why a host's or an account's events are missing.

Told by partitions and subscribers. The counter sees every drop; the log is limited per host and reason, since a
hostile host must not fill the disk.
"""

from __future__ import annotations

import logging
import time

from relay.hosts.host import Host
from relay.kit import metrics
from relay.kit.limits import Tally

LINES_PER_WINDOW = 10
WINDOW_SECONDS = 60.0
CAPACITY = 10_000

# Ordinary in any replay after a reconnect: counted, but no line in the log.
QUIET = frozenset({"rev-old", "duplicate"})

log = logging.getLogger(__name__)


class Rejections:
    """The drop counter by reason, the count of each host, and the log lines."""

    def __init__(self) -> None:
        # Shown as 0 from the start: a counter that begins at 1 has not risen for Prometheus, and its alert is silent.
        self._counters = {"internal-error": metrics.EVENTS_DROPPED.labels("internal-error")}
        self._lines: Tally[tuple[int, str]] = Tally(WINDOW_SECONDS, CAPACITY)
        metrics.show_bound("drop-lines", lambda: len(self._lines), CAPACITY)

    def note(self, host: Host, reason: str, did: str | None, seq: int | None, detail: str = "") -> None:
        """One event of `host` was dropped for `reason`."""
        counter = self._counters.get(reason)
        if counter is None:
            counter = self._counters[reason] = metrics.EVENTS_DROPPED.labels(reason)
        counter.inc()
        if reason in QUIET:
            return
        host.drops.note(reason, time.time())
        lines = self._lines.add((host.id, reason), time.monotonic())
        if lines <= LINES_PER_WINDOW:
            more = " (further ones of this host and reason are not logged for a minute)"
            log.warning(
                "event rejected: reason=%s host=%s did=%s seq=%s %s%s",
                reason, host.hostname, did, seq, detail, more if lines == LINES_PER_WINDOW else "",
            )  # fmt: skip

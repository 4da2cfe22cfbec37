"""Where the memory is: allocations by line, objects by type, what is in the caches; for finding a leak.

Made by `app` when RELAY_DEBUG_MEMORY is set, asked by an admin route and at the end of a run. Tracing costs every
allocation time and memory, so it is never on by itself. Must not know of routes or of what the objects are for.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from typing import Any

import gevent
from gevent.lock import Semaphore

from relay.kit import metrics
from relay.kit.own_process import resident_bytes

LINES = 30
TYPES = 40
WAIT_SECONDS = 60.0


class MemoryDebug:
    """Traces allocations from when it is made."""

    def __init__(self) -> None:
        tracemalloc.start()
        self._previous: tracemalloc.Snapshot | None = None
        self._one_at_a_time = Semaphore()

    def report(self) -> dict[str, Any] | None:
        """Where the memory is now, and what grew since the last report. None when another one takes too long.

        Blocks for seconds when there is much to count; a native thread counts, and slows everything else meanwhile.
        """
        if not self._one_at_a_time.acquire(timeout=WAIT_SECONDS):
            return None
        try:
            report: dict[str, Any] = gevent.get_hub().threadpool.apply(self._report)
            return report
        finally:
            self._one_at_a_time.release()

    def stop(self) -> None:
        """Trace no more."""
        tracemalloc.stop()

    def _report(self) -> dict[str, Any]:
        snapshot = tracemalloc.take_snapshot()
        previous, self._previous = self._previous, snapshot
        traced, peak = tracemalloc.get_traced_memory()
        return {
            "traced_bytes": traced,
            "traced_peak_bytes": peak,
            "tracing_bytes": tracemalloc.get_tracemalloc_memory(),
            "resident_bytes": resident_bytes(),
            "lines": [_line(entry, entry.size, entry.count) for entry in snapshot.statistics("lineno")[:LINES]],
            "grown_since_last_report": _growth(snapshot, previous) if previous else [],
            "objects": dict(Counter(type(found).__qualname__ for found in gc.get_objects()).most_common(TYPES)),
            "gc": {"thresholds": gc.get_threshold(), "frozen": gc.get_freeze_count(), "generations": gc.get_stats()},
            "queues": _queues(),
        }


def _growth(snapshot: tracemalloc.Snapshot, previous: tracemalloc.Snapshot) -> list[dict[str, Any]]:
    changes = snapshot.compare_to(previous, "lineno")
    grown = sorted(changes, key=lambda change: change.size_diff, reverse=True)[:LINES]
    return [_line(change, change.size_diff, change.count_diff) for change in grown if change.size_diff > 0]


def _line(entry: tracemalloc.Statistic | tracemalloc.StatisticDiff, size: int, count: int) -> dict[str, Any]:
    return {"line": str(entry.traceback), "bytes": size, "count": count}


def _queues() -> dict[str, dict[str, float]]:
    """What is in the bounded queues, caches and sets, and their bounds."""
    found: dict[str, dict[str, float]] = {}
    for gauge, key in ((metrics.QUEUE_SIZE, "size"), (metrics.QUEUE_CAPACITY, "capacity")):
        for labels, value in metrics.readings(gauge):
            found.setdefault(labels["queue"], {})[key] = value
    return found

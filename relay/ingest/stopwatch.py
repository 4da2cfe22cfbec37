"""Times one event in 32 through its stages: often enough for a histogram, and too seldom to cost anything.

The intake asks for one per event, the partition ends the stages. Knows nothing of events.
"""

from __future__ import annotations

import time

from relay.kit import metrics

EVENTS_PER_SAMPLE = 32

_STAGES = {stage: metrics.EVENT_STAGE_SECONDS.labels(stage) for stage in ("queued", "parked", "judged", "logged")}


class Stopwatch:
    """One event's way: `queued` until it is looked at, `parked` with each errand, `judged` with verification, `logged`
    until it is durable and published.
    """

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = time.monotonic()

    def end(self, stage: str) -> None:
        """`stage` has ended, and the next one begins."""
        now = time.monotonic()
        _STAGES[stage].observe(now - self._since)
        self._since = now


class Sampler:
    """Gives a stopwatch to one event in EVENTS_PER_SAMPLE."""

    def __init__(self) -> None:
        self._events = 0

    def next(self) -> Stopwatch | None:
        """The stopwatch of the next event, if it gets one."""
        self._events += 1
        return None if self._events % EVENTS_PER_SAMPLE else Stopwatch()

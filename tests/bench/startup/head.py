"""How far a consumer at the head is behind the log while the relay catches up.

Used by `tests.bench.startup`, which samples what was logged and what the consumer has seen; pure but for the clock.
"""

from __future__ import annotations

import time
from typing import NamedTuple


class Sample(NamedTuple):
    """Seconds, and events since the start."""

    at: float
    logged: float
    seen: float


class Watch:
    """Samples of one start, in order."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._moved_at = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """For how long neither number has risen."""
        return time.monotonic() - self._moved_at

    def sample(self, logged: float, seen: float, at: float | None = None) -> None:
        """Take both numbers down; `logged` must not be younger than `seen`."""
        now = time.monotonic() if at is None else at
        if not self._samples or (logged, seen) != self._samples[-1][1:]:
            self._moved_at = now
        self._samples.append(Sample(now, logged, seen))

    def behind_seconds(self) -> float:
        """The longest time from when an event was known to be logged to when the consumer had it, to the interval of
        the samples. What was logged before the consumer came does not count: the last sample must be one in which it
        has all that came since.
        """
        if not self._samples:
            return 0.0
        last = self._samples[-1]
        before = last.logged - last.seen
        longest, later = 0.0, 0
        for sample in self._samples:
            while self._samples[later].seen + before < sample.logged:
                later += 1
            longest = max(longest, self._samples[later].at - sample.at)
        return longest

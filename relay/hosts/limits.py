"""How fast a host may send: sliding windows over a second, an hour and a day.

The subscriber asks before it handles a message and waits as long as it is told; nothing is dropped. Pure arithmetic:
the clock is passed in, in milliseconds, so that a limit is not a burst at each full second.
"""

from __future__ import annotations

from typing import NamedTuple

MILLISECONDS = {"second": 1_000, "hour": 3_600_000, "day": 86_400_000}
TRUSTED_ACCOUNT_LIMIT = 10_000_000


class Rates(NamedTuple):
    """Most messages of one host per second, hour and day."""

    second: int
    hour: int
    day: int


TRUSTED_RATES = Rates(5_000, 50_000_000, 500_000_000)


def rates_for(account_limit: int, trusted: bool) -> Rates:
    """The reference relay's formula: a base for everyone, more for hosts that may have many accounts."""
    if trusted:
        return TRUSTED_RATES
    return Rates(50 + account_limit // 1_000, 2_500 + account_limit, 20_000 + 10 * account_limit)


class Window:
    """One sliding window of `span` milliseconds, kept as the counts of two fixed ones.

    What slid out of the earlier one is taken to have been spread evenly: two integers a tier instead of a timestamp
    an event, for thousands of hosts.
    """

    __slots__ = ("_count", "_index", "_previous", "_span")

    def __init__(self, span: int, index: int = 0, previous: int = 0, count: int = 0) -> None:
        self._span = span
        self._index = index
        self._previous = previous
        self._count = count

    @property
    def state(self) -> tuple[int, int, int]:
        """(index, previous, count): with the span, all there is to keep of a window over a restart."""
        return self._index, self._previous, self._count

    def add(self, now: int) -> None:
        """Count one event at `now`."""
        self._slide(now)
        self._count += 1

    def used(self, now: int) -> float:
        """Events within the span before `now`."""
        self._slide(now)
        return self._previous * (1 - (now % self._span) / self._span) + self._count

    def wait(self, now: int, limit: int) -> int:
        """Milliseconds until one more event fits under `limit`; 0 when it fits now."""
        if limit <= 0:
            return self._span
        if self.used(now) + 1 <= limit:
            return 0
        elapsed = now % self._span
        if self._count + 1 <= limit:
            # Enough of the earlier window has to slide out.
            needed = self._span * (1 - (limit - self._count - 1) / self._previous)
            return max(1, int(needed - elapsed) + 1)
        needed = self._span * (1 - (limit - 1) / self._count)
        return self._span - elapsed + int(needed) + 1

    def _slide(self, now: int) -> None:
        index = now // self._span
        # A clock that is set back must not forget what was sent: the window then stands until time has caught up.
        if index <= self._index:
            return
        self._previous = self._count if index == self._index + 1 else 0
        self._count = 0
        self._index = index


class Limiter:
    """The three windows of one host."""

    __slots__ = ("_day", "_hour", "_second")

    def __init__(self) -> None:
        self._second = Window(MILLISECONDS["second"])
        self._hour = Window(MILLISECONDS["hour"])
        self._day = Window(MILLISECONDS["day"])

    def take(self, now: int, rates: Rates) -> tuple[int, str]:
        """Count one message, or say how long to wait for it first.

        `(0, "")` when it is counted; else the milliseconds to wait and the tier whose limit is reached.
        """
        wait, tier = max(
            (self._second.wait(now, rates.second), "second"),
            (self._hour.wait(now, rates.hour), "hour"),
            (self._day.wait(now, rates.day), "day"),
        )
        if wait:
            return wait, tier
        self._second.add(now)
        self._hour.add(now)
        self._day.add(now)
        return 0, ""

    def last_day(self, now: int) -> float:
        """Messages counted in the day before `now`, since the relay started."""
        return self._day.used(now)

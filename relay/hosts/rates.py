"""How fast one host may send: sliding windows over a second, an hour and a day, and indigo's formula for their limits.

A host's Limiter is asked by its subscriber before each message, through `Host`; whoever bounds what happens in a day
(new hosts, requests to crawl) keeps a Window of its own. Must not know what is counted.
"""

from __future__ import annotations

from typing import NamedTuple

MILLISECONDS = {"second": 1_000, "hour": 3_600_000, "day": 86_400_000}


class Window:
    """One sliding window of `span` milliseconds, kept as the counts of two fixed ones.

    What slid out of the earlier one is taken to have been spread evenly: two integers for each tier instead
    of a timestamp for each event, for thousands of hosts.
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

    def add(self, now: int, amount: int = 1) -> None:
        """Count `amount` events at `now`."""
        self._slide(now)
        self._count += amount

    def take(self, now: int, limit: int) -> int:
        """Count one event if it fits under `limit`: 0, or the milliseconds to wait for that."""
        span, count = self._span, self._count
        if now // span == self._index and self._previous * (1 - now % span / span) + count + 1 <= limit:
            self._count = count + 1
            return 0
        wait = self.wait(now, limit)
        if not wait:
            self._count += 1
        return wait

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
        # A clock that is set back must not forget what was sent: the window then stands until time has caught up. What
        # was counted by one that was far ahead counts as of now, or it would stand for as long.
        if index < self._index - 1:
            self._index = index
        if index <= self._index:
            return
        self._previous = self._count if index == self._index + 1 else 0
        self._count = 0
        self._index = index


class Rates(NamedTuple):
    """The maximum number of messages of one host per second, hour and day."""

    second: int
    hour: int
    day: int


TRUSTED_RATES = Rates(5_000, 50_000_000, 500_000_000)


def rates_for(account_limit: int, trusted: bool) -> Rates:
    """The reference relay's formula: a base for everyone, more for hosts that may have many accounts."""
    if trusted:
        return TRUSTED_RATES
    return Rates(50 + account_limit // 1_000, 2_500 + account_limit, 20_000 + 10 * account_limit)


class Limiter:
    """How fast one host may send: sliding windows over a second, an hour and a day. Nothing is dropped.

    The clock is passed in, in milliseconds, so that a limit is not a burst at each full second.
    """

    __slots__ = ("_day", "_free", "_hour", "_rates", "_second", "_uncounted", "_until")

    def __init__(self) -> None:
        self._second = Window(MILLISECONDS["second"])
        self._hour = Window(MILLISECONDS["hour"])
        self._day = Window(MILLISECONDS["day"])
        # `_free` more messages fit under the slower limits until `_until`, as long as the rates do not change: what was
        # counted can only slide out. The messages taken since then are `_uncounted` there.
        self._free = 0
        self._until = 0
        self._rates: Rates | None = None
        self._uncounted = 0

    def take(self, now: int, rates: Rates) -> tuple[int, str]:
        """Count one message, or say how long to wait for it first.

        `(0, "")` when it is counted; else the milliseconds to wait and the tier whose limit is reached.
        """
        if self._free <= 0 or now >= self._until or rates is not self._rates:
            self._look_at_slower(now, rates)
        if self._free <= 0:
            return max(
                (self._second.wait(now, rates.second), "second"),
                (self._hour.wait(now, rates.hour), "hour"),
                (self._day.wait(now, rates.day), "day"),
            )
        wait = self._second.take(now, rates.second)
        if wait:
            return wait, "second"
        self._free -= 1
        self._uncounted += 1
        return 0, ""

    def last_day(self, now: int) -> float:
        """Messages counted in the day before `now`, since the relay started."""
        self._count()
        return self._day.used(now)

    def _look_at_slower(self, now: int, rates: Rates) -> None:
        self._count()
        self._free = int(min(rates.hour - self._hour.used(now), rates.day - self._day.used(now)))
        self._until = (now // MILLISECONDS["hour"] + 1) * MILLISECONDS["hour"]
        self._rates = rates

    def _count(self) -> None:
        """Count in the slower windows what has come: all of it in the hour that ends at `_until`."""
        if self._uncounted:
            self._hour.add(self._until - 1, self._uncounted)
            self._day.add(self._until - 1, self._uncounted)
            self._uncounted = 0

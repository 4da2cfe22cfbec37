"""Limits: how often something may happen, for one thing or for each of very many.

Used by every room that bounds what others cause. Pure arithmetic: the time is passed in, in seconds of any clock that
does not go back; a Window counts in milliseconds.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, KeysView
from typing import Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)


class Pace:
    """A token bucket that tells how long to wait: `per_second` on average, up to `burst` at once."""

    __slots__ = ("_burst", "_free_at", "_interval")

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval = 1.0 / per_second
        self._burst = burst
        self._free_at = 0.0

    def reserve(self, now: float) -> float:
        """Take one turn; the seconds to wait until it comes."""
        self._free_at = max(self._free_at, now - (self._burst - 1) * self._interval)
        wait = max(0.0, self._free_at - now)
        self._free_at += self._interval
        return wait

    def hold(self, now: float, seconds: float) -> None:
        """No turn comes for `seconds`, because the other side asked for it."""
        self._free_at = max(self._free_at, now + seconds)


class Paces(Generic[K]):
    """A Pace for each key. Bounded: of more than `capacity` keys, the one not asked for longest starts afresh."""

    def __init__(self, per_second: float, burst: int, capacity: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._paces: LRUCache[K, Pace] = LRUCache(capacity)

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._paces)

    def reserve(self, key: K, now: float) -> float:
        """Take one turn of `key`; the seconds to wait until it comes."""
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = Pace(self._per_second, self._burst)
        return pace.reserve(now)


class Allowance(Generic[K]):
    """A token bucket for each key: `burst` at once, then one every `interval` seconds. Never waits.

    Bounded: of more than `capacity` keys, the one not asked for longest starts afresh.
    """

    def __init__(self, burst: int, interval: float, capacity: int) -> None:
        self._burst = burst
        self._interval = interval
        self._full_at: LRUCache[K, float] = LRUCache(capacity)

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._full_at)

    def take(self, key: K, now: float) -> bool:
        """Whether `key` has a token left; takes it."""
        full_at = max(self._full_at.get(key, now), now) + self._interval
        if full_at - now > self._burst * self._interval:
            return False
        self._full_at[key] = full_at
        return True

    def has(self, key: K, now: float) -> bool:
        """Whether `key` has a token left."""
        return max(self._full_at.get(key, now), now) + self._interval - now <= self._burst * self._interval


class Tally(Generic[K]):
    """How often something happened to each key, in a window of `span` seconds that begins with its first time.

    A count never makes its window longer. Bounded: of more than `capacity` keys, the oldest window goes first.
    `len` may be asked from another thread.
    """

    def __init__(self, span: float, capacity: int) -> None:
        self._span = span
        self._capacity = capacity
        # Key to (end of its window, count), in the order in which the windows end.
        self._windows: OrderedDict[K, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._windows)

    def keys(self) -> KeysView[K]:
        """The keys that are remembered, at any time, also those whose window has ended."""
        return self._windows.keys()

    def add(self, key: K, now: float, amount: int = 1) -> int:
        """Count `amount` for `key`; the count of its window so far."""
        self._end_windows(now)
        end, count = self._windows.get(key, (now + self._span, 0))
        self._windows[key] = end, count + amount
        if len(self._windows) > self._capacity:
            self._windows.popitem(last=False)
        return count + amount

    def count(self, key: K, now: float) -> int:
        """What was counted for `key` in the window that is open now."""
        end, count = self._windows.get(key, (now, 0))
        return count if end > now else 0

    def ends_in(self, key: K, now: float) -> float:
        """Seconds until the window of `key` ends; 0 when none is open."""
        end, _ = self._windows.get(key, (now, 0))
        return max(0.0, end - now)

    def forget(self, key: K) -> None:
        """Begin anew for `key`."""
        self._windows.pop(key, None)

    def _end_windows(self, now: float) -> None:
        while self._windows:
            key = next(iter(self._windows))
            if self._windows[key][0] > now:
                return
            del self._windows[key]


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


class Places(Generic[K]):
    """How many things are under way at a time, in total and for each key; those of no key count in total only."""

    def __init__(self, total: int, per_key: int) -> None:
        self._total = total
        self._per_key = per_key
        self._taken = 0
        self._keys: Counter[K] = Counter()

    def __len__(self) -> int:
        """Places that are taken."""
        return self._taken

    def take(self, key: K | None) -> bool:
        """Take a place for `key`, which has to be given back; False when there is none."""
        if self._taken >= self._total or (key is not None and self._keys[key] >= self._per_key):
            return False
        self._taken += 1
        if key is not None:
            self._keys[key] += 1
        return True

    def give_back(self, key: K | None) -> None:
        """A thing of `key` is over."""
        self._taken -= 1
        if key is not None:
            self._keys[key] -= 1
            if not self._keys[key]:
                del self._keys[key]

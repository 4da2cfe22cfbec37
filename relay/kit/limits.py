"""Limits: how often something may happen, for one thing or for each of very many.

Used by every room that bounds what others cause. Pure arithmetic: the time is passed in, in seconds of any clock that
does not go back.
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
    """A Pace for each key. Bounded: of more than `capacity` keys, the least recently used starts afresh."""

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

    Bounded: of more than `capacity` keys, the least recently used starts afresh.
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

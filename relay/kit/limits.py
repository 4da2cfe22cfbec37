"""Limits: how often something may happen, for one thing or for each of very many.

Used by every room that bounds what others cause. Pure arithmetic: the time is passed in, in seconds of any clock that
does not go back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, KeysView
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# More than the one key that each use may add.
FORGOTTEN_AT_ONCE = 2
# Of a token: sums of seconds are rounded, and the last one of a burst must not be lost for that.
ROUNDING = 0.001


class Pace:
    """A token bucket that tells how long to wait: `per_second` on average, up to `burst` at once."""

    __slots__ = ("_burst", "_free_at", "_interval")

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval = 1.0 / per_second
        self._burst = burst
        self._free_at = 0.0

    def reserve(self, now: float, turns: int = 1) -> float:
        """Take `turns`; the seconds to wait until the last of them comes."""
        self._free_at = max(self._free_at, now - (self._burst - 1) * self._interval)
        wait = max(0.0, self._free_at + (turns - 1) * self._interval - now)
        self._free_at += turns * self._interval
        return wait

    def hold(self, now: float, seconds: float) -> None:
        """No turn comes for `seconds`, because the other side asked for it."""
        self._free_at = max(self._free_at, now + seconds)

    def rested(self, now: float) -> bool:
        """Whether its whole burst is there, as if it were new."""
        return self._free_at <= now - (self._burst - 1) * self._interval


class Paces(Generic[K]):
    """A Pace for each key. Bounded: of more than `capacity` keys, the least recently used starts afresh.

    Keys that have rested are forgotten as others are used.
    """

    def __init__(self, per_second: float, burst: int, capacity: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._capacity = capacity
        # The least recently used first.
        self._paces: OrderedDict[K, Pace] = OrderedDict()

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._paces)

    def reserve(self, key: K, now: float, turns: int = 1) -> float:
        """Take `turns` of `key`; the seconds to wait until the last of them comes."""
        return self._used(key, now).reserve(now, turns)

    def hold(self, key: K, now: float, seconds: float) -> None:
        """No turn of `key` comes for `seconds`, because the other side asked for it."""
        self._used(key, now).hold(now, seconds)

    def _used(self, key: K, now: float) -> Pace:
        pace = self._paces.pop(key, None) or Pace(self._per_second, self._burst)
        _make_room(self._paces, self._capacity, lambda other: other.rested(now))
        self._paces[key] = pace
        return pace


class Allowance(Generic[K]):
    """A token bucket for each key: `burst` at once, then one every `interval` seconds. Never waits.

    Bounded: of more than `capacity` keys, the least recently used starts afresh. Keys whose tokens are all there again
    are forgotten as others are used.
    """

    def __init__(self, burst: int, interval: float, capacity: int) -> None:
        self._burst = burst
        self._interval = interval
        self._capacity = capacity
        # When all tokens are there; the least recently used first.
        self._full_at: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._full_at)

    def take(self, key: K, now: float) -> bool:
        """Whether `key` has a token left; takes it."""
        full_at = max(self._full_at.pop(key, now), now)
        left = self._left(full_at, now)
        _make_room(self._full_at, self._capacity, lambda full_at: full_at <= now)
        self._full_at[key] = full_at + self._interval if left else full_at
        return left

    def give_back(self, key: K) -> None:
        """Return a token of `key` that was taken and not used."""
        if key in self._full_at:
            self._full_at[key] -= self._interval

    def has(self, key: K, now: float) -> bool:
        """Whether `key` has a token left."""
        return self._left(max(self._full_at.get(key, now), now), now)

    def _left(self, full_at: float, now: float) -> bool:
        return full_at - now <= (self._burst - 1 + ROUNDING) * self._interval


def _make_room(kept: OrderedDict[K, V], capacity: int, is_over: Callable[[V], bool]) -> None:
    """Forget the least recently used keys: what is over, and one of as many as `capacity`."""
    for _ in range(FORGOTTEN_AT_ONCE):
        if not kept:
            return
        oldest = next(iter(kept))
        if len(kept) < capacity and not is_over(kept[oldest]):
            return
        del kept[oldest]


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

    def taken_by(self, key: K) -> int:
        """Places that `key` has."""
        return self._keys.get(key, 0)

    def give_back(self, key: K | None) -> None:
        """A thing of `key` is over."""
        self._taken -= 1
        if key is not None:
            self._keys[key] -= 1
            if not self._keys[key]:
                del self._keys[key]

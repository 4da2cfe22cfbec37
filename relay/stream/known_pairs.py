"""Remembers which (account, collection) pairs SQL has, so that the thousandth post is not written as the first was.

Used by the projector alone. Bounded: two generations of pairs, of which the older one goes when the newer is full.
"""

from __future__ import annotations

CAPACITY = 250_000


class KnownPairs:
    """The pairs used most recently: `capacity` of them at least, twice as many at most, 70 bytes each.

    A pair is kept as its hash, 64 bits of a keyed function that nobody outside can aim at; a new pair would be taken
    for a known one once in 10^13.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._newer: set[int] = set()
        self._older: set[int] = set()

    def add(self, pair: tuple[int, str]) -> bool:
        """Remember `pair`; True when it was not known."""
        key = hash(pair)
        if key in self._newer:
            return False
        if len(self._newer) >= self._capacity:
            self._older, self._newer = self._newer, set()
        self._newer.add(key)
        return key not in self._older

    def discard(self, pair: tuple[int, str]) -> None:
        """Forget `pair`: the next event that tells of it is written."""
        key = hash(pair)
        self._newer.discard(key)
        self._older.discard(key)

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

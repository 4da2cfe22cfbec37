"""The memory that the filters of all consumers may take together, and what is kept of what they say.

A filter of ten thousand DIDs takes more than a megabyte, and every consumer may have one; the update that brings it is
kept until it is read. Each has a small room of its own, whatever others have; what is beyond comes out of one room for
all, of which an address may have half. `routes` asks before the upgrade; the `Place` of a consumer takes and gives
back. Must not know of sockets.
"""

from __future__ import annotations

from collections import Counter

from relay.jsonstream.filters import Filter
from relay.kit import metrics
from relay.kit.errors import RelayError
from relay.web.callers import counted_as

# About 100 DIDs.
OWN_BYTES = 16 << 10
# About 90 consumers with ten thousand DIDs each.
CAPACITY_BYTES = 128 << 20


class FiltersFull(RelayError):
    """There is no room for a filter of this length. Reason `filters-full`."""

    def __init__(self) -> None:
        super().__init__("filters-full", "no room for so long a filter or message now: ask for less, or later")


class FilterRoom:
    """`bytes` are taken by what is beyond each consumer's own."""

    def __init__(self, capacity: int = CAPACITY_BYTES) -> None:
        self.bytes = 0
        self._capacity = capacity
        self._of_address: Counter[str] = Counter()
        metrics.show_bound("json-filter-bytes", lambda: self.bytes, capacity)

    def check(self, address: str, wanted: Filter) -> None:
        """Raise FiltersFull if a new consumer could not have this filter now."""
        self._check(counted_as(address), _beyond_own(wanted.size))

    def change(self, key: str, before: int, after: int) -> None:
        """Let a consumer have `after` bytes in the place of `before`. Raises FiltersFull."""
        more = after - before
        self._check(key, more)
        self.bytes += more
        self._of_address[key] += more
        if not self._of_address[key]:
            del self._of_address[key]

    def _check(self, key: str, more: int) -> None:
        full = self.bytes + more > self._capacity or self._of_address[key] + more > self._capacity // 2
        if more > 0 and full:
            raise FiltersFull


class Place:
    """What one consumer has of the room. Whoever made it closes it."""

    __slots__ = ("_filter", "_held", "_key", "_room", "_taken")

    def __init__(self, room: FilterRoom, address: str) -> None:
        self._room = room
        self._key = counted_as(address)
        # Bytes of the filter, of what is said, and of both together what is taken of the room.
        self._filter = self._held = self._taken = 0

    def take(self, wanted: Filter) -> None:
        """Have room for this filter alone. Raises FiltersFull, and keeps what it had."""
        self._become(wanted.size, self._held)

    def hold(self, size: int) -> None:
        """Have room for so many bytes of what the consumer says. Raises FiltersFull."""
        if size != self._held:
            self._become(self._filter, size)

    def close(self) -> None:
        """Give everything back."""
        self._become(0, 0)

    def _become(self, of_filter: int, held: int) -> None:
        taken = _beyond_own(of_filter + held)
        self._room.change(self._key, self._taken, taken)
        self._filter, self._held, self._taken = of_filter, held, taken


def _beyond_own(size: int) -> int:
    return max(0, size - OWN_BYTES)

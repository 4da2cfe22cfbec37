"""Which host is to be dialled next, and when.

The fleet's dispatcher takes hosts from here in the order in which they are due, a bounded number at a time: that
order is what makes dialling fair. Holds host ids and times only; the clock is passed in.
"""

from __future__ import annotations

import heapq


class Schedule:
    """At most one due time per host. Bounded by the number of hosts."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def set(self, host_id: int, due: float) -> None:
        """Dial the host at `due` (seconds, monotonic), whatever was planned before."""
        self._due[host_id] = due
        heapq.heappush(self._heap, (due, host_id))
        # Entries that were planned anew stay in the heap until they surface; too many of them are swept out.
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(when, host) for host, when in self._due.items()]
            heapq.heapify(self._heap)

    def cancel(self, host_id: int) -> None:
        """Do not dial the host until `set` is called again."""
        self._due.pop(host_id, None)

    def due(self, host_id: int) -> float | None:
        """When the host is to be dialled, if it is."""
        return self._due.get(host_id)

    def next_due(self) -> float | None:
        """The earliest due time, if any."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> int | None:
        """The id of the host that has been due the longest, taken out; None when none is due."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, host_id = heapq.heappop(self._heap)
        del self._due[host_id]
        return host_id

    def __len__(self) -> int:
        return len(self._due)

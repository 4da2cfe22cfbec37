"""Which host is to be dialled next, and when: those that are tried again after a failure come after all others.

Owned by the dialler, which bounds how many of those are dialled at a time: a silent host keeps its place until the time
is up, and thousands of them must not keep the others waiting. Must not know of hosts beyond an id.
"""

from __future__ import annotations

import heapq


class Schedule:
    """At most one due time per host, in seconds, monotonic. Bounded by the number of hosts.

    The order in which hosts of a kind are due is what makes dialling fair.
    """

    def __init__(self) -> None:
        # When each host is due, and whether it is tried again.
        self._due: dict[int, tuple[float, bool]] = {}
        # The same by kind. Entries that were planned anew stay until they surface; too many of them are swept out.
        self._heaps: dict[bool, list[tuple[float, int]]] = {False: [], True: []}

    def set(self, host_id: int, due: float, *, again: bool = False) -> None:
        """Dial the host at `due`, whatever was planned before; `again` after a failure."""
        self._due[host_id] = due, again
        heapq.heappush(self._heaps[again], (due, host_id))
        if sum(map(len, self._heaps.values())) > 2 * len(self._due) + 64:
            self._sweep()

    def cancel(self, host_id: int) -> None:
        """Do not dial the host until `set` is called again."""
        self._due.pop(host_id, None)

    def due(self, host_id: int) -> float | None:
        """When the host is to be dialled, if it is."""
        planned = self._due.get(host_id)
        return None if planned is None else planned[0]

    def next_due(self, *, again: bool = True) -> float | None:
        """The earliest due time, if any; without `again`, of those alone that are not tried again."""
        return min((heap[0][0] for heap in self._firsts(again)), default=None)

    def pop(self, now: float, *, again: bool = True) -> int | None:
        """The id of the host that has been due the longest, taken out, of those that are not tried again; if none of
        them is due, and with `again`, of the others. None when none is due.
        """
        for heap in self._firsts(again):
            if heap[0][0] <= now:
                _, host_id = heapq.heappop(heap)
                del self._due[host_id]
                return host_id
        return None

    def __len__(self) -> int:
        return len(self._due)

    def _firsts(self, again: bool) -> list[list[tuple[float, int]]]:
        """The heaps in which a host is planned, which is at their top then; that of those tried again is the last."""
        found = []
        for kind in (False, True) if again else (False,):
            heap = self._heaps[kind]
            while heap and self._due.get(heap[0][1]) != (heap[0][0], kind):
                heapq.heappop(heap)
            if heap:
                found.append(heap)
        return found

    def _sweep(self) -> None:
        for kind, heap in self._heaps.items():
            heap[:] = [(due, host_id) for host_id, (due, again) in self._due.items() if again is kind]
            heapq.heapify(heap)

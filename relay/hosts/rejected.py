"""The last rejected frames of each host, so that its operator can find the fault without help.

Filled by `ingest.rejections` with every drop that is not ordinary, read for the host's page; the registry has the one
instance. Only in memory, and bounded: 50 frames and 1 MiB of a host, 32 MiB in total, 64 KiB of a frame; the oldest go
first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from relay.kit import metrics

FRAMES_OF_HOST = 50
BYTES_OF_HOST = 1 << 20
BYTES_IN_ALL = 32 << 20
BYTES_OF_FRAME = 64 << 10
# What a frame costs beside its bytes.
OVERHEAD_BYTES = 1_000


class RejectedFrame(NamedTuple):
    """`number` names it for as long as it is kept; `at` is Unix seconds; `frame` is the beginning of `size` bytes."""

    number: int
    at: float
    reason: str
    detail: str
    did: str | None
    seq: int | None
    size: int
    frame: bytes


class RejectedFrames:
    """All that is kept, by number; and the numbers of each host."""

    def __init__(self) -> None:
        self._bytes = 0
        self._next = 1
        # In the order in which they came, each with its host's id.
        self._frames: OrderedDict[int, tuple[int, RejectedFrame]] = OrderedDict()
        self._of_host: dict[int, deque[int]] = {}
        self._bytes_of_host: dict[int, int] = {}
        metrics.show_bound("rejected-frames-bytes", lambda: self._bytes, BYTES_IN_ALL)

    def add(
        self,
        host_id: int,
        at: float,
        reason: str,
        detail: str,
        did: str | None,
        seq: int | None,
        size: int,
        frame: bytes,
    ) -> None:
        """Keep one, and forget the oldest for which there is no room left."""
        kept = RejectedFrame(self._next, at, reason, detail[:200], did, seq, size, frame[:BYTES_OF_FRAME])
        self._next += 1
        numbers = self._of_host.setdefault(host_id, deque())
        numbers.append(kept.number)
        self._frames[kept.number] = host_id, kept
        self._count(host_id, _cost(kept))
        while len(numbers) > FRAMES_OF_HOST or self._bytes_of_host[host_id] > BYTES_OF_HOST:
            self._forget(numbers[0])
        while self._bytes > BYTES_IN_ALL:
            self._forget(next(iter(self._frames)))

    def of_host(self, host_id: int) -> list[RejectedFrame]:
        """Those of a host, the newest first."""
        return [self._frames[number][1] for number in reversed(self._of_host.get(host_id, ()))]

    def get(self, host_id: int, number: int) -> RejectedFrame | None:
        """That one, as long as it is kept."""
        owner, kept = self._frames.get(number, (None, None))
        return kept if owner == host_id else None

    def _forget(self, number: int) -> None:
        host_id, kept = self._frames.pop(number)
        # The oldest of all is the oldest of its host as well.
        self._of_host[host_id].popleft()
        self._count(host_id, -_cost(kept))
        if not self._of_host[host_id]:
            del self._of_host[host_id], self._bytes_of_host[host_id]

    def _count(self, host_id: int, cost: int) -> None:
        self._bytes += cost
        self._bytes_of_host[host_id] = self._bytes_of_host.get(host_id, 0) + cost


def _cost(kept: RejectedFrame) -> int:
    return OVERHEAD_BYTES + len(kept.frame)

"""The places of events that wait beside the lanes: some for each host alone, and a common pool that hosts borrow from.

`lines` enters each event that waits; `lanes` makes a host wait that may borrow no more. So a host with many waiting
events pays for them itself: a host with a few is never stopped by them. Must not know what an event waits for.
"""

from __future__ import annotations

from collections import deque

from gevent.event import Event as Signal

from relay.hosts.budgets import Budget
from relay.hosts.host import Host
from relay.ingest.delivery import Delivery
from relay.kit import metrics

# What each host has for itself, and what all of them together may borrow beyond that.
OWN_EVENTS = 32
OWN_BYTES = 256 << 10
COMMON_EVENTS = 10_000
COMMON_BYTES = 128 << 20
WAIT_SECONDS = 1.0


class Parking:
    """How much is borrowed from the common pool, and the hosts that wait to borrow, first come, first served.

    `full`: nothing can be borrowed.
    """

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.full = False
        self._waiting: deque[Signal] = deque()
        metrics.show_bound("parked", lambda: self.events, COMMON_EVENTS)
        metrics.show_bound("parked-bytes", lambda: self.bytes, COMMON_BYTES)

    def enter(self, delivery: Delivery) -> None:
        """`delivery` begins to wait."""
        self._change(delivery, 1)

    def leave(self, delivery: Delivery) -> None:
        """`delivery` is judged at last."""
        self._change(delivery, -1)
        if self._waiting and not self.full:
            self._waiting.popleft().set()

    def stops(self, host: Host) -> bool:
        """True when `host` has used up its own places and cannot borrow."""
        budget = host.budget
        return self.full and (budget.parked >= OWN_EVENTS or budget.parked_bytes >= OWN_BYTES)

    def wait_for_place(self, host: Host) -> None:
        """Block while `host` is stopped. Ended by the events that wait, each of them within a bounded time."""
        turn: Signal | None = None
        try:
            while self.stops(host):
                if turn is None or turn.is_set():
                    turn = Signal()
                    self._waiting.append(turn)
                # One of the host's own places may become free without a turn.
                turn.wait(WAIT_SECONDS)
        finally:
            if turn is not None and turn in self._waiting:
                self._waiting.remove(turn)

    def _change(self, delivery: Delivery, sign: int) -> None:
        budget = delivery.host.budget
        events, size = _borrowed(budget)
        budget.parked += sign
        budget.parked_bytes += sign * delivery.size
        after_events, after_size = _borrowed(budget)
        self.events += after_events - events
        self.bytes += after_size - size
        self.full = self.events >= COMMON_EVENTS or self.bytes >= COMMON_BYTES


def _borrowed(budget: Budget) -> tuple[int, int]:
    return max(0, budget.parked - OWN_EVENTS), max(0, budget.parked_bytes - OWN_BYTES)

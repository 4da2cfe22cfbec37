"""Wakes every consumer that waits at the head, at once and for little: 1,000 of them a hundred times a second.

Used by `tail`. One shared timer ends the waits that take too long: a timer of its own made each wake cost 5.4 us
instead of 1.1. Must not know what is waited for.
"""

from __future__ import annotations

import time

import gevent
from gevent.hub import Waiter, get_hub

TICK = 0.05
# Each woken consumer runs until it waits again, so between so many of them others get their turn.
WOKEN_TOGETHER = 64


class Bell:
    """Rung for all who wait now. A wait may end up to TICK seconds after its deadline."""

    def __init__(self) -> None:
        # Bounded by the consumers; one that is gone leaves its entry until the next ring or its deadline.
        self._waiting: list[tuple[float, Waiter[None]]] = []
        self._timekeeper: gevent.Greenlet[[], None] | None = None

    def wait(self, deadline: float) -> None:
        """Block until the bell is rung or `deadline` (monotonic seconds) is past."""
        if deadline <= time.monotonic():
            return
        waiter: Waiter[None] = Waiter()
        self._waiting.append((deadline, waiter))
        if self._timekeeper is None:
            self._timekeeper = gevent.spawn(self._keep_time)
        waiter.get()

    def ring(self) -> None:
        """Wake all who wait, as soon as the hub runs."""
        waiting, self._waiting = self._waiting, []
        self._wake([waiter for _, waiter in waiting])

    def _keep_time(self) -> None:
        while self._waiting:
            gevent.sleep(TICK)
            now = time.monotonic()
            late = [waiter for deadline, waiter in self._waiting if deadline <= now]
            if late:
                self._waiting = [entry for entry in self._waiting if entry[0] > now]
                self._wake(late)
        self._timekeeper = None

    def _wake(self, waiters: list[Waiter[None]]) -> None:
        loop = get_hub().loop
        for start in range(0, len(waiters), WOKEN_TOGETHER):
            loop.run_callback(_switch_to, waiters[start : start + WOKEN_TOGETHER])


def _switch_to(waiters: list[Waiter[None]]) -> None:
    # In the hub: a consumer that waits for its socket, or for the next ring, comes back here.
    for waiter in waiters:
        waiter.switch(None)

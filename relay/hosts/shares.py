"""CPU time shared between hosts by deficit round robin: each host with work has QUANTUM seconds in each round.

A round ends when every host with work has used up its own, so at once for one host alone. What a message will probably
cost is charged before the work, so that no host queues more than that, and corrected afterwards. Subscribers and lanes
call it through their `Host`. Must not know what the work is.
"""

from __future__ import annotations

import time
from collections import deque

import gevent
from gevent.event import Event as Signal

from relay.kit import metrics
from relay.kit.background import yield_hub

QUANTUM = 0.005
# Work may be held up where it takes no CPU: after this long a host in debt goes on, with one message.
WAIT_SECONDS = 1.0


class Shares:
    """The rounds, and which hosts have work; `waiting` counts the callers that wait for a round."""

    def __init__(self) -> None:
        self.round = 0
        self.working: dict[Share, None] = {}
        self.waiting = 0
        self._looking = False

    def look_soon(self) -> None:
        """Begin a new round soon, once others have read what came for them, unless a host with work has credit left."""
        # A host with credit comes here again once its credit or its work has come to an end.
        if not self._looking and not self._anyone_goes_first():
            self._looking = True
            gevent.spawn(self._look)

    def _look(self) -> None:
        # Sockets are looked at in between: a host with more on its way has work by then.
        yield_hub()
        yield_hub()
        self._looking = False
        if not self.waiting or self._anyone_goes_first():
            return
        least_debt = -max(share.credit for share in self.working)
        self.round += 1 + int(least_debt / QUANTUM)
        for share in self.working:
            share.call_next()

    def _anyone_goes_first(self) -> bool:
        return any(share.credit > 0 for share in self.working)


class Share:
    """One host's share. `credit` is what it may still take in this round, in seconds; below 0 it is a debt."""

    __slots__ = ("_credit", "_queue", "_round", "_shares", "_work")

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._credit = QUANTUM
        self._round = shares.round
        self._work = 0
        # Made when somebody waits: thousands of hosts never need one.
        self._queue: deque[Signal] | None = None

    @property
    def credit(self) -> float:
        """Seconds that are left. A host that was idle has no more than one round gives."""
        missed = self._shares.round - self._round
        if missed:
            self._round += missed
            self._credit = min(QUANTUM, self._credit + missed * QUANTUM)
        return self._credit

    def take(self, seconds: float) -> bool:
        """Charge what the next piece of work will cost, once it is its turn. The pieces of one host go on in order.

        True when it had to wait for its turn.
        """
        if self._queue or self._credit <= 0 or self._round != self._shares.round:
            return self._take_later(seconds)
        self._credit -= seconds
        return False

    def charge(self, seconds: float) -> None:
        """Charge what the work took beyond that; a negative number gives back what it did not take."""
        shares = self._shares
        credit = (self._credit if self._round == shares.round else self.credit) - seconds
        self._credit = credit if credit < QUANTUM else QUANTUM
        if shares.waiting:
            if self._queue and credit > 0:
                self._queue[0].set()
            if credit <= 0:
                shares.look_soon()

    def begin(self) -> None:
        """From here on a piece of work waits for nothing but the CPU."""
        if not self._work:
            self._shares.working[self] = None
        self._work += 1

    def end(self, seconds: float = 0.0) -> None:
        """The piece of work is done or waits for something else: `charge` it for `seconds`."""
        self.charge(seconds)
        self._work -= 1
        if not self._work:
            del self._shares.working[self]
            if self._shares.waiting:
                self._shares.look_soon()

    def call_next(self) -> None:
        """Let the first caller that waits go on, if there is credit."""
        if self._queue and self.credit > 0:
            self._queue[0].set()

    def _take_later(self, seconds: float) -> bool:
        """The rest of `take`: go on if a new round gives the credit and nobody waits, otherwise wait."""
        if not self._queue and self.credit > 0:
            self._credit -= seconds
            return False
        # A caller that waits has work: when it is called it goes on before the next round.
        self.begin()
        try:
            self._stand_in_line()
            self._credit = self.credit - seconds
        finally:
            # The next one goes on, as far as there is credit.
            self.end()
        return True

    def _stand_in_line(self) -> None:
        if self._queue is None:
            self._queue = deque()
        turn, since = Signal(), time.monotonic()
        self._queue.append(turn)
        self._shares.waiting += 1
        self._shares.look_soon()
        try:
            while not turn.wait(WAIT_SECONDS) and self._queue[0] is not turn:
                pass
        finally:
            self._queue.remove(turn)
            self._shares.waiting -= 1
            _WAITED.inc(time.monotonic() - since)


_WAITED = metrics.HOST_THROTTLED_SECONDS.labels("cpu")

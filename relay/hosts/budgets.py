"""What one host may take of the relay: how fast it may send, what it may have under way, and its share of CPU time.

Rates are sliding windows, whose limits indigo's formula gives. What is under way is what was read of a host and is not
in the log yet. CPU time is shared by deficit round robin: in each round every host has QUANTUM seconds; a round ends
when every host with work has used up its own, so at once for one host alone. What a message will probably cost is
charged before the work, so that no host queues more than that, and corrected afterwards. Subscribers and lanes call all
of it through their `Host`. Must not know what the work is.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

import gevent
from gevent.event import Event as Signal

from relay.kit import metrics
from relay.kit.background import yield_hub

MILLISECONDS = {"second": 1_000, "hour": 3_600_000, "day": 86_400_000}

MAX_EVENTS_IN_FLIGHT = 1024
MAX_BYTES_IN_FLIGHT = 16 << 20

QUANTUM = 0.005
# Work may be held up where it takes no CPU: after this long a host in debt goes on, with one message.
WAIT_SECONDS = 1.0


class Window:
    """One sliding window of `span` milliseconds, kept as the counts of two fixed ones.

    What slid out of the earlier one is taken to have been spread evenly: two integers for each tier instead
    of a timestamp for each event, for thousands of hosts.
    """

    __slots__ = ("_count", "_index", "_previous", "_span")

    def __init__(self, span: int, index: int = 0, previous: int = 0, count: int = 0) -> None:
        self._span = span
        self._index = index
        self._previous = previous
        self._count = count

    @property
    def state(self) -> tuple[int, int, int]:
        """(index, previous, count): with the span, all there is to keep of a window over a restart."""
        return self._index, self._previous, self._count

    def add(self, now: int, amount: int = 1) -> None:
        """Count `amount` events at `now`."""
        self._slide(now)
        self._count += amount

    def take(self, now: int, limit: int) -> int:
        """Count one event if it fits under `limit`: 0, or the milliseconds to wait for that."""
        span, count = self._span, self._count
        if now // span == self._index and self._previous * (1 - now % span / span) + count + 1 <= limit:
            self._count = count + 1
            return 0
        wait = self.wait(now, limit)
        if not wait:
            self._count += 1
        return wait

    def used(self, now: int) -> float:
        """Events within the span before `now`."""
        self._slide(now)
        return self._previous * (1 - (now % self._span) / self._span) + self._count

    def wait(self, now: int, limit: int) -> int:
        """Milliseconds until one more event fits under `limit`; 0 when it fits now."""
        if limit <= 0:
            return self._span
        if self.used(now) + 1 <= limit:
            return 0
        elapsed = now % self._span
        if self._count + 1 <= limit:
            # Enough of the earlier window has to slide out.
            needed = self._span * (1 - (limit - self._count - 1) / self._previous)
            return max(1, int(needed - elapsed) + 1)
        needed = self._span * (1 - (limit - 1) / self._count)
        return self._span - elapsed + int(needed) + 1

    def _slide(self, now: int) -> None:
        index = now // self._span
        # A clock that is set back must not forget what was sent: the window then stands until time has caught up. What
        # was counted by one that was far ahead counts as of now, or it would stand for as long.
        if index < self._index - 1:
            self._index = index
        if index <= self._index:
            return
        self._previous = self._count if index == self._index + 1 else 0
        self._count = 0
        self._index = index


class Rates(NamedTuple):
    """The maximum number of messages of one host per second, hour and day."""

    second: int
    hour: int
    day: int


TRUSTED_RATES = Rates(5_000, 50_000_000, 500_000_000)


def rates_for(account_limit: int, trusted: bool) -> Rates:
    """The reference relay's formula: a base for everyone, more for hosts that may have many accounts."""
    if trusted:
        return TRUSTED_RATES
    return Rates(50 + account_limit // 1_000, 2_500 + account_limit, 20_000 + 10 * account_limit)


class Limiter:
    """How fast one host may send: sliding windows over a second, an hour and a day. Nothing is dropped.

    The clock is passed in, in milliseconds, so that a limit is not a burst at each full second.
    """

    __slots__ = ("_day", "_free", "_hour", "_rates", "_second", "_uncounted", "_until")

    def __init__(self) -> None:
        self._second = Window(MILLISECONDS["second"])
        self._hour = Window(MILLISECONDS["hour"])
        self._day = Window(MILLISECONDS["day"])
        # `_free` more messages fit under the slower limits until `_until`, as long as the rates do not change: what was
        # counted can only slide out. The messages taken since then are `_uncounted` there.
        self._free = 0
        self._until = 0
        self._rates: Rates | None = None
        self._uncounted = 0

    def take(self, now: int, rates: Rates) -> tuple[int, str]:
        """Count one message, or say how long to wait for it first.

        `(0, "")` when it is counted; else the milliseconds to wait and the tier whose limit is reached.
        """
        if self._free <= 0 or now >= self._until or rates is not self._rates:
            self._look_at_slower(now, rates)
        if self._free <= 0:
            return max(
                (self._second.wait(now, rates.second), "second"),
                (self._hour.wait(now, rates.hour), "hour"),
                (self._day.wait(now, rates.day), "day"),
            )
        wait = self._second.take(now, rates.second)
        if wait:
            return wait, "second"
        self._free -= 1
        self._uncounted += 1
        return 0, ""

    def last_day(self, now: int) -> float:
        """Messages counted in the day before `now`, since the relay started."""
        self._count()
        return self._day.used(now)

    def _look_at_slower(self, now: int, rates: Rates) -> None:
        self._count()
        self._free = int(min(rates.hour - self._hour.used(now), rates.day - self._day.used(now)))
        self._until = (now // MILLISECONDS["hour"] + 1) * MILLISECONDS["hour"]
        self._rates = rates

    def _count(self) -> None:
        """Count in the slower windows what has come: all of it in the hour that ends at `_until`."""
        if self._uncounted:
            self._hour.add(self._until - 1, self._uncounted)
            self._day.add(self._until - 1, self._uncounted)
            self._uncounted = 0


class Budget:
    """What one host may have between its socket and the log: queued, parked and not yet durable events.

    The bound is what makes a host whose events wait (for an identity, say) wait alone: its subscriber blocks in
    `wait_for_room`, TCP pushes back on the host, and the lanes stay free for everyone else.
    """

    __slots__ = ("_room", "bytes", "events", "parked", "parked_bytes")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.parked = 0
        self.parked_bytes = 0
        self._room: Signal | None = None

    @property
    def full(self) -> bool:
        """True when nothing more may be taken from the host now."""
        return self.events >= MAX_EVENTS_IN_FLIGHT or self.bytes >= MAX_BYTES_IN_FLIGHT

    @property
    def spare_events(self) -> int:
        """How many more events may be taken, 0 when half of the bytes are."""
        return MAX_EVENTS_IN_FLIGHT - self.events if self.bytes < MAX_BYTES_IN_FLIGHT // 2 else 0

    def take(self, size: int) -> None:
        """Count one event of `size` bytes as in flight."""
        self.events += 1
        self.bytes += size

    def release(self, size: int) -> None:
        """The event of `size` bytes is durable or rejected: give its room back."""
        self.events -= 1
        self.bytes -= size
        if self._room is not None and not self.full:
            self._room.set()
            self._room = None

    def wait_for_room(self, timeout: float) -> bool:
        """Block until there is room, for at most `timeout` seconds. True when there is."""
        if self.full:
            # The signal exists only while somebody waits: thousands of hosts never need one.
            self._room = self._room or Signal()
            self._room.wait(timeout)
        return not self.full


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

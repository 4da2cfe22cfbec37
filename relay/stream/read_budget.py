"""What was read from the disk for consumers and is not sent yet: bounded for all of them together.

A feed asks for its share before it reads and gives it back when it is asked for more, which is when its consumer has
taken all. Shares are given in the order in which they were asked for, but a feed that needs no disk does not stand in
line behind those that wait for it. Must not know of sockets.
"""

from __future__ import annotations

import time
from collections import deque

from gevent.event import Event as Signal

from relay.eventlog.segment import BLOCK
from relay.kit import metrics

CAPACITY_BYTES = 64 << 20

# How many read at a time: an event may be ten times as large as what is counted for it until it was read.
READING = 4

# A feed that holds a share for longer, while others wait for one, is in their way.
HOLD_SECONDS = 10.0


class ReadBudget:
    """`taken` bytes of `capacity` are in shares. One event larger than was asked for may go over it."""

    def __init__(self, capacity: int = CAPACITY_BYTES) -> None:
        self.taken = 0
        self.reading = 0
        # Bounded by the consumers there may be.
        self.waiting: deque[Share] = deque()
        self._capacity = capacity
        metrics.show_bound("consumer-bytes", lambda: self.taken, capacity)

    @property
    def full(self) -> bool:
        """True when there is no room for another block."""
        return self.taken > 0 and self.taken + BLOCK > self._capacity

    @property
    def free(self) -> bool:
        """True when a block may be read now."""
        return self.reading < READING and not self.full

    def give_turns(self) -> None:
        """Let those go on for whom there is room now."""
        while self.waiting and self.free:
            self.waiting.popleft().take()


class Share:
    """One feed's part of the budget: `held` bytes, 0 while it reads nothing."""

    __slots__ = ("_budget", "_read", "_since", "_turn", "held")

    def __init__(self, budget: ReadBudget) -> None:
        self.held = 0
        self._budget = budget
        # Whether what is held was read and handed out, and not only granted.
        self._read = True
        self._since = 0.0
        self._turn: Signal | None = None

    @property
    def has_room(self) -> bool:
        """True when a block may be handed out now, if it is in memory. Those who wait for a share get theirs first of
        whatever room comes back.
        """
        return self.held > 0 or (self._turn is None and not self._budget.full)

    def ask(self, timeout: float) -> bool:
        """True when a block may be read; False when it is not this feed's turn after `timeout` seconds. Its place
        among those who wait is kept until it asks again.
        """
        if self.held:
            return True
        if self._turn is None:
            # Nobody waits then: whoever made room has called those who did.
            if self._budget.free:
                self.take()
                return True
            self._turn = Signal()
            self._budget.waiting.append(self)
        return bool(self._turn.wait(timeout))

    def take(self) -> None:
        """Count a block as read. For the budget."""
        self.held, self._read = BLOCK, False
        self._since = time.monotonic()
        self._budget.reading += 1
        self._budget.taken += BLOCK
        if self._turn is not None:
            self._turn.set()
            self._turn = None

    def settle(self, size: int) -> None:
        """`size` bytes were read in the end: of what was asked for, or where there was room for them."""
        self._since = time.monotonic()
        self._budget.taken += size - self.held
        if not self._read:
            self._budget.reading -= 1
        self.held, self._read = size, True
        self._budget.give_turns()

    def sent(self) -> None:
        """All that was read is sent."""
        if self.held and self._read:
            self.settle(0)

    def give_back(self) -> None:
        """Nothing more is read, nor waited for."""
        if self._turn is not None:
            self._budget.waiting.remove(self)
            self._turn = None
        if self.held:
            self.settle(0)

    @property
    def in_the_way(self) -> bool:
        """True when it was held for long, and others wait for the room."""
        late = time.monotonic() - self._since > HOLD_SECONDS
        return late and self.held > 0 and self._budget.full and bool(self._budget.waiting)

"""Waits for many quiet sockets together: looks at all of them 30 times a second, and what has come is read as a group.

A relay has thousands of hosts, each with an event now and then. If it wakes for each event alone it finds its caches
cold, and the event costs two to three times as much as among others. The ends of waits come in groups as well, and
while nothing comes nothing is looked at. Used by the connections to hosts, each of which is still read
by a greenlet of its own: this module only says when. Must not know of TLS, WebSocket or the other side.
"""

from __future__ import annotations

import heapq
import math
import select
import time
from contextlib import suppress
from itertools import count
from typing import Any

from gevent import get_hub
from gevent.hub import Waiter
from gevent.monkey import get_original

from relay.kit.background import TURNS_SECONDS, call_in_turns

# Between two looks at the sockets; the same while one of them has much to say, and for how many looks after that.
INTERVAL_SECONDS = 0.033
BUSY_SECONDS = 0.002
BUSY_LOOKS = 10
# While none has much to say, all that came is read before any is judged: for this long at most, nearly always less.
TOGETHER_SECONDS = 0.004
# How many ready sockets one look takes; the kernel begins the next one with the others.
READY_AT_ONCE = 1024
# After this many looks in a row that found nothing, the next one waits until there is something.
EMPTY_LOOKS = 10
# Long waits end together, up to this much later.
LONG_WAIT_SECONDS = 10.0
ENDS_APART_SECONDS = 2.0
# As gevent's loops call it.
READ = 1


class Gathering:
    """The sockets that are waited for, looked at every `interval` seconds. Bounded by the number of connections.

    While one of them has much to say the looks are closer together (`hurry`), and while none has anything to say there
    are none (`_rest`): then the kernel calls when something comes. Belongs to the hub in which it is made.
    """

    def __init__(self, interval: float = INTERVAL_SECONDS) -> None:
        # gevent's own `select` has no epoll.
        self.epoll: Any = get_original("select", "epoll")()
        self._watched: dict[int, Watched] = {}
        # When to check whether a wait is over, and whose: one entry for most sockets, put off each time it is due.
        self._ends: list[tuple[float, int, Watched]] = []
        self._order = count()
        loop = get_hub().loop
        self._regular = loop.timer(interval, interval, ref=False)
        self._busy = loop.timer(BUSY_SECONDS, BUSY_SECONDS, ref=False)
        # How many of the looks to come are close together, and how many have found nothing since the last that did.
        self._busy_looks = 0
        self._empty_looks = 0
        # A rest ends when there is something in the epoll, which can be waited for like a socket, or when the first
        # wait may be over.
        self._rests = False
        self._something = loop.io(self.epoll.fileno(), READ, ref=False)
        self._first_end = loop.timer(0.0, ref=False)

    def watch(self, descriptor: int) -> Watched:
        """Begin to look at a connected socket. It must be forgotten before it is closed."""
        if not self._watched:
            self._look_on()
        watched = self._watched[descriptor] = Watched(self, descriptor)
        return watched

    def forget(self, descriptor: int, watched: Watched) -> None:
        """Stop looking at a socket that is about to be closed."""
        if self._watched.get(descriptor) is watched:
            del self._watched[descriptor]
        if not self._watched:
            for watcher in (self._regular, self._busy, self._something, self._first_end):
                watcher.stop()
            self._busy_looks = 0
            self._rests = False

    def hurry(self) -> None:
        """Look again soon: a socket held so much that more is on its way."""
        if self._rests:
            self._look_on()
        if not self._busy_looks:
            self._busy.start(self._look)
        self._busy_looks = BUSY_LOOKS

    def look_at_end(self, watched: Watched, end: float) -> float:
        """Check at `end` (monotonic seconds) or a little later whether a wait is over; when it will be checked."""
        if end - time.monotonic() > LONG_WAIT_SECONDS:
            end = math.ceil(end / ENDS_APART_SECONDS) * ENDS_APART_SECONDS
        heapq.heappush(self._ends, (end, next(self._order), watched))
        if self._rests and self._ends[0][2] is watched:
            self._wait_for_first_end()
        return end

    def _look_on(self) -> None:
        """Look at regular times."""
        self._something.stop()
        self._first_end.stop()
        self._empty_looks = 0
        self._rests = False
        self._regular.start(self._look)

    def _rest(self) -> None:
        """Look again when there is something to read, or a wait may be over."""
        self._rests = True
        self._regular.stop()
        self._something.start(self._end_rest)
        self._wait_for_first_end()

    def _wait_for_first_end(self) -> None:
        self._first_end.stop()
        if self._ends:
            self._first_end = get_hub().loop.timer(max(0.0, self._ends[0][0] - time.monotonic()), ref=False)
            self._first_end.start(self._end_rest)

    def _end_rest(self) -> None:
        self._look_on()
        self._look()

    def _look(self) -> None:
        """In the hub: wake the readers that have something to read, and those whose time is over."""
        if self._busy_looks:
            self._busy_looks -= 1
            if not self._busy_looks:
                self._busy.stop()
        ready: list[Waiter[None]] = []
        for descriptor, _ in self.epoll.poll(0, READY_AT_ONCE):
            watched = self._watched.get(descriptor)
            if watched is not None and (waiter := watched.call()):
                ready.append(waiter)
        now = time.monotonic()
        while self._ends and self._ends[0][0] <= now:
            end, _, watched = heapq.heappop(self._ends)
            if waiter := watched.call_if_over(end, now):
                ready.append(waiter)
        if ready:
            self._empty_looks = 0
            call_in_turns(ready, TURNS_SECONDS if self._busy_looks else TOGETHER_SECONDS)
            return
        self._empty_looks += 1
        if self._empty_looks >= EMPTY_LOOKS and not self._busy_looks:
            self._rest()


class Watched:
    """One socket. Its reader calls `wait` once it has read everything."""

    __slots__ = ("_descriptor", "_ends", "_gathering", "_in_epoll", "_looked_at", "_over", "_waiter")

    def __init__(self, gathering: Gathering, descriptor: int) -> None:
        # When the wait is over, and when that is checked.
        self._ends = 0.0
        self._looked_at = math.inf
        self._gathering = gathering
        self._descriptor = descriptor
        self._in_epoll = False
        self._over = False
        self._waiter: Waiter[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether its reader waits here and was not woken yet."""
        return self._waiter is not None

    def wait(self, seconds: float) -> bool:
        """Block until there is something to read, or the stream ends. False when nothing came for about `seconds`."""
        gathering = self._gathering
        if not self._in_epoll:
            gathering.epoll.register(self._descriptor, select.POLLIN)
            self._in_epoll = True
        self._over = False
        self._ends = time.monotonic() + seconds
        if self._ends < self._looked_at:
            self._look_at_end()
        waiter = self._waiter = Waiter()
        try:
            waiter.get()
        finally:
            self._waiter = None
        return not self._over

    def call(self) -> Waiter[None] | None:
        """There is something to read: the waiter to wake, None when the reader is busy and will find it itself."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            # Otherwise each look would report it again.
            self._leave_epoll()
        return waiter

    def call_if_over(self, looked_at: float, now: float) -> Waiter[None] | None:
        """The waiter to wake if its time is over; `looked_at` is the time for which this look was planned."""
        if looked_at != self._looked_at:
            # Another look was planned for an earlier time.
            return None
        self._looked_at = math.inf
        if self._waiter is None:
            return None
        if self._ends > now:
            self._look_at_end()
            return None
        self._over = True
        waiter, self._waiter = self._waiter, None
        return waiter

    def forget(self) -> None:
        """Stop looking at the socket, which is about to be closed."""
        self._leave_epoll()
        self._gathering.forget(self._descriptor, self)

    def _look_at_end(self) -> None:
        self._looked_at = self._gathering.look_at_end(self, self._ends)

    def _leave_epoll(self) -> None:
        if self._in_epoll:
            self._in_epoll = False
            # The kernel may have dropped it already, because of the other side.
            with suppress(OSError):
                self._gathering.epoll.unregister(self._descriptor)

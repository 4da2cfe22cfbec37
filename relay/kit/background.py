"""Background loops, turns of the hub, and calls into native threads: one of each kind for the whole relay.

Used by every room that works beside the events, or for long. Must not know what is done.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple, ParamSpec, TypeVar, cast
from weakref import WeakKeyDictionary

import gevent
from gevent import get_hub
from gevent.event import Event as Signal
from gevent.hub import Hub, Waiter
from gevent.threadpool import ThreadPool

# A pass that failed is tried again after this long, or at its usual time when that comes sooner.
RETRY_SECONDS = 10.0
# How long greenlets that yielded go on before the hub looks at sockets and timers again.
TURNS_SECONDS = 0.001
# How long a native thread gets to take the interpreter.
REST_SECONDS = 0.0002
# How long a native thread has to end.
END_SECONDS = 2.0

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


class Loop:
    """A greenlet that does `work`, waits `every` seconds, and does it again until it is stopped.

    `work` may return the seconds until the next pass instead. A pass that raises is logged and tried again; `problem`
    says in words why the last one failed.
    """

    def __init__(self, name: str, work: Callable[[], float | None], every: float) -> None:
        self.problem: str | None = None
        self._name = name
        self._work = work
        self._every = every
        self._woken = Signal()
        self._stopping = False
        self._greenlet: gevent.Greenlet[[float], None] | None = None

    @property
    def running(self) -> bool:
        """True between `start` and `stop`."""
        return self._greenlet is not None

    def start(self, *, after: float = 0.0) -> None:
        """Begin with a pass now, or `after` that many seconds."""
        self._stopping = False
        self._greenlet = gevent.spawn(self._run, after)
        self._greenlet.name = self._name

    def wake(self) -> None:
        """Begin the next pass now. If one is under way, another follows it."""
        self._woken.set()

    def stop(self, timeout: float = 0.0) -> None:
        """End the loop. A pass under way has `timeout` seconds to end before it is killed."""
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is None:
            return
        self._stopping = True
        self._woken.set()
        if timeout:
            greenlet.join(timeout)
        greenlet.kill(timeout=1.0)

    def _run(self, wait: float) -> None:
        while not self._stopping:
            # Ended by `wake`, by `stop`, or when the time is up.
            if wait > 0:
                self._woken.wait(wait)
                if self._stopping:
                    return
            self._woken.clear()
            wait = self._pass()

    def _pass(self) -> float:
        try:
            wait = self._work()
        except Exception as error:
            problem = f"{self._name}: {error}"
            if problem == self.problem:
                log.debug("%s failed again", self._name, exc_info=True)
            else:
                log.exception("%s failed, and is tried again", self._name)
            self.problem = problem
            return min(self._every, RETRY_SECONDS)
        self.problem = None
        return self._every if wait is None else wait


def yield_hub(line: Hashable = None) -> None:
    """Let all others have a turn, also those that wait for a timer or a socket; about 3 µs when nobody does.

    `gevent.sleep(0)` does not do that: some fifty turns of it pass before the hub looks at its timers and sockets.
    Callers that name the same `line` share one turn, where any other caller has a turn of its own.
    """
    _turns_of(get_hub()).take(line)


def call_in_turns(waiters: Iterable[Waiter[None]], seconds: float) -> None:
    """In the hub: let these waiters go on as if they had yielded. The first of them do so before this returns, for
    about `seconds`.
    """
    _turns_of(get_hub()).call(waiters, seconds)


def in_turns(items: Iterable[T]) -> Iterator[T]:
    """`items` one by one, with a rest for everyone else whenever they have taken a millisecond.

    A rest and not a turn: while the hub has work, native threads such as the log's writer wait for the interpreter for
    milliseconds each time.
    """
    end = time.perf_counter() + TURNS_SECONDS
    for item in items:
        yield item
        if time.perf_counter() > end:
            gevent.sleep(TURNS_SECONDS)
            end = time.perf_counter() + TURNS_SECONDS


class Stints:
    """Long work in pieces: its worker calls `pause` between them, and at last `end`, which tells how long it took."""

    def __init__(self) -> None:
        self._took = 0.0
        self._began = time.perf_counter()

    def pause(self) -> None:
        """Give everyone else a turn if the pieces since the last turn took a millisecond.

        A native thread at work gets a rest as well, or it would wait for milliseconds each time it was on the disk.
        """
        stint = time.perf_counter() - self._began
        if stint > TURNS_SECONDS:
            self._took += stint
            yield_hub()
            if _in_threads:
                gevent.sleep(REST_SECONDS)
            self._began = time.perf_counter()

    def end(self) -> float:
        """The seconds that the work took, without the turns of others."""
        return self._took + time.perf_counter() - self._began


class _Line(NamedTuple):
    name: Hashable
    waiting: deque[Waiter[None]]


class _Turns:
    """The greenlets that yielded a hub. In each of its rounds some go on, one after the other; the rest in the next.

    So sockets and timers never wait longer than a round, however many greenlets always have work.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # Bounded by the number of greenlets: each waits here once, by itself or in a line.
        self._waiting: deque[Waiter[None] | _Line] = deque()
        self._lines: dict[Hashable, _Line] = {}
        # It is due as soon as it starts, but runs only after the hub has asked which sockets are ready.
        self._round = hub.loop.timer(0.0)
        self._begun = False

    def take(self, name: Hashable) -> None:
        """Return when it is the caller's turn."""
        waiter: Waiter[None] = Waiter(self._hub)
        if name is None:
            self._waiting.append(waiter)
        elif name in self._lines:
            self._lines[name].waiting.append(waiter)
        else:
            line = self._lines[name] = _Line(name, deque((waiter,)))
            self._waiting.append(line)
        if not self._begun:
            self._begun = True
            self._round.start(self._go_on)
        waiter.get()

    def call(self, waiters: Iterable[Waiter[None]], seconds: float) -> None:
        """Have these waiters go on in turn, the first of them now if no round is due."""
        self._waiting.extend(waiters)
        if not self._begun:
            self._begun = True
            self._go_on(seconds)

    def _go_on(self, seconds: float = TURNS_SECONDS) -> None:
        end = time.perf_counter() + seconds
        for _ in range(len(self._waiting)):
            first = self._waiting.popleft()
            (self._next_of(first) if isinstance(first, _Line) else first).switch(None)
            if time.perf_counter() > end:
                break
        self._round.stop()
        self._begun = bool(self._waiting)
        if self._begun:
            self._round.start(self._go_on)

    def _next_of(self, line: _Line) -> Waiter[None]:
        waiter = line.waiting.popleft()
        if line.waiting:
            self._waiting.append(line)
        else:
            del self._lines[line.name]
        return waiter


_turns: WeakKeyDictionary[Hub, _Turns] = WeakKeyDictionary()


def _turns_of(hub: Hub) -> _Turns:
    turns = _turns.get(hub)
    if turns is None:
        turns = _turns[hub] = _Turns(hub)
    return turns


# Calls that are under way in native threads.
_in_threads: set[object] = set()


def in_thread(pool: ThreadPool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns or raises, done in a native thread of `pool` while the hub goes on.

    The thread hands an exception over as a value: gevent would print each one that leaves it.
    """

    def attempt() -> tuple[T | None, Exception | None]:
        try:
            return work(*args, **kwargs), None
        except Exception as error:
            return None, error

    call = object()
    _in_threads.add(call)
    try:
        result, error = pool.apply(attempt)
    finally:
        _in_threads.discard(call)
    if error is not None:
        try:
            raise error
        finally:
            # The traceback holds this frame: without this the two would keep each other alive.
            del error
    return cast(T, result)


def end_threads(pool: ThreadPool) -> None:
    """End the native threads of `pool`. Those that wait for a disk that does not answer are left behind."""
    with suppress(_StillRunning), gevent.Timeout(END_SECONDS, _StillRunning):
        pool.kill()


class _StillRunning(Exception):
    """Native threads have not ended in time."""

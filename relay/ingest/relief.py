"""Has a worker process verify while the relay works through a backlog, and only then: at rest it needs no memory.

Run by `Ingest` on a machine without a core for a worker that is always there. A backlog shows as a hub that hardly
rests, and verification as a good part of what it does; queues would not tell, since lanes empty them between the turns
of hosts. A worker starts after some seconds of that, so that no burst starts one, and ends after a minute in which the
relay would have kept up alone with room to spare. The gate begins checks where it finds a pool; an account's lane waits
for each of them as it does for a verification in-line, so events stay in order whoever verifies them. Must not know
what a check is.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import NamedTuple

import gevent

from relay.ingest.gate import Gate
from relay.ingest.worker_pool import WorkerPool
from relay.kit.background import Loop

# A look covers this long: without workers, and with them.
BEHIND_SECONDS = 5.0
CALM_SECONDS = 60.0
# Shares of the time, as in `Spent`. A backlog makes them 0.95, 0.95 and 0.4 on a machine with nothing else to do.
# Beside other work the hub has less of a core, and waits for one; where it has much less, no core is left for a worker
# either. The network's 700 events a second make them 0.2, 0.2 and 0.1. Without a worker the hub would do 1.7 times what
# it does with one: a load that ends one starts no other.
BEHIND = (0.6, 0.85, 0.2)
CALM = (0.2, 0.45, 0.12)

CHECK_SECONDS = 1.0
POLL_SECONDS = 0.1
START_SECONDS = 30.0
# After a worker did not start, or did not stay.
RETRY_SECONDS = 600.0

# Of the calling thread: nanoseconds on a core, and ready to run without one.
SCHEDULED = Path("/proc/thread-self/schedstat")

log = logging.getLogger(__name__)


class Spent(NamedTuple):
    """Seconds by a clock, of the hub on a core, of the hub on a core or waiting for one, and of verification."""

    clock: float
    cpu: float
    active: float
    verifying: float


class Relief:
    """Starts and stops the processes of `pool`, and gives it to `gate` while they are there."""

    def __init__(self, pool: WorkerPool, gate: Gate) -> None:
        self._pool = pool
        self._gate = gate
        self._loop = Loop("worker processes on demand", self._look, CHECK_SECONDS)
        self._before = self._spent()

    def start(self) -> None:
        """Begin to look."""
        self._before = self._spent()
        self._loop.start(after=CHECK_SECONDS)

    def stop(self) -> None:
        """Look no more. What the pool has is left to the caller."""
        self._loop.stop()

    def _look(self) -> float | None:
        """Change what has to change; the seconds until the next look if it is not the usual one."""
        helped = self._gate.pool is not None
        if helped and self._pool.problem:
            self._end()
            return self._gave_up()
        now, before = self._spent(), self._before
        passed = now.clock - before.clock
        if passed < (CALM_SECONDS if helped else BEHIND_SECONDS):
            return None
        shares = [(after - earlier) / passed for after, earlier in zip(now[1:], before[1:], strict=True)]
        wait = None
        if helped and any(share < calm for share, calm in zip(shares, CALM, strict=True)):
            self._end()
            log.info("the relay keeps up: it verifies by itself again (the hub is busy for %.0f %%)", 100 * shares[1])
        elif not helped and all(share >= behind for share, behind in zip(shares, BEHIND, strict=True)):
            wait = self._begin(shares[1])
        self._before = self._spent()
        return wait

    def _begin(self, active: float) -> float | None:
        self._pool.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._pool.ready:
            if self._pool.problem or time.monotonic() > deadline:
                self._pool.stop()
                return self._gave_up()
            gevent.sleep(POLL_SECONDS)
        self._gate.pool = self._pool
        log.info("the relay is behind: a worker process verifies (the hub is busy for %.0f %%)", 100 * active)
        return None

    def _end(self) -> None:
        self._gate.pool = None
        # An event that a process may have died of is left to the next process. Ended by its outcome, or by failure.
        while not self._pool.idle and not self._pool.problem:
            gevent.sleep(POLL_SECONDS)
        self._pool.stop()

    def _gave_up(self) -> float:
        log.warning("no worker process stays: the relay verifies by itself, and tries again in %.0f s", RETRY_SECONDS)
        self._before = self._spent()
        return RETRY_SECONDS

    def _spent(self) -> Spent:
        cpu = time.thread_time()
        verified = self._gate.verified_seconds + self._pool.busy_seconds
        return Spent(time.monotonic(), cpu, cpu + waited_seconds(), verified)


def waited_seconds() -> float:
    """For how long the calling thread has been ready to run and had no core; 0 where the kernel does not say."""
    try:
        return int(SCHEDULED.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0

"""Has a worker process verify while the relay works through a backlog, and only then: at rest it needs no memory.

Run by `Ingest` on a machine without a core for a worker that is always there. A backlog shows as a hub that hardly
rests, and verification as a good part of what it does; queues would not tell, since lanes empty them between the turns
of hosts. A worker starts after some seconds of that, so that no burst starts one, and ends after a minute in which the
relay would have kept up alone with much room. The gate begins checks where it finds a pool; an account's lane waits for
each of them as it does for a verification in-line, so events stay in order whoever verifies them. Must not know what a
check is.
"""

from __future__ import annotations

import logging
import time

import gevent

from relay.ingest.gate import Gate
from relay.ingest.worker_pool import WorkerPool
from relay.kit.background import Loop

# A look covers this long: without workers, and with them.
BEHIND_SECONDS = 5.0
CALM_SECONDS = 60.0
# Shares of a core. A backlog makes them 0.95 and 0.4 on a machine with nothing else to do, and 0.7 and 0.4 beside other
# work; the network's 700 events a second make them 0.2 and 0.1. Without a worker the hub would use 1.7 times what it
# uses with one: a load that ends one does not start the next.
BEHIND_CPU, BEHIND_VERIFYING = 0.55, 0.2
CALM_CPU, CALM_VERIFYING = 0.3, 0.12

CHECK_SECONDS = 1.0
POLL_SECONDS = 0.1
START_SECONDS = 30.0
# After a worker did not start, or not again.
RETRY_SECONDS = 600.0

log = logging.getLogger(__name__)


class Relief:
    """Starts and stops the processes of `pool`, and gives it to `gate` while they are there."""

    def __init__(self, pool: WorkerPool, gate: Gate) -> None:
        self._pool = pool
        self._gate = gate
        self._loop = Loop("worker processes on demand", self._look, CHECK_SECONDS)
        self._since = self._cpu = self._verified = 0.0

    def start(self) -> None:
        """Begin to look."""
        self._begin_window()
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
        passed = time.monotonic() - self._since
        if passed < (CALM_SECONDS if helped else BEHIND_SECONDS):
            return None
        cpu = (time.thread_time() - self._cpu) / passed
        verifying = (self._verified_seconds() - self._verified) / passed
        wait = None
        if helped and (cpu < CALM_CPU or verifying < CALM_VERIFYING):
            self._end()
            log.info("the relay keeps up: it verifies by itself again (%.0f %% of a core)", 100 * cpu)
        elif not helped and cpu >= BEHIND_CPU and verifying >= BEHIND_VERIFYING:
            wait = self._begin(cpu)
        self._begin_window()
        return wait

    def _begin(self, cpu: float) -> float | None:
        self._pool.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._pool.ready:
            if self._pool.problem or time.monotonic() > deadline:
                self._pool.stop()
                return self._gave_up()
            gevent.sleep(POLL_SECONDS)
        self._gate.pool = self._pool
        log.info("the relay is behind (%.0f %% of a core): a worker process verifies", 100 * cpu)
        return None

    def _end(self) -> None:
        self._gate.pool = None
        # An event that a process may have died of is left to the next process. Ended by its outcome, or by failure.
        while not self._pool.idle and not self._pool.problem:
            gevent.sleep(POLL_SECONDS)
        self._pool.stop()

    def _gave_up(self) -> float:
        log.warning("no worker process starts: the relay verifies by itself, and tries again in %.0f s", RETRY_SECONDS)
        self._begin_window()
        return RETRY_SECONDS

    def _begin_window(self) -> None:
        self._since, self._cpu, self._verified = time.monotonic(), time.thread_time(), self._verified_seconds()

    def _verified_seconds(self) -> float:
        return self._gate.verified_seconds + self._pool.busy_seconds

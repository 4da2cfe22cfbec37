"""A bounded queue of jobs with a fixed number of worker greenlets, fair between hosts.

The resolver has one for the PLC directory and one for did:web hosts. Hosts take turns, and each has a share
of workers and of the queue, so that a host which answers slowly holds up its own jobs only; with `paces`, one whose
jobs are done fast is held to a rate as well. Knows nothing of DIDs.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import gevent
from gevent.lock import Semaphore
from gevent.pool import Group
from gevent.queue import Queue

from relay.kit import metrics
from relay.kit.limits import Paces

Job = TypeVar("Job")

log = logging.getLogger(__name__)


class _Share(Generic[Job]):
    """What one host has in the queue. Exists only while it has something."""

    __slots__ = ("jobs", "queued", "room", "running", "waiting")

    def __init__(self, capacity: int) -> None:
        self.jobs: deque[Job] = deque()
        self.room = Semaphore(capacity)
        self.running = 0
        self.waiting = 0
        self.queued = False


class FairQueue(Generic[Job]):
    """Runs `work(job)` for each job that was put. `work` must not raise and must end within a bounded time."""

    def __init__(
        self,
        name: str,
        work: Callable[[Job], None],
        *,
        workers: int,
        workers_per_host: int,
        capacity: int,
        capacity_per_host: int,
        paces: Paces[str] | None = None,
    ) -> None:
        self._work = work
        self._paces = paces
        self._worker_count = workers
        self._workers_per_host = workers_per_host
        self._capacity_per_host = capacity_per_host
        self._room = Semaphore(capacity)
        self._shares: dict[str, _Share[Job]] = {}
        # Hosts that have a job and a worker to spare, each once, in the order of their turns. Bounded by the jobs.
        self._turns: Queue[str] = Queue()
        self._workers = Group()
        metrics.show_bound(name, lambda: capacity - self._room.counter, capacity)

    def start(self) -> None:
        """Start the workers."""
        for _ in range(self._worker_count):
            self._workers.spawn(self._run)

    def stop(self) -> list[Job]:
        """Stop the workers, also in the middle of a job; the jobs that were not begun."""
        self._workers.kill()
        return [job for share in self._shares.values() for job in share.jobs]

    def put(self, host: str, job: Job, timeout: float) -> bool:
        """Queue `job` for `host`; waits for room up to `timeout` seconds. False when there was none."""
        share = self._shares.get(host)
        if share is None:
            share = self._shares[host] = _Share(self._capacity_per_host)
        share.waiting += 1
        try:
            if not share.room.acquire(timeout=timeout):
                return False
            if not self._room.acquire(timeout=timeout):
                share.room.release()
                return False
            share.jobs.append(job)
        finally:
            share.waiting -= 1
            self._give_turn(host, share)
        return True

    def _run(self) -> None:
        while True:
            host = self._turns.get()
            share = self._shares[host]
            share.queued = False
            job = share.jobs.popleft()
            share.room.release()
            self._room.release()
            share.running += 1
            self._give_turn(host, share)
            try:
                self._work(job)
            except Exception:
                log.exception("a lookup for %s crashed", host)
            finally:
                share.running -= 1
                self._give_turn(host, share)

    def _give_turn(self, host: str, share: _Share[Job]) -> None:
        """Put the host in line if a worker may take a job of it; forget it when nothing of it is left."""
        if share.jobs:
            if not share.queued and share.running < self._workers_per_host:
                share.queued = True
                wait = self._paces.reserve(host, time.monotonic()) if self._paces is not None else 0.0
                if wait:
                    # Until then it has a job: those of a host are taken in its turns alone.
                    gevent.spawn_later(wait, self._turns.put, host)
                else:
                    self._turns.put(host)
        elif not share.running and not share.waiting:
            self._shares.pop(host, None)

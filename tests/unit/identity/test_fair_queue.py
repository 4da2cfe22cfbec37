"""FairQueues run every job once, within their bounds, and let no host have more than its share."""

from __future__ import annotations

import time
from collections import Counter

import gevent
from gevent.event import Event

from relay.identity.fair_queue import FairQueue
from relay.kit.limits import Paces

Job = tuple[str, int]


class _Work:
    """Jobs of hosts in `slow` end when `release` is set; all are counted."""

    def __init__(self, *slow: str) -> None:
        self.slow = set(slow)
        self.release = Event()
        self.done: list[Job] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def __call__(self, job: Job) -> None:
        host = job[0]
        self.running[host] += 1
        self.most[host] = max(self.most[host], self.running[host])
        if host in self.slow:
            self.release.wait(5)
        else:
            gevent.sleep(0)
        self.running[host] -= 1
        self.done.append(job)


def _lane(
    work: _Work, *, workers: int = 6, per_host: int = 2, capacity: int = 100, host_capacity: int = 10
) -> FairQueue[Job]:
    queue: FairQueue[Job] = FairQueue(
        "test",
        work,
        workers=workers,
        workers_per_host=per_host,
        capacity=capacity,
        capacity_per_host=host_capacity,
    )
    queue.start()
    return queue


def _wait(until: object) -> None:
    with gevent.Timeout(60):
        while not until():  # type: ignore[operator]
            gevent.sleep(0.001)


def test_every_job_runs_once_and_nothing_is_kept_of_hosts_without_jobs() -> None:
    work = _Work()
    queue = _lane(work)
    jobs = [(f"host{number % 7}", number) for number in range(200)]
    for job in jobs:
        assert queue.put(job[0], job, 5)
    _wait(lambda: len(work.done) == len(jobs))
    gevent.sleep(0)
    assert sorted(work.done) == sorted(jobs)
    assert max(work.most.values()) <= 2
    assert not queue._shares
    queue.stop()


def test_a_slow_host_holds_its_share_of_workers_only() -> None:
    work = _Work("slow")
    queue = _lane(work, workers=3)
    for number in range(10):
        assert queue.put("slow", ("slow", number), 0.1)
    for number in range(50):
        assert queue.put("quick", ("quick", number), 5)
    _wait(lambda: len(work.done) == 50)
    assert work.running == {"slow": 2, "quick": 0}
    work.release.set()
    _wait(lambda: len(work.done) == 60)
    queue.stop()


def test_a_full_host_waits_alone() -> None:
    work = _Work("slow")
    queue = _lane(work, host_capacity=3)
    gevent.sleep(0)
    taken = [queue.put("slow", ("slow", number), 0.01) for number in range(8)]
    assert taken == [True] * 5 + [False] * 3  # two run, three wait
    assert queue.put("quick", ("quick", 0), 0.01)
    blocked = gevent.spawn(queue.put, "slow", ("slow", 99), 5)
    work.release.set()
    assert blocked.get(timeout=60)
    _wait(lambda: len(work.done) == 7)
    _wait(lambda: not queue._shares)
    queue.stop()


def test_the_lane_as_a_whole_is_bounded() -> None:
    work = _Work("a", "b", "c")
    queue = _lane(work, workers=1, capacity=2)
    gevent.sleep(0)
    assert queue.put("a", ("a", 1), 0.01)
    gevent.sleep(0)
    assert queue.put("b", ("b", 1), 0.01)
    assert queue.put("c", ("c", 1), 0.01)
    assert not queue.put("d", ("d", 1), 0.01)
    assert "d" not in queue._shares
    # Who gives up takes no room of its host, and nothing of another job that waits on.
    assert not queue.put("b", ("b", 2), 0.01)
    assert queue._shares["b"].room.counter == 9
    waiting = gevent.spawn(queue.put, "d", ("d", 2), 60)
    assert not queue.put("d", ("d", 3), 0.01)
    work.release.set()
    assert waiting.get(timeout=60)
    _wait(lambda: len(work.done) == 4)
    queue.stop()


def test_hosts_take_turns() -> None:
    work = _Work()
    queue: FairQueue[Job] = FairQueue("test", work, workers=1, workers_per_host=1, capacity=100, capacity_per_host=50)
    for number in range(20):
        queue.put("many", ("many", number), 1)
    queue.put("few", ("few", 0), 1)
    queue.start()
    _wait(lambda: ("few", 0) in work.done)
    assert work.done.index(("few", 0)) <= 1
    queue.stop()


def test_a_job_that_fails_does_not_cost_its_worker() -> None:
    done = []

    def work(job: Job) -> None:
        if job[1] % 2:
            raise ValueError("a bug")
        done.append(job)

    queue: FairQueue[Job] = FairQueue("test", work, workers=1, workers_per_host=1, capacity=9, capacity_per_host=9)
    queue.start()
    for number in range(6):
        queue.put("host", ("host", number), 1)
    _wait(lambda: len(done) == 3)
    queue.stop()


def test_stopping_gives_back_what_was_not_begun() -> None:
    work = _Work("slow")
    queue = _lane(work)
    for number in range(5):
        queue.put("slow", ("slow", number), 1)
        gevent.sleep(0)
    assert queue.stop() == [("slow", number) for number in (2, 3, 4)]


def test_a_host_whose_jobs_are_done_fast_has_so_many_a_second() -> None:
    work = _Work()
    paces: Paces[str] = Paces(per_second=20, burst=2, capacity=10)
    queue: FairQueue[Job] = FairQueue(
        "test", work, workers=6, workers_per_host=2, capacity=99, capacity_per_host=50, paces=paces
    )
    began = time.monotonic()
    for number in range(10):
        queue.put("fast", ("fast", number), 1)
    queue.start()
    queue.put("other", ("other", 0), 1)
    _wait(lambda: ("other", 0) in work.done)
    assert len(work.done) < 11
    _wait(lambda: len(work.done) == 11)
    # Timers may be early by a little.
    assert time.monotonic() - began >= 7 / 20
    # When nothing of it waits, it is still remembered how many it had.
    assert not queue._shares and len(paces)
    queue.stop()

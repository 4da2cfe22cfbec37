"""Lanes run every job once, within their bounds, and let no host have more than its share."""

from __future__ import annotations

from collections import Counter

import gevent
from gevent.event import Event

from relay.identity.fair_queue import Lane

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
) -> Lane[Job]:
    lane: Lane[Job] = Lane(
        "test-lane",
        work,
        workers=workers,
        workers_per_host=per_host,
        capacity=capacity,
        capacity_per_host=host_capacity,
    )
    lane.start()
    return lane


def _wait(until: object) -> None:
    with gevent.Timeout(5):
        while not until():  # type: ignore[operator]
            gevent.sleep(0.001)


def test_every_job_runs_once_and_nothing_is_kept_of_hosts_without_jobs() -> None:
    work = _Work()
    lane = _lane(work)
    jobs = [(f"host{number % 7}", number) for number in range(200)]
    for job in jobs:
        assert lane.put(job[0], job, 5)
    _wait(lambda: len(work.done) == len(jobs))
    gevent.sleep(0)
    assert sorted(work.done) == sorted(jobs)
    assert max(work.most.values()) <= 2
    assert not lane._shares
    lane.stop()


def test_a_slow_host_holds_its_share_of_workers_only() -> None:
    work = _Work("slow")
    lane = _lane(work, workers=3)
    for number in range(10):
        assert lane.put("slow", ("slow", number), 0.1)
    for number in range(50):
        assert lane.put("quick", ("quick", number), 5)
    _wait(lambda: len(work.done) == 50)
    assert work.running == {"slow": 2, "quick": 0}
    work.release.set()
    _wait(lambda: len(work.done) == 60)
    lane.stop()


def test_a_full_host_waits_alone() -> None:
    work = _Work("slow")
    lane = _lane(work, host_capacity=3)
    gevent.sleep(0)
    taken = [lane.put("slow", ("slow", number), 0.01) for number in range(8)]
    assert taken == [True] * 5 + [False] * 3  # two run, three wait
    assert lane.put("quick", ("quick", 0), 0.01)
    blocked = gevent.spawn(lane.put, "slow", ("slow", 99), 5)
    work.release.set()
    assert blocked.get(timeout=5)
    _wait(lambda: len(work.done) == 7)
    _wait(lambda: not lane._shares)
    lane.stop()


def test_the_lane_as_a_whole_is_bounded() -> None:
    work = _Work("a", "b", "c")
    lane = _lane(work, workers=1, capacity=2)
    gevent.sleep(0)
    assert lane.put("a", ("a", 1), 0.01)
    gevent.sleep(0)
    assert lane.put("b", ("b", 1), 0.01)
    assert lane.put("c", ("c", 1), 0.01)
    assert not lane.put("d", ("d", 1), 0.01)
    assert "d" not in lane._shares
    work.release.set()
    _wait(lambda: len(work.done) == 3)
    lane.stop()


def test_hosts_take_turns() -> None:
    work = _Work()
    lane: Lane[Job] = Lane("test-lane", work, workers=1, workers_per_host=1, capacity=100, capacity_per_host=50)
    for number in range(20):
        lane.put("many", ("many", number), 1)
    lane.put("few", ("few", 0), 1)
    lane.start()
    _wait(lambda: ("few", 0) in work.done)
    assert work.done.index(("few", 0)) <= 1
    lane.stop()


def test_a_job_that_fails_does_not_cost_its_worker() -> None:
    done = []

    def work(job: Job) -> None:
        if job[1] % 2:
            raise ValueError("a bug")
        done.append(job)

    lane: Lane[Job] = Lane("test-lane", work, workers=1, workers_per_host=1, capacity=9, capacity_per_host=9)
    lane.start()
    for number in range(6):
        lane.put("host", ("host", number), 1)
    _wait(lambda: len(done) == 3)
    lane.stop()


def test_stopping_gives_back_what_was_not_begun() -> None:
    work = _Work("slow")
    lane = _lane(work)
    for number in range(5):
        lane.put("slow", ("slow", number), 1)
        gevent.sleep(0)
    assert lane.stop() == [("slow", number) for number in (2, 3, 4)]

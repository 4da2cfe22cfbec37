"""Worker processes that come and go: whoever verifies, no event is lost, none passes another of its account."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest

from relay.atproto import frames
from relay.hosts.host import Host
from relay.ingest import relief, worker_supervisor
from relay.ingest.worker_pool import WORKER, WorkerPool
from relay.kit import metrics
from tests.support.event_path import DropCounter, EventPath
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.present import present
from tests.support.repo import RepoBuilder, create
from tests.support.wait import until
from tests.support.workers import ready, workers

POST = "app.bsky.feed.post"
ODD = "tests.support.odd_worker"
# An account that sends more of them may have to wait, and as many events behind one may be dropped.
RARE = 3
IN_FLIGHT = 400


class OnDemand:
    """An event path with a pool on demand, which nothing but the tests start and stop unless `eager` is called."""

    def __init__(self, folder: Path, url: str, plc: FakePlc, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._url, self._plc = folder, url, plc
        self._monkeypatch = monkeypatch
        self.paths: list[EventPath] = []

    def open(self, *, eager: bool = False, worker: str = ODD) -> EventPath:
        """`eager`: any verification is a backlog, and a moment without any ends it."""
        for name, value in {
            "BEHIND_SECONDS": 0.05 if eager else 1e9,
            "BEHIND": (0.0, 0.0, 1e-9),
            "CALM_SECONDS": 1.0 if eager else 1e9,
            "CHECK_SECONDS": 0.02,
        }.items():
            self._monkeypatch.setattr(relief, name, value)
        path = EventPath(self._folder, self._url, self._plc, worker=worker, processes=1, on_demand=True)
        self.paths.append(path)
        return path


@pytest.fixture
def on_demand(tmp_path: Path, database_url: str, plc: FakePlc, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnDemand]:
    opened = OnDemand(tmp_path / "persist", database_url, plc, monkeypatch)
    yield opened
    for path in opened.paths:
        path.close()


def pool_of(path: EventPath) -> WorkerPool:
    return present(path.ingest._pool)


def send(path: EventPath, host: Host, repo: RepoBuilder, seq: int, word: str = "") -> None:
    path.put(host, repo.commit(create(f"{POST}/3k{seq:04}", {"$type": POST, "text": word})).frame(seq))


def kept(event: Any) -> object:
    return getattr(event, "rev", type(event).__name__)


def judge_by_turns(path: EventPath, rng: random.Random, changes: list[str]) -> None:
    """Have the relay and a worker verify by turns, each for a moment, with and without what is in hand done first."""
    gate, pool = path.ingest.lanes._gate, pool_of(path)
    while True:
        pool.start()
        if rng.random() < 0.7:
            until(lambda: pool.ready, 30)
        gate.pool = pool
        gevent.sleep(rng.uniform(0.0, 0.2))
        if rng.random() < 0.5:
            for pid in workers():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            changes.append("killed")
            gevent.sleep(rng.uniform(0.0, 0.1))
        gate.pool = None
        if rng.random() < 0.5:
            until(lambda: pool.idle, 30)
            changes.append("done")
        elif not pool.idle:
            changes.append("given back")
        pool.stop()
        gevent.sleep(rng.uniform(0.0, 0.1))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_accounts_events_stay_in_order_while_judges_change_and_workers_die(
    on_demand: OnDemand, pds: FakePds, seed: int
) -> None:
    rng = random.Random(seed)
    path = on_demand.open()
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(30)]
    changes: list[str] = []
    dropped = sum(sample.value for family in metrics.EVENTS_DROPPED.collect() for sample in family.samples)
    turns = gevent.spawn(judge_by_turns, path, random.Random(seed), changes)
    sent, rare = defaultdict(list), Counter[tuple[str, str]]()
    seq = 0
    try:
        while seq < 3000 or not {"killed", "done", "given back"} <= set(changes):
            assert not turns.dead and seq < 60_000
            seq += 1
            repo = rng.choice(repos)
            kind = rng.choices(["commit", "slow", "identity", "account", "sync"], [20, 1, 1, 1, 1])[0]
            if kind in ("identity", "sync"):
                rare[repo.did, kind] += 1
                kind = kind if rare[repo.did, kind] <= RARE else "commit"
            if kind == "identity":
                frame = repo.identity_frame(seq)
            elif kind == "account":
                frame = repo.account_frame(seq, active=True, status=None)
            else:
                word = "ODD_SLOW" if kind == "slow" else ""
                frame = repo.commit(create(f"{POST}/3k{seq:05}", {"$type": POST, "text": word})).frame(seq)
            if kind == "sync":
                frame = repo.sync_frame(seq)
            sent[repo.did].append(kept(frames.decode(frame)))
            until(lambda: host.budget.events < IN_FLIGHT, 30)
            path.put(host, frame)
        until(lambda: host.cursor.position == seq, 30)
    finally:
        turns.kill()
    logged = defaultdict(list)
    for event in path.events():
        logged[event.did].append(kept(event))
    assert logged == sent
    assert dropped == sum(sample.value for family in metrics.EVENTS_DROPPED.collect() for sample in family.samples)


def test_a_worker_comes_with_a_backlog_and_goes_with_it(on_demand: OnDemand, pds: FakePds) -> None:
    path = on_demand.open(eager=True, worker=WORKER)
    host, repo = path.host(pds.url), path.repo(pds.url)
    seq = 0
    for _ in range(2):
        assert not workers() and ready() == 0
        while not pool_of(path).busy_seconds or not ready():
            seq += 1
            send(path, host, repo, seq)
            gevent.sleep(0.01)
        assert len(workers()) == 1
        until(lambda: not workers(), 30)
        pool_of(path)._supervisors[0].busy_seconds = 0.0
    until(lambda: path.stream.firehose.last_seq == seq, 30)
    assert [kept(event) for event in path.events()] == sorted(kept(event) for event in path.events())  # type: ignore[type-var]


def test_without_a_process_the_relay_verifies_by_itself(on_demand: OnDemand, pds: FakePds) -> None:
    path = on_demand.open(eager=True, worker="tests.support.none")
    host, repo = path.host(pds.url), path.repo(pds.url)
    send(path, host, repo, 1)
    pool = pool_of(path)
    until(lambda: pool.problem, 30)
    assert path.ingest.problem is None
    for seq in range(2, 12):
        send(path, host, repo, seq)
    assert len(path.logged(11)) == 11


def test_what_a_process_had_that_does_not_come_back_is_verified_by_the_relay(
    on_demand: OnDemand, pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("poison")
    path = on_demand.open(eager=True)
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(20)]
    gate, pool = path.ingest.lanes._gate, pool_of(path)
    (supervisor,) = pool._supervisors
    for seq, repo in enumerate(repos, 1):
        send(path, host, repo, seq)
    until(lambda: gate.pool is pool, 30)
    for seq, repo in enumerate(repos, 21):
        send(path, host, repo, seq, "ODD_LONG")
    until(lambda: supervisor.outstanding, 30)
    supervisor._command = ("tests.support.none",)
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    path.logged(40)
    assert gate.pool is None and drops.since("poison") == 0
    assert until(lambda: host.cursor.position == 40)


def test_what_processes_had_that_somebody_kills_again_and_again_is_verified_by_the_relay(
    on_demand: OnDemand, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_supervisor, "RESTART_SECONDS", (0.0,))
    drops.watch("poison")
    path = on_demand.open(eager=True)
    host, repo = path.host(pds.url), path.repo(pds.url)
    gate, pool = path.ingest.lanes._gate, pool_of(path)
    (supervisor,) = pool._supervisors
    send(path, host, repo, 1)
    until(lambda: gate.pool is pool, 30)
    send(path, host, repo, 2, "ODD_LONG")
    while host.cursor.position < 2:
        until(lambda: (supervisor.ready and supervisor.outstanding) or host.cursor.position == 2, 30)
        for pid in workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not supervisor.ready, 30)
    assert gate.pool is None and drops.since("poison") == 0
    assert len(path.events()) == 2

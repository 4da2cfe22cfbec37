"""Worker processes: whatever becomes of one, no event is lost, none passes another of its account."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import gevent
import pytest

from relay.atproto import frames
from relay.atproto.commit import Unproven
from relay.atproto.crypto import PublicKey, parse_multikey
from relay.atproto.errors import FrameError
from relay.hosts.host import Host
from relay.ingest import worker_pool, worker_supervisor
from relay.ingest.verification import Refusal, Verdict, verify
from relay.ingest.worker_pool import HUNG_SECONDS, WorkerPool, pool_for, processes_for
from relay.kit import messages, metrics
from tests.support.event_path import DropCounter, EventPath
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.present import present
from tests.support.repo import CommitEvent, RepoBuilder, SigningKey, account_did, create, delete, update
from tests.support.wait import PATIENCE, until
from tests.support.workers import ready, running, workers

ROOT = Path(__file__).parents[3]
POST = "app.bsky.feed.post"
ODD = "tests.support.odd_worker"

Open = Callable[..., EventPath]


@pytest.fixture
def opened(tmp_path: Path, database_url: str, plc: FakePlc) -> Iterator[Open]:
    paths: list[EventPath] = []

    def open_path(*, processes: int, hung_seconds: float = HUNG_SECONDS) -> EventPath:
        path = EventPath(
            tmp_path / "persist", database_url, plc, worker=ODD, processes=processes, hung_seconds=hung_seconds
        )
        paths.append(path)
        return path

    yield open_path
    for path in paths:
        path.close()


def restarts(cause: str) -> int:
    return int(metrics.VERIFIER_RESTARTS.labels(cause)._value.get())


def words(word: str) -> dict[str, str]:
    return {"$type": POST, "text": word}


def send(path: EventPath, host: Host, repos: list[RepoBuilder], rounds: int, word: str = "") -> int:
    """A commit of every repo in each round; how many."""
    seq = 0
    for number in range(rounds):
        for repo in repos:
            seq += 1
            path.put(host, repo.commit(create(f"{POST}/3k{number:04}", words(word))).frame(seq))
            gevent.sleep(0)
    return seq


def one_known(path: EventPath, pds: FakePds) -> tuple[Host, RepoBuilder]:
    """A host with one account, whose first commit is logged."""
    host, repo = path.host(pds.url), path.repo(pds.url)
    send(path, host, [repo], 1)
    path.logged(1)
    return host, repo


def check_complete(path: EventPath, repos: list[RepoBuilder], rounds: int) -> None:
    revs = defaultdict(list)
    for event in path.logged(len(repos) * rounds):
        assert isinstance(event, frames.Commit)
        revs[event.did].append(event.rev)
    assert len(revs) == len(repos)
    assert all(len(found) == rounds and found == sorted(found) for found in revs.values())


def test_nothing_is_lost_when_workers_are_killed_under_load(opened: Open, pds: FakePds, drops: DropCounter) -> None:
    drops.watch("poison")
    path = opened(processes=2)
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(20)]
    before = restarts("ended")
    killed = set()

    def kill_now_and_then() -> None:
        for _ in range(3):
            # One that is killed before it is ready counts as one that failed to start.
            until(lambda: ready() == 2, timeout=30)
            pids = until(lambda: [pid for pid in workers() if pid not in killed], timeout=20)
            killed.update(pids)
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            gevent.sleep(0.6)

    killer = gevent.spawn(kill_now_and_then)
    send(path, host, repos, 40)
    killer.get(timeout=60)
    until(lambda: path.stream.firehose.last_seq == 800, timeout=30)
    check_complete(path, repos, 40)
    assert len(killed) >= 3
    assert restarts("ended") > before and drops.since("poison") == 0
    assert until(lambda: host.cursor.position == 800)


def test_a_hung_worker_is_replaced(opened: Open, pds: FakePds, drops: DropCounter) -> None:
    drops.watch("poison")
    path = opened(processes=2, hung_seconds=1.0)
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(10)]
    send(path, host, repos, 1)
    path.logged(10)
    before = restarts("hung")
    (stopped, _) = workers()
    os.kill(stopped, signal.SIGSTOP)
    for seq, repo in enumerate(repos, 11):
        path.put(host, repo.commit(create(f"{POST}/3kzzz", words(""))).frame(seq))
    until(lambda: path.stream.firehose.last_seq == 20, timeout=20)
    check_complete(path, repos, 2)
    assert restarts("hung") == before + 1 and drops.since("poison") == 0
    assert not running(stopped)


@pytest.mark.parametrize("word", ["ODD_CRASH", "ODD_HANG", "ODD_LOOP", "ODD_ANSWER", "ODD_MEMORY"])
def test_a_frame_that_ends_its_worker_twice_is_dropped_and_no_other_is(
    opened: Open, pds: FakePds, drops: DropCounter, word: str
) -> None:
    drops.watch("poison")
    path = opened(processes=1, hung_seconds=0.7)
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(12)]
    send(path, host, repos, 1)
    path.logged(12)
    for seq, repo in enumerate((*repos, *repos), 13):
        event = repo.commit(create(f"{POST}/3kz{seq}", words(word if seq == 20 else "")))
        path.put(host, event.frame(seq))
    until(lambda: path.stream.firehose.last_seq == 35, timeout=30)
    assert until(lambda: host.cursor.position == 36)
    assert drops.since("poison") == 1
    assert len(path.events()) == 35
    until(lambda: ready() == 1)


def test_no_event_is_blamed_for_processes_that_somebody_kills(
    opened: Open, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_supervisor, "RESTART_SECONDS", (0.0,))
    drops.watch("poison")
    path = opened(processes=1)
    host, repo = one_known(path, pds)
    (supervisor,) = present(path.ingest._pool)._supervisors
    path.put(host, repo.commit(create(f"{POST}/3kzzz", words("ODD_LONG"))).frame(2))
    for _ in range(worker_pool.KILLS_TOLD + 2):
        until(lambda: supervisor.ready and supervisor.outstanding, 30)
        (worker,) = workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: not supervisor.ready, 30)
    assert path.ingest.problem == "verifiers are killed again and again: 0"
    assert until(lambda: host.cursor.position == 2, 30)
    assert drops.since("poison") == 0 and len(path.events()) == 2
    assert path.ingest.problem is None


def test_no_event_is_blamed_for_processes_that_somebody_stops(
    opened: Open, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_supervisor, "RESTART_SECONDS", (0.0,))
    drops.watch("poison")
    path = opened(processes=1, hung_seconds=0.5)
    host, repo = one_known(path, pds)
    (supervisor,) = present(path.ingest._pool)._supervisors
    first = restarts("hung")
    path.put(host, repo.commit(create(f"{POST}/3kzzz", words("ODD_NAP"))).frame(2))
    for before in range(first, first + 3):
        until(lambda: supervisor.ready and supervisor.outstanding, 30)
        (worker,) = workers()
        os.kill(worker, signal.SIGSTOP)
        while restarts("hung") == before:
            gevent.sleep(0.01)
    assert until(lambda: host.cursor.position == 2, 30)
    assert drops.since("poison") == 0 and len(path.events()) == 2


def test_no_event_is_blamed_for_a_machine_without_cpu(opened: Open, pds: FakePds, drops: DropCounter) -> None:
    """Others have all of the one core that the process may use, for longer than an answer may take."""
    drops.watch("poison")
    path = opened(processes=1, hung_seconds=0.5)
    host, repo = one_known(path, pds)
    before, (worker,), core = restarts("hung"), workers(), min(os.sched_getaffinity(0))
    os.sched_setaffinity(worker, {core})
    os.sched_setscheduler(worker, os.SCHED_IDLE, os.sched_param(0))
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        for other in others:
            os.sched_setaffinity(other.pid, {core})
        path.put(host, repo.commit(create(f"{POST}/3kzzz", words("ODD_SPIN"))).frame(2))
        gevent.sleep(2.0)
    finally:
        for other in others:
            other.kill()
            other.wait(10)
    path.logged(2)
    assert drops.since("poison") == 0 and restarts("hung") == before and workers() == [worker]


def test_a_fault_in_sending_ends_the_process_and_loses_nothing(
    opened: Open, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = opened(processes=1)
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(5)]
    send(path, host, repos, 1)
    path.logged(5)
    faults = iter([True, True])

    def encode(message: object) -> bytes:
        if next(faults, False):
            raise ValueError("a fault")
        return messages.encode(message)

    monkeypatch.setattr(worker_supervisor, "encode", encode)
    for seq, repo in enumerate(repos, 6):
        path.put(host, repo.commit(create(f"{POST}/3kzzz", words(""))).frame(seq))
    until(lambda: path.stream.firehose.last_seq == 10, timeout=20)
    check_complete(path, repos, 2)


def test_an_accounts_events_stay_in_order_when_verification_is_slow(opened: Open, pds: FakePds) -> None:
    path = opened(processes=2)
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(6)]
    rng = random.Random(3)
    sent = defaultdict(list)
    seq = 0
    for number in range(30):
        for repo in repos:
            seq += 1
            kind = rng.choice(["commit", "commit", "slow", "identity", "account", "sync"])
            if kind == "identity":
                frame = repo.identity_frame(seq)
            elif kind == "account":
                frame = repo.account_frame(seq, active=True, status=None)
            else:
                frame = repo.commit(create(f"{POST}/3k{number:04}", words("ODD_SLOW" * (kind == "slow")))).frame(seq)
            if kind == "sync":
                frame = repo.sync_frame(seq)
            event = frames.decode(frame)
            sent[repo.did].append(getattr(event, "rev", type(event).__name__))
            path.put(host, frame)
    until(lambda: host.cursor.position == seq, timeout=30)
    logged = defaultdict(list)
    for event in path.events():
        logged[event.did].append(getattr(event, "rev", type(event).__name__))
    assert logged == sent


def test_what_was_verified_ahead_against_a_rotated_key_is_verified_anew(
    opened: Open, pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("signature-invalid")
    path = opened(processes=1)
    host, repo = one_known(path, pds)
    old = [repo.commit(create(f"{POST}/3ka{n:02}", words("ODD_SLOW"))).frame(2 + n) for n in range(10)]
    repo.key = SigningKey.create("p256", seed=77)
    path.move(repo, pds.url)
    new = [repo.commit(create(f"{POST}/3kb{n:02}", words(""))).frame(12 + n) for n in range(10)]
    for frame in (*old, *new):
        path.put(host, frame)
    check_complete(path, [repo], 21)
    assert drops.since("signature-invalid") == 0
    assert path.plc.asked[repo.did] == 2


def test_signals_for_the_relay_do_not_stop_a_worker(opened: Open, pds: FakePds) -> None:
    path = opened(processes=1)
    host, repos = path.host(pds.url), [path.repo(pds.url)]
    send(path, host, repos, 1)
    path.logged(1)
    (pid,) = workers()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    path.put(host, repos[0].commit(create(f"{POST}/3kb", {})).frame(2))
    path.logged(2)
    assert workers() == [pid]


def test_the_drain_waits_for_what_is_being_verified(opened: Open, pds: FakePds) -> None:
    path = opened(processes=2)
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(10)]
    send(path, host, repos, 1)
    path.logged(10)
    for seq in range(11, 111):
        path.put(host, repos[seq % 10].commit(create(f"{POST}/3kz{seq}", words("ODD_SLOW"))).frame(seq))
    path.ingest.stop(13.0)
    path.logged(110)
    assert not workers()


def test_a_drain_does_not_wait_for_ever(opened: Open, pds: FakePds) -> None:
    path = opened(processes=1)
    host, repos = path.host(pds.url), [path.repo(pds.url)]
    send(path, host, repos, 1)
    path.logged(1)
    (pid,) = workers()
    os.kill(pid, signal.SIGSTOP)
    path.put(host, repos[0].commit(create(f"{POST}/3kb", {})).frame(2))
    started = time.monotonic()
    path.ingest.stop(1.0)
    assert time.monotonic() - started < 5 * PATIENCE and not running(pid)
    assert path.stream.firehose.last_seq == 1 and host.cursor.position == 1, "the event comes again from its host"


def test_workers_die_with_the_relay_even_when_they_are_stopped() -> None:
    program = """
import gevent, os, pathlib, time
from relay.ingest.worker_pool import WorkerPool
pool = WorkerPool(2, lenient=False)
pool.start()
while sum(one.ready for one in pool._supervisors) < 2:
    gevent.sleep(0.01)
print(*pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(), flush=True)
gevent.sleep(60)
"""
    relay = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert relay.stdout
        pids = [int(pid) for pid in relay.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGSTOP)
    finally:
        relay.kill()
        relay.wait(10)
    until(lambda: not any(map(running, pids)))


@pytest.mark.parametrize("lenient", [False, True])
def test_a_worker_says_what_the_relay_itself_would(lenient: bool) -> None:
    """Random commits, and the same with a byte changed, a field swapped, an operation left out."""
    rng = random.Random(11)
    pool = WorkerPool(1, lenient=lenient)
    pool.start()
    verdicts: list[Verdict | Unproven | Refusal] = []
    try:
        for event, key in random_events(rng, 400):
            here = verify(event, key, int(time.time() * 1e6), lenient=lenient)
            check = pool.begin(event, key)
            check.wait()
            assert check.outcome == here
            assert check.outcome is not None and type(check.outcome) is type(here)
            verdicts.append(here)
    finally:
        pool.stop()
    reasons = {verdict.reason for verdict in verdicts if isinstance(verdict, Refusal)}
    assert len(reasons) > 5 and len(verdicts) - len(reasons) > 50
    assert lenient == any(isinstance(verdict, Verdict) and verdict.lenient for verdict in verdicts)


def random_events(rng: random.Random, count: int) -> Iterator[tuple[frames.Commit | frames.Sync, PublicKey]]:
    curves = ["k256", "p256"]
    repos = [RepoBuilder(account_did(n), SigningKey.create(curves[n % 2], seed=n)) for n in range(4)]
    paths: dict[str, list[str]] = {repo.did: [] for repo in repos}
    made = 0
    while made < count:
        repo = rng.choice(repos)
        known = paths[repo.did]
        names = [f"{POST}/3k{rng.randrange(10**6):06}" for _ in range(rng.randrange(1, 4))]
        ops = [create(name, {"n": rng.random() < 0.5}) for name in names if name not in known]
        if known and rng.random() < 0.4:
            ops.append(delete(known.pop(rng.randrange(len(known)))))
        elif known and rng.random() < 0.4:
            ops.append(update(rng.choice(known), {"n": rng.randrange(10**6)}))
        known += [name for name in dict.fromkeys(names) if name not in known]
        event = repo.commit(*{op.path: op for op in ops}.values())
        frame = repo.sync_frame(1) if rng.random() < 0.1 else spoilt(rng, event).frame(1)
        if rng.random() < 0.3:
            at = rng.randrange(len(frame))
            frame = frame[:at] + bytes([frame[at] ^ 1 << rng.randrange(8)]) + frame[at + 1 :]
        key = repo.key if rng.random() < 0.9 else rng.choice(repos).key
        try:
            decoded = frames.decode(frame)
        except FrameError:
            continue
        if isinstance(decoded, frames.Commit | frames.Sync):
            made += 1
            yield decoded, parse_multikey(key.multikey)


def spoilt(rng: random.Random, event: CommitEvent) -> CommitEvent:
    """`event`, or one that misses something or says something else."""
    choice = rng.randrange(10)
    if choice == 0 and event.ops:
        event.ops.pop()
    elif choice == 1:
        event.blocks.pop(rng.choice(list(event.blocks)))
    elif choice == 2 and event.ops:
        event.ops[0]["action"] = rng.choice(["create", "update", "delete", "move"])
    elif choice == 3:
        event.fields["rev"] = "3zzzzzzzzzz22"
    elif choice == 4 and event.ops:
        event.ops[0]["path"] = "nowhere"
    return event


def test_how_many_processes_there_are_by_default() -> None:
    assert [processes_for(cores) for cores in (1, 2, 3, 4, 16)] == [0, 0, 1, 2, 2]


def test_which_pool_there_is() -> None:
    def pool(processes: int | None, cores: int) -> tuple[int, bool] | None:
        found = pool_for(processes, cores, lenient=False)
        return (len(found._supervisors), found.on_demand) if found else None

    assert [pool(None, cores) for cores in (1, 2, 3, 4)] == [None, (1, True), (1, False), (2, False)]
    assert [pool(0, 16), pool(1, 1), pool(3, 2)] == [None, (1, False), (3, False)]

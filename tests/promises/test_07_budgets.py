"""Promise 7: Every host, account, identity and consumer has a budget of its own, of CPU, of queue and of lookups. A bad
one slows itself alone.

Hosts whose events wait or cost much, accounts that lie, and strangers that have much looked up.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import gevent
import pytest
from gevent.event import Event

from relay.atproto.frames import Account, Commit
from relay.hosts import budgets
from relay.hosts.host import Host
from relay.identity import negatives
from relay.identity.resolver import REFRESHES_PER_DID
from relay.ingest import delivery, lanes, lines, parking, penalties, verification, waits
from relay.ingest.delivery import Delivery, Wait
from relay.ingest.waits import LongVerifications, Waits
from relay.kit.background import yield_hub
from tests.support.event_path import DropCounter, EventPath
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.repo import POST, RepoBuilder, SigningKey, create, post
from tests.support.wait import until


def known(path: EventPath, host: Host, pds: FakePds) -> RepoBuilder:
    repo = path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    return repo


def strangers(path: EventPath, host: Host, pds: FakePds, count: int) -> gevent.Greenlet[[], None]:
    """A subscriber that reads an event of one new account after the other."""

    def read() -> None:
        for seq in range(1, count + 1):
            path.put(host, post(path.repo(pds.url), "3kaaa").frame(seq))
            # What is in a lane is not parked yet: let it get there.
            gevent.sleep(0.001)

    return gevent.spawn(read)


def cool_down_always(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have an account wait for as long after each event that counts against it."""
    monkeypatch.setattr(penalties, "FREE_CHARGES", 0)
    monkeypatch.setattr(penalties, "FIRST_DELAY_SECONDS", seconds)
    monkeypatch.setattr(penalties, "LONGEST_DELAY_SECONDS", seconds)


def parked(host: Host, count: int) -> bool:
    return host.budget.parked == count


def test_a_host_with_too_much_in_flight_waits_alone(
    path: EventPath, pds: FakePds, other_pds: FakePds, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, slow = path.host(pds.url), path.host(other_pds.url)
    repo = known(path, good, pds)
    monkeypatch.setattr(budgets, "MAX_EVENTS_IN_FLIGHT", 10)
    with plc.holding():
        reading = strangers(path, slow, other_pds, 30)
        until(lambda: slow.budget.full)
        for seq in range(2, 22):
            path.put(good, post(repo, f"3kab{seq}").frame(seq))
        until(lambda: path.stream.firehose.last_seq == 21)
        assert slow.budget.events == 10 and not reading.ready()
    until(lambda: path.stream.firehose.last_seq == 51, timeout=10)
    assert reading.ready() and slow.budget.events == 0


@pytest.mark.parametrize("bound", ["COMMON_EVENTS", "COMMON_BYTES"])
def test_when_all_parking_is_taken_only_hosts_that_have_used_up_their_own_wait(
    path: EventPath,
    pds: FakePds,
    other_pds: FakePds,
    plc: FakePlc,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
) -> None:
    good, slow = path.host(pds.url), path.host(other_pds.url)
    repo = known(path, good, pds)
    places = path.ingest.lanes._parking
    monkeypatch.setattr(parking, bound, 10 if bound == "COMMON_EVENTS" else 5_000)
    monkeypatch.setattr(parking, bound.replace("COMMON", "OWN"), 3 if bound == "COMMON_EVENTS" else 1_500)
    with plc.holding():
        strangers(path, slow, other_pds, 40)
        until(lambda: places.full)
        for seq in range(2, 22):
            path.put(good, post(repo, f"3kab{seq}").frame(seq))
        until(lambda: path.stream.firehose.last_seq == 21)
        # Two events of its own that wait do not stop the other host.
        with gevent.Timeout(60):
            for waiting, seq in enumerate((22, 23), 1):
                path.put(good, post(path.repo(pds.url), "3kaaa").frame(seq))
                until(partial(parked, good, waiting))
            path.put(good, post(repo, "3kab23").frame(24))
        assert places.events <= 12 and slow.budget.parked > good.budget.parked
    until(lambda: path.stream.firehose.last_seq == 64, timeout=20)
    assert places.events == places.bytes == 0
    assert slow.budget.parked == slow.budget.parked_bytes == 0


def test_a_host_whose_events_cost_much_gets_no_more_time_than_one_whose_events_cost_little(
    tmp_path: Path, database_url: str, plc: FakePlc, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = EventPath(tmp_path / "persist", database_url, plc)
    modest, greedy = path.host(pds.url), path.host(other_pds.url)
    repo, *dear = path.repo(pds.url), *(path.repo(other_pds.url) for _ in range(20))
    dids = {one.did for one in dear}
    spent = {modest: 0.0, greedy: 0.0}
    real = verification.verify
    # As in truth, what an event may cost is known by its size; but here the large ones do cost that much.
    monkeypatch.setattr(delivery, "BYTE_SECONDS", 1e-6)

    def verify(event: Any, *rest: Any, **more: Any) -> Any:
        began = time.thread_time()
        while time.thread_time() - began < (0.02 if event.did in dids else 0.001):
            pass
        spent[greedy if event.did in dids else modest] += time.thread_time() - began
        return real(event, *rest, **more)

    def read(host: Host, frames: list[bytes]) -> None:
        for frame in frames:
            host.share.take(0.0)
            path.put(host, frame)

    path.put(modest, post(repo, "3kaaa").frame(1))
    for seq, one in enumerate(dear, 1):
        path.put(greedy, post(one, "3kaaa").frame(seq))
    path.logged(1 + len(dear))
    monkeypatch.setattr("relay.ingest.gate.verify", verify)
    # What other processes take of a busy machine is not charged here.
    clock = SimpleNamespace(time=time.time, perf_counter=time.thread_time)
    monkeypatch.setattr("relay.ingest.gate.time", clock)
    large = {"text": "x" * 20_000}
    many = [dear[seq % 20].commit(create(f"{POST}/3kab{seq}", large)).frame(100 + seq) for seq in range(200)]
    few = [post(repo, f"3kac{seq}").frame(100 + seq) for seq in range(200)]
    reading = gevent.spawn(read, greedy, many)
    until(lambda: spent[greedy] > 0.1)
    spent[greedy] = 0.0
    gevent.spawn(read, modest, few)
    until(lambda: modest.cursor.position == 299, timeout=30)
    # One may be under way when the other begins, and so it may be at each end of a round.
    assert spent[greedy] < 2 * spent[modest]
    reading.kill()
    path.close()


def test_a_large_commit_stops_its_account_alone_and_drops_nothing_of_it(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.watch("account-throttled")
    host, other = path.host(pds.url), path.host(other_pds.url)
    repo, mate = path.repo(pds.url), path.repo(pds.url)
    while crc32(mate.did.encode()) % lanes.LANES != crc32(repo.did.encode()) % lanes.LANES:
        mate = path.repo(pds.url)
    stranger = path.repo(other_pds.url)
    for seq, one in enumerate((repo, mate), 1):
        path.put(host, post(one, "3kaaa").frame(seq))
    path.put(other, post(stranger, "3kaaa").frame(1))
    path.logged(3)
    go_on, real = Event(), LongVerifications.run

    def run(long_ones: LongVerifications, delivery: Delivery) -> None:
        go_on.wait(20)
        real(long_ones, delivery)

    monkeypatch.setattr(LongVerifications, "run", run)
    large = [create(f"{POST}/3kb{number:04}", {"text": f"{number}" * 9_000}) for number in range(10)]
    path.put(host, repo.commit(*large).frame(3))
    for seq in range(4, 44):
        path.put(host, post(repo, f"3kc{seq}").frame(seq))
    path.put(host, post(mate, "3kaab").frame(44))
    path.put(other, post(stranger, "3kaab").frame(2))
    assert {event.did for event in path.logged(5)[3:]} == {mate.did, stranger.did}
    go_on.set()
    path.logged(46)
    revs = [event.rev for event in path.events() if isinstance(event, Commit) and event.did == repo.did]
    assert len(revs) == 42 and revs == sorted(revs) and drops.since("account-throttled") == 0
    assert host.budget.parked == 0


def test_many_large_commits_of_one_host_do_not_stand_before_one_of_another(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy, modest = path.host(pds.url), path.host(other_pds.url)
    go_on, order = Event(), list[str]()

    def in_turn(event: Commit, *args: Any, **options: Any) -> verification.Outcome:
        order.append(event.did)
        go_on.wait(60)
        return verification.verify(event, *args, **options)

    monkeypatch.setattr(waits, "verify", in_turn)
    large = [create(f"{POST}/3kb{number:04}", {"text": f"{number}" * 9_000}) for number in range(10)]
    repos = [path.repo(pds.url) for _ in range(8)]
    for seq, repo in enumerate(repos, 1):
        path.put(greedy, repo.commit(*large).frame(seq))
    until(lambda: order and all(path.resolver.known.cached(repo.did) for repo in repos), timeout=30)
    last = path.repo(other_pds.url)
    path.put(modest, last.commit(*large).frame(1))
    until(lambda: path.resolver.known.cached(last.did), timeout=30)
    for _ in range(20):
        yield_hub()
    go_on.set()
    path.logged(9)
    # One of the other host's is under way, and one stands in line.
    assert order.index(last.did) <= 2


def test_an_account_that_waits_has_a_share_of_its_hosts_places(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.watch("account-throttled")
    monkeypatch.setattr(lines, "ACCOUNT_PLACES", 5)
    cool_down_always(monkeypatch, 0.5)
    host = path.host(pds.url)
    loud, quiet = known(path, host, pds), path.repo(pds.url)
    path.put(host, loud.sync_frame(2))
    for seq in range(3, 23):
        path.put(host, post(loud, f"3kab{seq}").frame(seq))
    for seq in range(23, 26):
        path.put(host, loud.account_frame(seq))
    path.put(host, loud.account_frame(26, active=False, status="deactivated"))
    path.put(host, post(quiet, "3kaaa").frame(27))
    until(lambda: quiet.did in {event.did for event in path.events()})
    assert drops.since("account-throttled") == 18
    told = [event for event in path.events() if isinstance(event, Account)]
    assert [(event.active, event.status) for event in told] == [(True, "throttled")]
    until(lambda: host.cursor.position == 27, timeout=20)
    told = [event for event in path.events() if isinstance(event, Account)]
    assert [(event.active, event.status) for event in told] == [(True, "throttled"), (False, "deactivated")]
    commits = [event for event in path.events() if isinstance(event, Commit) and event.did == loud.did]
    assert len(commits) == 1 + 5


class Directory:
    """Lets what waits for a document go on when `go_on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = Event()
        real = Waits.run

        def run(waits: Waits, delivery: Delivery, wait: Wait) -> None:
            if wait is not Wait.COOL_DOWN:
                self.go_on.wait(60)
            real(waits, delivery, wait)

        monkeypatch.setattr(Waits, "run", run)


def test_an_honest_account_loses_nothing_behind_a_lookup_while_its_host_has_places(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.watch("account-throttled")
    host = path.host(pds.url)
    busy = known(path, host, pds)
    directory = Directory(monkeypatch)
    path.put(host, busy.identity_frame(2))
    last = 2 + lines.ACCOUNT_PLACES + 200
    for seq in range(3, last + 1):
        path.put(host, post(busy, f"3kab{seq:04}").frame(seq))
    until(lambda: host.budget.parked == last - 1)
    directory.go_on.set()
    path.logged(last)
    revs = [event.rev for event in path.events() if isinstance(event, Commit)]
    assert len(revs) == last - 1 and revs == sorted(revs) and drops.since("account-throttled") == 0
    assert host.budget.parked == host.budget.parked_bytes == 0
    assert not any(isinstance(event, Account) for event in path.events())


@pytest.mark.parametrize("scarce", ["events", "bytes"])
def test_accounts_that_wait_leave_their_host_places_for_its_others(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch, scarce: str
) -> None:
    drops.watch("account-throttled")
    monkeypatch.setattr(lines, "ACCOUNT_PLACES", 5)
    host = path.host(pds.url)
    busy = [path.repo(pds.url) for _ in range(4)]
    for seq, repo in enumerate(busy, 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
    quiet = path.repo(pds.url)
    path.put(host, post(quiet, "3kaaa").frame(5))
    path.logged(5)
    until(lambda: host.budget.events == 0)
    directory = Directory(monkeypatch)
    size = len(post(quiet, "3kaab").frame(1))
    if scarce == "events":
        monkeypatch.setattr(budgets, "MAX_EVENTS_IN_FLIGHT", 48)
    else:
        monkeypatch.setattr(budgets, "MAX_BYTES_IN_FLIGHT", 48 * size)
    seq, held = 6, []
    for repo in busy:
        before = host.budget.parked
        path.put(host, repo.identity_frame(seq))
        for _ in range(60):
            seq += 1
            path.put(host, post(repo, f"3kab{seq:04}").frame(seq))
        seq += 1
        until(lambda: host.budget.events == host.budget.parked)
        held.append(host.budget.parked - before)
    assert held == sorted(held, reverse=True) and held[0] > 15 and held[-1] >= 5, held
    assert drops.since("account-throttled") == 4 * 61 - sum(held)
    # The others go on as if nobody waited.
    path.put(host, post(quiet, "3kaac").frame(seq))
    until(lambda: host.budget.events == host.budget.parked)
    assert [event.did for event in path.events() if isinstance(event, Commit)][-1] == quiet.did
    directory.go_on.set()
    until(lambda: host.cursor.position == seq)


def test_an_account_of_which_the_directory_tells_nothing_leaves_its_host_places_for_its_others(
    path: EventPath, pds: FakePds, plc: FakePlc, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.watch("account-throttled")
    monkeypatch.setattr(lines, "ACCOUNT_PLACES", 5)
    for name in ("FIRST_RETRY_SECONDS", "LONGEST_RETRY_SECONDS"):
        monkeypatch.setattr(waits, name, 0.05)
    monkeypatch.setattr(negatives, "UNANSWERED_SECONDS", 0.1)
    path.restart()
    host = path.host(pds.url)
    quiet, loud = known(path, host, pds), path.repo(pds.url)
    monkeypatch.setattr(budgets, "MAX_EVENTS_IN_FLIGHT", 48)
    document = plc.documents[loud.did]
    plc.documents[loud.did] = b"<html>"
    for seq in range(2, 62):
        path.put(host, post(loud, f"3kab{seq:04}").frame(seq))
    path.put(host, post(quiet, "3kaac").frame(62))
    until(lambda: path.stream.firehose.last_seq == 2)
    assert 15 < host.budget.parked < 30
    plc.documents[loud.did] = document
    until(lambda: host.cursor.position == 62, 20)
    assert drops.since("account-throttled") + len(path.events()) == 62


def test_an_account_that_misbehaved_is_left_the_few_places_of_such_a_one(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.watch("account-throttled")
    monkeypatch.setattr(lines, "ACCOUNT_PLACES", 5)
    cool_down_always(monkeypatch, 0.3)
    host = path.host(pds.url)
    loud = known(path, host, pds)
    directory = Directory(monkeypatch)
    path.put(host, loud.identity_frame(2))
    path.put(host, loud.sync_frame(3))
    for seq in range(4, 30):
        path.put(host, post(loud, f"3kab{seq}").frame(seq))
    path.put(host, loud.account_frame(30, active=False, status="deactivated"))
    path.put(host, loud.account_frame(31, active=True))
    path.put(host, loud.account_frame(32, active=False, status="deactivated"))
    until(lambda: host.budget.parked == 31)
    directory.go_on.set()
    until(lambda: host.cursor.position == 32)
    commits = [event for event in path.events() if isinstance(event, Commit)]
    assert len(commits) == 1 + 5 and drops.since("account-throttled") == 21 + 2
    told = [(event.active, event.status) for event in path.events() if isinstance(event, Account)]
    assert told == [(True, "throttled"), (False, "deactivated")], "the last word counts"
    assert host.budget.parked == host.budget.parked_bytes == 0


def test_an_account_is_told_of_when_it_is_let_go(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.watch("account-throttled")
    monkeypatch.setattr(lines, "ACCOUNT_PLACES", 2)
    cool_down_always(monkeypatch, 0.3)
    host = path.host(pds.url)
    loud = known(path, host, pds)
    path.put(host, loud.sync_frame(2))
    for seq in range(3, 9):
        path.put(host, post(loud, f"3kab{seq}").frame(seq))
    until(lambda: host.cursor.position == 8, timeout=20)
    path.put(host, post(loud, "3kac").frame(9))
    until(lambda: host.cursor.position == 9, timeout=20)
    told = [(event.active, event.status) for event in path.events() if isinstance(event, Account)]
    assert told == [(True, "throttled"), (True, None)] and drops.since("account-throttled") == 4
    assert isinstance(path.events()[-1], Commit), "what comes next is passed on"


def test_events_of_a_foreign_host_do_not_hold_up_the_accounts_own(
    path: EventPath, pds: FakePds, other_pds: FakePds, plc: FakePlc
) -> None:
    own, foreign = path.host(pds.url), path.host(other_pds.url)
    repo = known(path, own, pds)
    with plc.holding():
        for seq in range(1, 4):
            path.put(foreign, repo.identity_frame(seq))
        path.put(foreign, post(repo, "3kaab").frame(4))
        until(lambda: foreign.budget.parked == 4)
        for seq in range(2, 6):
            path.put(own, post(repo, f"3kac{seq}").frame(seq))
        until(lambda: path.stream.firehose.last_seq >= 5)
        assert foreign.cursor.position <= 0
    until(lambda: foreign.cursor.position == 4, timeout=20)
    assert foreign.budget.parked == own.budget.parked == 0


def test_bad_signatures_do_not_make_the_relay_ask_the_directory_for_ever(
    path: EventPath, pds: FakePds, plc: FakePlc, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(penalties, "FREE_CHARGES", 1000)
    monkeypatch.setattr(lines, "ACCOUNT_PLACES", 100)
    drops.watch("signature-invalid")
    host, repo = path.host(pds.url), path.repo(pds.url)
    wrong = SigningKey.create(seed=99)
    for seq in range(1, 61):
        path.put(host, repo.commit(create(f"{POST}/3k{seq:03}", {}), sign_with=wrong).frame(seq))
    until(lambda: drops.since("signature-invalid") == 60)
    assert plc.asked[repo.did] <= 1 + REFRESHES_PER_DID
    assert path.stream.firehose.last_seq == 0

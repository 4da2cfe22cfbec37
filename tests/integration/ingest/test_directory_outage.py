"""The PLC directory is away for as long as the relay waits for anything, and longer: no event is lost for it.

What takes 20 minutes is shortened three hundred times. The whole takes so long in `python -m
tests.bench.neighbours.outage`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import gevent
import pytest

from relay.atproto.frames import Commit, Identity, Kind
from relay.hosts import budgets
from relay.hosts.host import Host
from relay.identity import directory, identity, lookup, negatives, resolver
from relay.ingest import waits
from relay.kit.errors import StoreError
from relay.store import hosts
from tests.support.event_path import DropCounter, EventPath
from tests.support.http import free_ports
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.repo import RepoBuilder, SigningKey, post
from tests.support.wait import until

SHORTENED = {
    (identity, "GOOD_FOR_SECONDS"): 0.5,
    (directory, "REQUEST_SECONDS"): 0.1,
    (directory, "FIRST_CLOSED_SECONDS"): 0.02,
    (directory, "LONGEST_CLOSED_SECONDS"): 0.1,
    (lookup, "LOOKUP_SECONDS"): 0.2,
    (resolver, "WAIT_SECONDS"): 0.3,
    (resolver, "AWAY_SECONDS"): 0.3,
    (waits, "RESOLVE_FOR_SECONDS"): 0.5,
    (waits, "FIRST_RETRY_SECONDS"): 0.02,
    (waits, "LONGEST_RETRY_SECONDS"): 0.1,
    (budgets, "MAX_EVENTS_IN_FLIGHT"): 30,
}
OUTAGE_SECONDS = 4.0


def test_an_outage_of_the_directory_costs_no_event(
    path: EventPath, pds: FakePds, other_pds: FakePds, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, new_host = path.host(pds.url), path.host(other_pds.url)
    known = [path.repo(pds.url) for _ in range(4)]
    for seq, repo in enumerate(known, 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
    path.logged(len(known))
    for (module, name), value in SHORTENED.items():
        monkeypatch.setattr(module, name, value)
    plc.latency = 60.0
    gevent.sleep(1.0)

    def read(host: Host, frames: list[bytes]) -> None:
        for frame in frames:
            path.put(host, frame)

    # Documents of a day ago decide; of what an #identity says, nothing has to be proven.
    commits = [post(known[seq % 4], f"3kb{seq}").frame(seq) for seq in range(5, 35)]
    told = [repo.identity_frame(seq) for seq, repo in enumerate(known, 35)]
    after = [post(known[seq % 4], f"3kc{seq}").frame(seq) for seq in range(39, 59)]
    gevent.spawn(read, host, commits + told + after)
    # More than may be in flight: the host's stream waits.
    strangers = [path.repo(other_pds.url) for _ in range(50)]
    # Of an account that is not known, the directory alone can tell whose an #identity is.
    of_strangers = [strangers[0].identity_frame(1)]
    of_strangers += [post(repo, "3kaaa").frame(seq) for seq, repo in enumerate(strangers, 2)]
    reading = gevent.spawn(read, new_host, of_strangers)
    gevent.sleep(OUTAGE_SECONDS)
    # Known accounts go on.
    until(lambda: host.cursor.position == 58 and new_host.budget.full, timeout=30)
    assert new_host.cursor.position <= 0 and not reading.ready()
    assert len(path.events()) == 58
    plc.latency = 0.0
    until(lambda: new_host.cursor.position == 51, timeout=20)
    until(lambda: path.stream.firehose.last_seq == 58 + 51)
    revs = defaultdict(list)
    for event in path.events():
        if isinstance(event, Commit):
            revs[event.did].append(event.rev)
    assert len(revs) == 54 and all(each == sorted(each) for each in revs.values())
    assert sum(map(len, revs.values())) == 4 + 30 + 20 + 50
    assert sum(isinstance(event, Identity) for event in path.events()) == 4 + 1


@pytest.mark.parametrize("remembered", [True, False])
def test_an_outage_costs_no_event_of_an_account_that_has_just_moved(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    """What was stored names the former host, as after priming. That is no answer, however often it was asked for."""
    repo, moved = path.repo(pds.url), path.repo(pds.url)
    path.put(path.host(pds.url), post(moved, "3kaaa").frame(1))
    path.resolver.resolve(repo.did)
    path.logged(1)
    if not remembered:
        path.restart()
    host = path.host(other_pds.url)
    for each in (repo, moved):
        path.move(each, other_pds.url)
    for name in ("FIRST_RETRY_SECONDS", "LONGEST_RETRY_SECONDS"):
        monkeypatch.setattr(waits, name, 0.02)
    monkeypatch.setattr(directory, "TRIES", 1)
    tries: Counter[str] = Counter()
    resolve = path.resolver._resolve

    def count(did: str, host: str, *, refresh: bool, granted: bool = True) -> identity.Identity:
        tries[did] += 1
        return resolve(did, host, refresh=refresh, granted=granted)

    monkeypatch.setattr(path.resolver, "_resolve", count)
    path.plc.instead = "503 Service Unavailable"
    path.put(host, repo.identity_frame(1))
    path.put(host, post(repo, "3kaaa").frame(2))
    path.put(host, post(moved, "3kbbb").frame(3))
    until(lambda: len(tries) == 2 and min(tries.values()) > 3 * resolver.REFRESHES_PER_DID, 10)
    path.plc.instead = None
    assert until(lambda: host.cursor.position == 3, 10)
    found = [(event.did, event.kind) for event in path.events()[1:]]
    assert [kind for did, kind in found if did == repo.did] == [Kind.IDENTITY, Kind.COMMIT]
    assert (moved.did, Kind.COMMIT) in found


def test_an_outage_costs_no_event_of_an_account_with_a_new_key(
    path: EventPath, pds: FakePds, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other than what an #identity says, a signature has to be proven."""
    monkeypatch.setattr(negatives, "UNANSWERED_SECONDS", 0.1)
    for name in ("FIRST_RETRY_SECONDS", "LONGEST_RETRY_SECONDS"):
        monkeypatch.setattr(waits, name, 0.05)
    monkeypatch.setattr(directory, "TRIES", 1)
    path.restart()
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    assert until(lambda: host.cursor.position == 1)
    repo.key = SigningKey.create("p256", seed=77)
    path.move(repo, pds.url)
    plc.instead = "503 Service Unavailable"
    asked = plc.asked[repo.did]
    path.put(host, post(repo, "3kbbb").frame(2))
    until(lambda: plc.asked[repo.did] > asked + 2)
    assert host.cursor.position == 1
    plc.instead = None
    assert until(lambda: host.cursor.position == 2)
    assert len(path.events()) == 2


def test_a_directory_that_denies_an_account_while_the_database_is_away_costs_no_event(
    path: EventPath, pds: FakePds, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the account was known, and so whether that is to be believed, only the database can say."""
    monkeypatch.setattr(negatives, "YOUNG_SECONDS", (0.05,))
    monkeypatch.setattr(negatives, "UNANSWERED_SECONDS", 0.1)
    for name in ("FIRST_RETRY_SECONDS", "LONGEST_RETRY_SECONDS"):
        monkeypatch.setattr(waits, name, 0.05)
    repo = path.repo(pds.url)
    path.put(path.host(pds.url), post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.store()
    path.restart()
    host = path.registry.add(path.db.read(hosts.all_rows)[0])
    document = plc.documents.pop(repo.did)

    def away(*_: Any) -> None:
        raise StoreError("store-unavailable", "away")

    with monkeypatch.context() as outage:
        outage.setattr(path.db, "read", away)
        path.put(host, post(repo, "3kbbb").frame(2))
        until(lambda: plc.asked[repo.did] > 5)
        assert host.cursor.position == 1
    plc.documents[repo.did] = document
    assert until(lambda: host.cursor.position == 2)
    assert len(path.events()) == 2


def test_events_of_an_account_whose_server_is_silent_wait_together(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "RESOLVE_FOR_SECONDS", 1.0)
    for name in ("FIRST_RETRY_SECONDS", "LONGEST_RETRY_SECONDS"):
        monkeypatch.setattr(waits, name, 0.1)
    drops.watch("did-unavailable")
    host = path.host(pds.url)
    repo = RepoBuilder(f"did:web:localhost%3A{free_ports(1)[0]}", SigningKey.create())
    for seq in range(1, 101):
        path.put(host, post(repo, f"3kb{seq}").frame(seq))
    assert until(lambda: host.cursor.position == 100)
    assert drops.since("did-unavailable") == 100


def test_a_did_about_which_the_directory_alone_tells_nothing_holds_its_host_up_for_a_while(
    path: EventPath, pds: FakePds, plc: FakePlc, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "PLC_RESOLVE_FOR_SECONDS", 1.0, raising=False)
    monkeypatch.setattr(directory, "TRIES", 1)
    for name in ("FIRST_RETRY_SECONDS", "LONGEST_RETRY_SECONDS"):
        monkeypatch.setattr(waits, name, 0.1)
    drops.watch("did-unavailable")
    host, (silent, other) = path.host(pds.url), [path.repo(pds.url) for _ in range(2)]
    plc.documents[silent.did] = b"<html>"
    for seq in (1, 2):
        path.put(host, post(silent, f"3kb{seq}").frame(seq))
    until(lambda: plc.asked[silent.did])
    gevent.sleep(2.0)
    assert host.cursor.position <= 0, "nobody was told anything: that may be an outage"
    path.put(host, post(other, "3kaaa").frame(3))
    assert until(lambda: host.cursor.position == 3)
    assert drops.since("did-unavailable") == 2 and len(path.events()) == 1

"""Whole hosts whose events were missed: listed page by page, compared, and what differs is healed."""

from __future__ import annotations

import json
import time
from typing import Any

import gevent
import pytest

from relay.atproto.frames import Account, Commit, Sync
from relay.healing import host_tasks, listing
from relay.healing import hosts as healing_hosts
from relay.healing.catching_up import is_close
from relay.hosts.host import Host
from relay.store import host_healing, hosts
from relay.store.host_healing import Progress
from tests.support.event_path import EventPath
from tests.support.healing import connected, known, noted
from tests.support.pds import FakePds
from tests.support.repo import POST, RepoBuilder, account_did, create, tid
from tests.support.wait import until


def progress(path: EventPath, host: Host) -> Progress:
    found = path.db.read(host_healing.progress, host.id)
    assert found is not None
    return found


def unheard(path: EventPath, pds: FakePds, *, micros: int) -> RepoBuilder:
    """An account of `pds` of which the relay never had an event; it wrote at `micros`."""
    repo = path.repo(pds.url)
    repo.micros = micros
    repo.commit(create(f"{POST}/a", {}))
    pds.repos[repo.did] = repo
    return repo


def now_us() -> int:
    return int(time.time() * 1e6)


def test_a_gap_is_closed(path: EventPath, pds: FakePds) -> None:
    """Written in the gap, by accounts that are known and one that is new; and taken down in it."""
    pds.repos_per_page = 2
    host = connected(path, pds)
    same, behind, gone = (known(path, pds, host, seq) for seq in (1, 2, 3))
    behind.commit(create(f"{POST}/b", {}))
    pds.repo_status[gone.did] = {"did": gone.did, "active": False, "status": "takendown"}
    new = unheard(path, pds, micros=now_us() + 1_000_000)
    old = unheard(path, pds, micros=now_us() - 86_400_000_000)
    pds.answers["getLatestCommit"] = lambda query: (
        (400, b'{"error":"RepoTakendown"}')
        if query["did"] == gone.did
        else pds._of_repo("com.atproto.sync.getLatestCommit", pds.repos[query["did"]]) or (404, b"")
    )
    host.cursor.note_gap("outdated-cursor")
    path.compare()
    assert progress(path, host)[:5] == ("outdated-cursor", "done", 5, 3, 0)
    path.heal()
    events = {event.did: event for event in path.logged(6)[3:]}
    assert events.keys() == {behind.did, new.did, gone.did}
    assert isinstance(events[behind.did], Sync) and isinstance(events[new.did], Sync)
    taken_down = events[gone.did]
    assert isinstance(taken_down, Account) and taken_down.status == "takendown"
    assert same.did != old.did


def test_of_accounts_never_seen_nobody_is_told_but_they_are_entered(path: EventPath, pds: FakePds) -> None:
    host = compared_weekly(path, pds)
    old = unheard(path, pds, micros=now_us() - 86_400_000_000)
    pds.collections[old.did] = [POST]
    path.compare()
    assert progress(path, host)[:5] == ("weekly", "done", 2, 0, 1)
    path.heal()
    assert len(path.events()) == 1 and noted(path, host) == []
    path.store()
    found = path.stream.projector.account(old.did)
    assert found is not None and found[1] is not None and found[1].rev == old.rev
    assert host.account_count == 2
    # Its next event follows on that.
    path.put(host, old.commit(create(f"{POST}/b", {})).frame(2))
    assert isinstance(path.logged(2)[-1], Commit)
    path.heal()
    assert len(path.events()) == 2


def test_of_one_that_writes_before_it_is_entered_consumers_are_told(path: EventPath, pds: FakePds) -> None:
    """Or its commit, which is still on its way, would be taken for an old one."""
    host = compared_weekly(path, pds)
    old = unheard(path, pds, micros=now_us() - 86_400_000_000)
    path.compare()
    assert progress(path, host)[:5] == ("weekly", "done", 2, 0, 1)
    old.micros = now_us() + 1_000_000
    event = old.commit(create(f"{POST}/b", {}))
    path.heal()
    assert isinstance(path.logged(2)[-1], Sync) and noted(path, host) == []
    path.put(host, event.frame(2))
    until(lambda: host.cursor.position == 2)
    assert len(path.events()) == 2


def compared_weekly(path: EventPath, pds: FakePds) -> Host:
    """A host with an account, of a relay that compares all hosts once a week."""
    path.every = True
    path.restart()
    host = connected(path, pds)
    known(path, pds, host)
    return host


def test_every_host_is_compared_once_a_week_and_not_more_often(path: EventPath, pds: FakePds) -> None:
    compared_weekly(path, pds)
    path.compare()
    asked = len(pds.requests)
    path.ahead += 6 * 86_400
    path.compare()
    assert len(pds.requests) == asked
    path.ahead += 2 * 86_400
    path.compare()
    assert len(pds.requests) == asked + 1


def test_what_a_clock_put_off_that_was_far_ahead_is_due(path: EventPath, pds: FakePds) -> None:
    host = compared_weekly(path, pds)
    path.store()
    year = 365 * 86_400.0
    path.db.write(host_healing.note, {host.id: "unreadable"}, time.time() + year)
    path.compare()
    assert progress(path, host)[:2] == ("unreadable", "done")
    path.db.write(lambda tx: tx.execute("UPDATE heal_host SET ended_at = ?", (time.time() + year,)))
    asked = len(pds.requests)
    path.restart()
    host = path.registry.add(path.db.read(hosts.all_rows)[0])
    host.connected_at = time.time() - 60
    path.compare()
    assert len(pds.requests) == asked + 1


def test_without_a_gap_nothing_is_compared(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    known(path, pds, host)
    path.compare()
    assert not pds.requests


def test_an_account_that_moved_here_unheard_is_healed(path: EventPath, pds: FakePds, other_pds: FakePds) -> None:
    host, other = connected(path, pds), connected(path, other_pds)
    repo = known(path, pds, host)
    path.move(repo, other_pds.url)
    repo.commit(create(f"{POST}/b", {}))
    other_pds.repos[repo.did] = repo
    other.cursor.note_gap("outdated-cursor")
    path.compare()
    path.heal()
    last = path.logged(2)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev
    assert other.account_count == 1 and host.account_count == 0


def test_a_comparison_goes_on_after_a_restart(path: EventPath, pds: FakePds) -> None:
    pds.repos_per_page = 1
    host = connected(path, pds)
    for seq in range(1, 7):
        known(path, pds, host, seq)
    host.cursor.note_gap("outdated-cursor")
    path.store()
    pages: list[str] = []

    def cut_off(query: dict[str, str]) -> tuple[int, bytes]:
        pages.append(query.get("cursor", ""))
        if len(pages) == 4:
            host.connected_at = None
        return listed(query)

    def listed(query: dict[str, str]) -> tuple[int, bytes]:
        del pds.answers["listRepos"]
        try:
            return pds._method("com.atproto.sync.listRepos", query)
        finally:
            pds.answers["listRepos"] = cut_off

    pds.answers["listRepos"] = cut_off
    path.compare()
    assert pages == ["", "1", "2", "3"] and progress(path, host).state == "running"
    path.restart()
    host = path.registry.add(path.db.read(hosts.all_rows)[0])
    host.connected_at = time.time() - 60
    path.compare()
    assert pages == ["", "1", "2", "3", "4", "5"]
    assert progress(path, host)[:4] == ("outdated-cursor", "done", 6, 0)


def test_an_admin_may_have_a_host_compared_at_once_and_stop_it(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    known(path, pds, host)
    assert not path.host_healing.end(host)
    path.host_healing.begin(host)
    path.compare()
    assert progress(path, host).state == "done"
    path.host_healing.begin(host)
    assert path.host_healing.end(host)
    assert progress(path, host)[1:2] == ("failed",) and progress(path, host).error == "stopped by an admin"


def test_a_comparison_that_is_stopped_asks_for_no_further_page(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    pds.repos_per_page = 1
    host = connected(path, pds)
    for seq in (1, 2, 3):
        known(path, pds, host, seq)
    page = listing.page

    def stopped(*args: Any) -> Any:
        found = page(*args)
        assert path.host_healing.end(host)
        return found

    monkeypatch.setattr(listing, "page", stopped)
    path.host_healing.begin(host)
    path.compare()
    assert len(pds.requests) == 1 and progress(path, host)[1:3] == ("failed", 0)


def test_gaps_in_a_row_make_one_comparison_and_one_more_after_a_pause(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    known(path, pds, host)
    for _ in range(5):
        host.cursor.note_gap("unreadable")
        path.store()
    path.compare()
    assert len(pds.requests) == 1
    host.cursor.note_gap("unreadable")
    path.compare()
    assert len(pds.requests) == 1
    path.ahead += 700
    path.compare()
    assert len(pds.requests) == 2


def test_a_gap_during_a_comparison_is_compared_after_it(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    known(path, pds, host)
    host.cursor.note_gap("outdated-cursor")

    def gap(_: dict[str, str]) -> tuple[int, bytes]:
        host.cursor.note_gap("numbers-restarted")
        path.store()
        del pds.answers["listRepos"]
        return 200, b'{"repos":[]}'

    pds.answers["listRepos"] = gap
    path.compare()
    assert progress(path, host)[:2] == ("numbers-restarted", "due")
    path.ahead += 700
    path.compare()
    assert progress(path, host)[:3] == ("numbers-restarted", "done", 1)


# Hosts that are slow, wrong or hostile


def endless(query: dict[str, str]) -> tuple[int, bytes]:
    """Accounts that do not exist, without end."""
    start = int(query.get("cursor", 0))
    repos = [{"did": f"did:web:{start + number}.example", "rev": tid(1), "head": "x"} for number in range(1000)]
    return 200, json.dumps({"repos": repos, "cursor": str(start + 1000)}).encode()


def circle(query: dict[str, str]) -> tuple[int, bytes]:
    return 200, json.dumps({"repos": [], "cursor": str((int(query.get("cursor", 0)) + 1) % 3)}).encode()


ENDLESS = {
    "accounts": endless,
    "the same cursor": lambda _: (200, b'{"repos":[],"cursor":"1"}'),
    "a circle": circle,
    "empty pages": lambda query: (200, json.dumps({"repos": [], "cursor": query.get("cursor", "") + "x"}).encode()),
}


@pytest.mark.parametrize("how", ENDLESS)
def test_an_endless_list_is_given_up(path: EventPath, pds: FakePds, how: str) -> None:
    host = connected(path, pds)
    pds.answers["listRepos"] = ENDLESS[how]
    host.cursor.note_gap("outdated-cursor")
    path.compare()
    assert progress(path, host).state == "failed" and "heal-endless" in str(progress(path, host).error)
    assert len(pds.requests) < 200


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b'{"repos":{}}',
        b'{"repos":[],"cursor":7}',
        b'{"repos":[],"cursor":"' + b"x" * 5000 + b'"}',
        b"[" * 50_000,
        b"\xff",
    ],
    ids=["nothing", "no list", "number", "long cursor", "deep", "no text"],
)
def test_an_answer_that_is_no_list_ends_it(path: EventPath, pds: FakePds, answer: bytes) -> None:
    host = connected(path, pds)
    pds.answers["listRepos"] = lambda _: (200, answer)
    host.cursor.note_gap("outdated-cursor")
    path.compare()
    assert progress(path, host).state == "failed" and len(pds.requests) == 1


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        {},
        {"did": 1},
        {"did": "did:plc:x", "rev": "y"},
        {"did": "did:web:a.example", "rev": "3kaaaaaaaaaaaaaaa"},
    ],
)
def test_what_is_no_account_in_a_list_is_left_out(path: EventPath, pds: FakePds, entry: Any) -> None:
    host = connected(path, pds)
    pds.answers["listRepos"] = lambda _: (200, json.dumps({"repos": [entry]}).encode())
    host.cursor.note_gap("outdated-cursor")
    path.compare()
    assert progress(path, host)[1:4] == ("done", 1, 0) and noted(path, host) == []


def test_a_page_that_is_longer_than_asked_for_is_taken_as_a_whole(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    known(path, pds, host, 1)
    last = known(path, pds, host, 2)
    others = [{"did": account_did(number), "rev": last.rev} for number in range(1000, 2500)]
    last.commit(create(f"{POST}/b", {}))
    pds.answers["listRepos"] = lambda _: (200, json.dumps({"repos": [*others, pds._listed(last)]}).encode())
    host.cursor.note_gap("outdated-cursor")
    path.compare()
    assert [missed.did for missed in noted(path, host)] == [last.did]
    assert progress(path, host)[1:4] == ("done", 1501, 1)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_a_page_that_is_not_to_be_had_is_asked_for_again_where_it_stood(
    path: EventPath, pds: FakePds, status: int
) -> None:
    pds.repos_per_page = 1
    host = connected(path, pds)
    known(path, pds, host, 1)
    known(path, pds, host, 2)
    host.cursor.note_gap("outdated-cursor")
    pds.answers["listRepos"] = lambda _: (status, b"")
    path.compare()
    path.compare()
    assert progress(path, host).state == "running" and len(pds.requests) == 1
    del pds.answers["listRepos"]
    path.ahead += 3600
    path.compare()
    assert progress(path, host)[1:3] == ("done", 2)


@pytest.mark.parametrize("status", [400, 501])
def test_a_host_that_says_that_it_has_no_list_is_not_asked_again(path: EventPath, pds: FakePds, status: int) -> None:
    host = connected(path, pds)
    pds.answers["listRepos"] = lambda _: (status, b"")
    host.cursor.note_gap("outdated-cursor")
    path.compare()
    assert progress(path, host).state == "failed" and len(pds.requests) == 1


def test_a_host_that_never_answers_is_given_up(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    pds.answers["listRepos"] = lambda _: (503, b"")
    host.cursor.note_gap("outdated-cursor")
    for _ in range(healing_hosts.ATTEMPTS):
        path.compare()
        path.ahead += 4000
    assert progress(path, host).state == "failed" and len(pds.requests) == healing_hosts.ATTEMPTS


def test_a_full_queue_makes_the_comparison_wait(path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.healing.MAX_BEYOND_LIMIT", 2)
    monkeypatch.setattr(healing_hosts, "ROOM_SECONDS", 0.05)
    host = connected(path, pds, account_limit=6)
    repos = [known(path, pds, host, seq) for seq in range(1, 6)]
    for repo in repos:
        repo.commit(create(f"{POST}/b", {}))
    host.row.account_limit = 0
    path.db.write(hosts.set_account_limit, host.id, 0)
    host.cursor.note_gap("outdated-cursor")
    path.store()
    comparing = gevent.spawn(path.compare)
    for _ in range(4):
        until(lambda: noted(path, host) or comparing.dead)
        path.ahead += 10
        path.heal()
    comparing.join(5)
    assert comparing.dead and len(path.logged(10)) == 10
    assert progress(path, host)[1:4] == ("done", 5, 5)


def test_a_long_list_takes_turns_with_those_of_other_hosts(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing_hosts, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(path.host_healing._tasks, "_at_once", 1)
    pds.repos_per_page = 1
    first, second = connected(path, pds), connected(path, other_pds)
    for seq in (1, 2, 3):
        known(path, pds, first, seq)
    first.cursor.note_gap("outdated-cursor")
    path.store()
    second.cursor.note_gap("outdated-cursor")
    path.compare()
    path.compare()
    assert progress(path, first)[1:3] == ("running", 1) and progress(path, second).state == "done"
    path.compare()
    path.compare()
    assert progress(path, first)[1:3] == ("done", 3) and len(pds.requests) == 3


def test_a_host_whose_queue_stays_full_is_in_no_other_hosts_way(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists accounts that nobody can ever heal."""
    monkeypatch.setattr("relay.store.healing.MAX_BEYOND_LIMIT", 0)
    monkeypatch.setattr(healing_hosts, "ROOM_SECONDS", 0.01)
    monkeypatch.setattr(healing_hosts, "TURN_SECONDS", 0.1)
    monkeypatch.setattr(path.host_healing._tasks, "_at_once", 1)
    first, second = connected(path, pds), connected(path, other_pds)
    known(path, pds, first).commit(create(f"{POST}/b", {}))
    path.db.write(hosts.set_account_limit, first.id, 0)
    first.cursor.note_gap("outdated-cursor")
    path.store()
    second.cursor.note_gap("outdated-cursor")
    for _ in range(2):
        comparing = gevent.spawn(path.compare)
        comparing.join(60)
        assert comparing.successful()
    assert progress(path, first)[1:3] == ("running", 0) and progress(path, second).state == "done"
    path.db.write(hosts.set_account_limit, first.id, 100)
    path.compare()
    assert progress(path, first)[1:4] == ("done", 1, 1)


def test_a_stream_that_catches_up_is_waited_for(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    now = time.time()
    host.connected_at = host.row.last_event_at = now
    host.last_event_time = "2020-01-01T00:00:00Z"
    assert not is_close(host, now)
    assert is_close(host, now + 4), "it is quiet"
    host.last_event_time = "2020-01-01T00:00:00"
    assert not is_close(host, now)
    host.last_event_time = "nonsense"
    assert not is_close(host, now)
    host.last_event_time = "2999-01-01T00:00:00Z"
    assert is_close(host, now)


def test_a_relay_that_stood_still_reads_its_hosts_before_it_asks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock all streams were quiet meanwhile."""
    now, looks = [1_000.0], list[float]()
    monkeypatch.setattr(host_tasks, "boot_seconds", lambda: now[0])
    tasks = host_tasks.HostTasks("healing", lambda: looks.append(now[0]), 1)
    for later in (2, 4, 24, 26):
        now[0] = 1_000.0 + later
        tasks._pass()
    assert looks == [1_002.0, 1_004.0, 1_026.0]

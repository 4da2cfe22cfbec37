"""Status at the host and at this relay: combined, healed, limited, taken down; and accounts that misbehave."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any
from zlib import crc32

import gevent
import pytest

from relay.atproto.frames import Account, Commit, Sync, decode
from relay.hosts.host import Host
from relay.identity import resolver
from relay.ingest import accounts as accounts_module
from relay.ingest import penalties, places
from relay.ingest.accounts import AccountState
from relay.ingest.lanes import LANES
from relay.kit import metrics
from relay.kit.errors import AccountUnknown, LogError, StoreError
from relay.store import accounts, installation
from tests.support.event_path import DropCounter, EventPath
from tests.support.pds import FakePds
from tests.support.present import present
from tests.support.repo import RepoBuilder, SigningKey, create, post
from tests.support.stream import payloads
from tests.support.wait import until


def statuses(path: EventPath, count: int) -> list[tuple[bool, str | None]]:
    return [(event.active, event.status) for event in path.logged(count) if isinstance(event, Account)]


def replayed_commits(path: EventPath) -> list[str]:
    """The DIDs of the commits that a consumer from the oldest event on is sent."""
    feed, data = path.stream.firehose.attach(0), b""
    while feed.position < path.stream.firehose.last_seq:
        data += feed.next(1.0) or b""
    frames = [decode(payload) for payload in payloads(data)]
    return [event.did for event in frames if isinstance(event, Commit)]


def test_account_events_state_the_status_at_this_relay(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.account_frame(1, active=False, status="deactivated"))
    path.put(host, repo.account_frame(2))
    path.logged(2)
    path.ingest.moderation.takedown(repo.did)
    path.put(host, repo.account_frame(3, active=False, status="deactivated"))
    path.logged(4)
    path.ingest.moderation.restore(repo.did)
    assert statuses(path, 5) == [
        (False, "deactivated"),
        (True, None),
        (False, "takendown"),
        (False, "takendown"),
        (False, "deactivated"),
    ]


def test_words_of_a_hosts_own_are_passed_on_and_kept(path: EventPath, pds: FakePds, drops: DropCounter) -> None:
    """`active` decides; what cannot be kept means inactive."""
    drops.watch("account-inactive")
    host, repo = path.host(pds.url), path.repo(pds.url)
    words = [
        (False, "on-holiday"),
        (False, None),
        (False, "x" * 65),
        (False, "a\0b"),
        (False, "active"),
        (False, "x" * 64),
        (True, "throttled"),
        (True, None),
    ]
    for seq, (active, word) in enumerate(words, 1):
        path.put(host, repo.account_frame(seq, active=active, status=word))
    inactive = (False, "inactive")
    assert statuses(path, 8) == [
        (False, "on-holiday"),
        inactive,
        inactive,
        inactive,
        inactive,
        (False, "x" * 64),
        (True, "throttled"),
        (True, None),
    ]
    path.put(host, repo.account_frame(9, active=False, status="on-holiday"))
    path.put(host, repo.identity_frame(10))
    path.logged(10)
    path.restart()
    assert present(path.ingest.accounts.lookup(repo.did)).row.upstream_status == "on-holiday"
    host = path.host(pds.url)
    path.put(host, post(repo, "3kaaa").frame(11))
    until(lambda: drops.since("account-inactive") == 1)
    path.ingest.moderation.takedown(repo.did)
    path.ingest.moderation.restore(repo.did)
    assert statuses(path, 12)[-2:] == [(False, "takendown"), (False, "on-holiday")]


@pytest.mark.parametrize("column", ["status", "upstream_status"])
def test_whatever_status_another_relay_has_stored_takedowns_work(path: EventPath, pds: FakePds, column: str) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.restart()
    path.db.write(lambda tx: tx.execute(f"UPDATE account SET {column} = 'hibernating'"))
    host = path.host(pds.url)
    path.put(host, repo.identity_frame(2))
    path.logged(2)
    path.ingest.moderation.takedown(repo.did)
    path.ingest.moderation.restore(repo.did)
    assert len(path.logged(4)) == 4


def test_an_account_that_was_called_desynchronized_is_active_with_what_follows(
    path: EventPath, pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("account-inactive")
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.put(host, repo.account_frame(2, active=False, status="desynchronized"))
    pds.repo_status[repo.did] = {"did": repo.did, "active": False, "status": "desynchronized"}
    post(repo, "3kaab")
    for seq in (3, 4, 5):
        path.put(host, post(repo, f"3kaa{seq}").frame(seq))
    until(lambda: drops.since("account-inactive") == 3)
    assert sum("getRepoStatus" in request for request in pds.requests) == 1
    path.put(host, repo.sync_frame(6))
    path.put(host, post(repo, "3kabb").frame(7))
    assert [type(event) for event in path.logged(5)] == [Commit, Account, Account, Sync, Commit]
    assert statuses(path, 5)[-1] == (True, None)
    path.put(host, repo.account_frame(8, active=False, status="desynchronized"))
    path.put(host, post(repo, "3kabc").frame(9))
    assert [type(event) for event in path.logged(8)[5:]] == [Account, Account, Commit]


def test_consumers_are_told_what_a_host_says_before_the_next_commit(path: EventPath, pds: FakePds) -> None:
    """A host says in answer to a question, not in an event, that the account is active."""
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.account_frame(1, active=False, status="deactivated"))
    pds.repo_status[repo.did] = {"did": repo.did, "active": True, "rev": "x"}
    path.put(host, post(repo, "3kaaa").frame(2))
    assert [type(event) for event in path.logged(3)] == [Account, Account, Commit]
    assert statuses(path, 3) == [(False, "deactivated"), (True, None)]


def test_an_account_that_moves_is_asked_for_at_its_new_host(path: EventPath, pds: FakePds, other_pds: FakePds) -> None:
    """What the former host said last, and confirmed, means nothing for the new one."""
    host, other, repo = path.host(pds.url), path.host(other_pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.put(host, repo.account_frame(2, active=False, status="deactivated"))
    pds.repo_status[repo.did] = {"did": repo.did, "active": False, "status": "deactivated"}
    other_pds.repo_status[repo.did] = {"did": repo.did, "active": True}
    path.put(host, post(repo, "3kaab").frame(3))
    until(lambda: host.cursor.position == 3)
    path.move(repo, other_pds.url)
    path.put(other, post(repo, "3kaac").frame(1))
    assert [type(event) for event in path.logged(4)] == [Commit, Account, Account, Commit]
    assert statuses(path, 4)[-1] == (True, None)


def test_the_word_of_a_former_host_does_not_bind_the_new_one(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter
) -> None:
    """The new one sends nothing but a commit, and does not say what it thinks of the account."""
    drops.watch("account-inactive")
    host, other, repo = path.host(pds.url), path.host(other_pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.put(host, repo.account_frame(2, active=False, status="deactivated"))
    path.logged(2)
    path.move(repo, other_pds.url)
    path.put(other, post(repo, "3kaab").frame(1))
    assert [type(event) for event in path.logged(4)] == [Commit, Account, Account, Commit]
    assert statuses(path, 4)[-1] == (True, None)
    # Its own word does.
    path.put(other, repo.account_frame(2, active=False, status="deactivated"))
    path.put(other, post(repo, "3kaac").frame(3))
    until(lambda: drops.since("account-inactive") == 1)
    assert len(path.logged(5)) == 5


@pytest.mark.parametrize("active", [False, True])
def test_a_former_host_cannot_change_the_status_of_an_account_that_moved(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter, active: bool
) -> None:
    """Neither delete nor activate it, even while the document in memory still names it."""
    drops.watch("wrong-host")
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.put(host, repo.account_frame(2, active=not active, status="deactivated" if active else None))
    path.logged(2)
    path.move(repo, other_pds.url)
    path.put(host, repo.account_frame(3, active=active, status=None if active else "deleted"))
    until(lambda: drops.since("wrong-host") == 1)
    assert len(path.events()) == 2


@pytest.mark.parametrize("whose", ["the account's", "the host's"])
def test_a_former_host_whose_events_had_documents_read_often_cannot_delete_an_account_that_moved(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """What a document may be read for is used up, and the one in memory still names the former host."""
    drops.watch("wrong-host")
    monkeypatch.setattr(resolver, "REFRESHES_PER_DID" if whose == "the account's" else "REFRESHES_PER_HOST", 1)
    for name in ("REFRESH_DID_SECONDS", "REFRESH_HOST_SECONDS"):
        monkeypatch.setattr(resolver, name, 3600.0)
    path.restart()
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    for seq in range(2, 5):
        path.put(host, repo.identity_frame(seq))
    path.logged(4)
    path.move(repo, other_pds.url)
    path.put(host, repo.account_frame(5, active=False, status="deleted"))
    until(lambda: drops.since("wrong-host") == 1)
    assert len(path.events()) == 4 and present(path.ingest.accounts.lookup(repo.did)).row.upstream_status == "active"


def test_an_account_that_is_called_inactive_again_and_again_is_slowed_and_its_neighbour_is_not(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its document is read each time."""
    monkeypatch.setattr(penalties, "FREE_CHARGES", 2)
    monkeypatch.setattr(penalties, "FIRST_DELAY_SECONDS", 2.0)
    host, restless, calm = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    for seq, repo in enumerate((restless, calm), 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
    path.logged(2)
    for seq in range(3, 11, 2):
        path.put(host, restless.account_frame(seq))
        path.put(host, restless.account_frame(seq + 1, active=False, status="deactivated"))
    path.put(host, post(calm, "3kaab").frame(11))
    until(lambda: calm.rev in [event.rev for event in path.events() if isinstance(event, Commit)])
    assert host.cursor.position < 10
    until(lambda: host.cursor.position == 11, 20)
    assert statuses(path, 11)[-1] == (False, "deactivated")


@pytest.mark.parametrize("answer", ["tombstone", "404"])
def test_an_account_that_takes_its_did_with_it_is_told_to_be_gone(
    path: EventPath,
    pds: FakePds,
    other_pds: FakePds,
    drops: DropCounter,
    answer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the host that it was last on, which can say nothing else of it."""
    monkeypatch.setattr("relay.identity.negatives.YOUNG_SECONDS", (0.1,))
    reason = "did-tombstone" if answer == "tombstone" else "did-not-found"
    drops.watch(reason)
    host, foreign, repo = path.host(pds.url), path.host(other_pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.resolver.known.forget(repo.did)
    del path.plc.documents[repo.did]
    if answer == "tombstone":
        path.plc.tombstones.add(repo.did)
    path.put(foreign, repo.account_frame(1, active=False, status="deleted"))
    until(lambda: drops.since(reason) == 1, 30)
    path.put(host, repo.account_frame(2, active=False, status="deleted"))
    path.logged(2)
    path.put(host, repo.account_frame(3))
    path.put(host, post(repo, "3kaab").frame(4))
    until(lambda: drops.since(reason) == 3, 30)
    assert statuses(path, 2) == [(False, "deleted")] and len(path.events()) == 2


def test_deleted_accounts_give_their_places_free_until_they_come_back(
    path: EventPath, pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("account-host-throttled")
    host = path.host(pds.url, account_limit=1)
    first, second = path.repo(pds.url), path.repo(pds.url)
    path.put(host, post(first, "3kaaa").frame(1))
    path.put(host, first.account_frame(2, active=False, status="deleted"))
    until(lambda: host.cursor.position == 2)
    assert host.account_count == 0
    path.put(host, post(second, "3kaaa").frame(3))
    assert len(path.logged(3)) == 3 and host.account_count == 1
    path.put(host, first.account_frame(4))
    path.put(host, post(first, "3kaab").frame(5))
    until(lambda: drops.since("account-host-throttled") == 1)
    assert statuses(path, 4)[-1] == (False, "throttled")
    path.restart()
    assert path.host(pds.url).account_count == 2
    assert present(path.ingest.accounts.lookup(first.did)).row.status == "host-throttled"


def test_the_counts_of_an_older_relay_are_put_right_once(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.put(host, repo.account_frame(2, active=False, status="deleted"))
    path.logged(2)
    path.stream.projector.flush()
    path.db.write(lambda tx: tx.execute("UPDATE host SET account_count = 1"))
    path.db.write(installation.remove, "deleted_places_freed")
    for _ in range(2):
        path.restart()
        assert path.host(pds.url).account_count == 0


def test_accounts_that_move_count_against_the_limit(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("account-host-throttled")
    full, roomy = path.host(pds.url, account_limit=0), path.host(other_pds.url)
    repo = path.repo(other_pds.url)
    path.put(roomy, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.move(repo, pds.url)
    path.put(full, post(repo, "3kaab").frame(1))
    until(lambda: drops.since("account-host-throttled") == 1)
    assert statuses(path, 2) == [(False, "throttled")]
    assert (full.account_count, roomy.account_count) == (1, 0)
    path.move(repo, other_pds.url)
    path.put(roomy, post(repo, "3kaac").frame(2))
    assert [type(event) for event in path.logged(4)] == [Commit, Account, Account, Commit]
    assert statuses(path, 4)[-1] == (True, None)


def test_after_a_takedown_nothing_passes_and_nothing_is_replayed(
    path: EventPath, pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("account-takendown")
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.put(host, post(other, "3kaaa").frame(2))
    path.logged(2)
    path.ingest.moderation.takedown(repo.did)
    path.put(host, post(repo, "3kaab").frame(3))
    until(lambda: drops.since("account-takendown") == 1)
    assert replayed_commits(path) == [other.did]
    path.restart()
    host = path.host(pds.url)
    path.put(host, post(repo, "3kaac").frame(4))
    until(lambda: drops.since("account-takendown") == 2)
    assert replayed_commits(path) == [other.did]
    path.ingest.moderation.restore(repo.did)
    path.put(host, post(repo, "3kaad").frame(5))
    path.logged(5)
    assert replayed_commits(path) == [repo.did, other.did, repo.did]


@pytest.mark.parametrize("how", ["moves", "comes back"])
def test_a_takedown_outlasts_the_place_on_a_host(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter, how: str
) -> None:
    """One that is free makes an account active that waits for a place, and no other."""
    drops.watch("account-takendown")
    host, other, repo = path.host(pds.url), path.host(other_pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.ingest.moderation.takedown(repo.did)
    if how == "moves":
        path.move(repo, other_pds.url)
        path.put(other, post(repo, "3kaab").frame(1))
    else:
        path.put(host, repo.account_frame(2, active=False, status="deleted"))
        path.put(host, repo.account_frame(3))
        path.put(host, post(repo, "3kaab").frame(4))
    until(lambda: drops.since("account-takendown") == 1)
    assert present(path.ingest.accounts.lookup(repo.did)).row.status == "takendown"
    assert replayed_commits(path) == []


def test_a_deleted_accounts_past_is_not_replayed(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.put(host, repo.account_frame(2, active=False, status="deleted"))
    assert statuses(path, 2) == [(False, "deleted")]
    assert replayed_commits(path) == []
    path.restart()
    assert replayed_commits(path) == []


@pytest.mark.parametrize("word", ["deleted", "takendown"])
def test_the_past_of_an_account_that_goes_while_it_waits_for_a_place_is_not_replayed(
    path: EventPath, pds: FakePds, other_pds: FakePds, word: str
) -> None:
    full, roomy = path.host(pds.url, account_limit=0), path.host(other_pds.url)
    repo = path.repo(other_pds.url)
    path.put(roomy, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.move(repo, pds.url)
    path.put(full, repo.account_frame(1))
    assert statuses(path, 3) == [(False, "throttled")] * 2 and replayed_commits(path) == [repo.did]
    path.put(full, repo.account_frame(2, active=False, status=word))
    assert statuses(path, 4)[-1] == (False, word) and replayed_commits(path) == []
    path.restart()
    assert replayed_commits(path) == []
    path.put(path.host(pds.url), repo.account_frame(3))
    assert statuses(path, 5)[-1] == (False, "throttled")


def listed(path: EventPath) -> list[str]:
    return [did for _, did in path.db.read(accounts.takedowns, 0, 10)]


def test_a_takedown_is_in_the_log_before_sql_has_it(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch, drops: DropCounter
) -> None:
    """A log that cannot be written: the account's events stop, the admin is told, and no list says it is done."""
    drops.watch("account-takendown")
    monkeypatch.setattr("relay.ingest.moderation.ANNOUNCE_SECONDS", 0.3)
    monkeypatch.setattr("relay.stream.group_commit.RETRY_SECONDS", (0.05,))
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    with monkeypatch.context() as full:

        def no_room(block: object) -> None:
            raise LogError("log-io", "No space left on device")

        full.setattr(path.stream.log, "write", no_room)
        with pytest.raises(LogError):
            path.ingest.moderation.takedown(repo.did)
        path.put(host, post(repo, "3kaab").frame(2))
        until(lambda: drops.since("account-takendown") == 1)
        path.stream.projector.flush()
        assert listed(path) == []
    assert statuses(path, 2) == [(False, "takendown")]
    until(lambda: listed(path) == [repo.did])
    path.ingest.moderation.restore(repo.did)
    assert listed(path) == []


def test_an_account_that_moves_while_its_status_waits_for_the_log_stays_moved(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that cannot be written: the former host's word, with that host in its row, is published after the move."""
    monkeypatch.setattr("relay.stream.group_commit.RETRY_SECONDS", (0.05,))
    former, host, repo = path.host(pds.url), path.host(other_pds.url), path.repo(pds.url)
    path.put(former, post(repo, "3kaaa").frame(1))
    path.logged(1)
    state = present(path.ingest.accounts.lookup(repo.did))
    with monkeypatch.context() as full:

        def no_room(block: object) -> None:
            raise LogError("log-io", "No space left on device")

        full.setattr(path.stream.log, "write", no_room)
        path.put(former, repo.account_frame(2))
        until(lambda: all(lane.idle for lane in path.ingest.lanes._lanes))
        path.move(repo, other_pds.url)
        path.put(host, post(repo, "3kaab").frame(1))
        until(lambda: state.row.host_id == host.id)
    path.logged(3)
    path.store()
    assert path.stored(repo.did)[0].host_id == host.id
    assert [path.host_row(one).account_count for one in (former, host)] == [0, 1]


def test_an_account_in_memory_is_taken_down_while_sql_is_away(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.stream.projector.flush()
    with monkeypatch.context() as away:

        def outage(*_: object) -> None:
            raise StoreError("store-unavailable", "gone")

        away.setattr(path.db, "write", outage)
        path.ingest.moderation.takedown(repo.did)
        assert statuses(path, 2) == [(False, "takendown")]
        assert replayed_commits(path) == []
        assert present(path.stream.projector.account(repo.did))[0].status == "takendown"
    until(lambda: listed(path) == [repo.did])


def test_what_passed_the_gate_before_a_takedown_is_in_the_log_before_it(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the queue to the log is full, and lanes wait with what they judged."""
    monkeypatch.setattr("relay.stream.group_commit.QUEUE_EVENTS", 2)
    host = path.host(pds.url)
    repos = [path.repo(pds.url) for _ in range(8)]
    for seq, repo in enumerate(repos, 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
    path.logged(8)
    held = Event()
    write = path.stream.log.write
    monkeypatch.setattr(path.stream.log, "write", lambda block: held.wait(20) and write(block))
    for seq, repo in enumerate(repos, 9):
        path.put(host, post(repo, "3kaab").frame(seq))
    until(lambda: len(path.stream.sequencer._commits._blocked) >= 4)
    takedown = gevent.spawn(path.ingest.moderation.takedown, repos[-1].did)
    gevent.sleep(0.05)
    held.set()
    takedown.get(timeout=60)
    events = path.logged(17)
    taken = next(place for place, event in enumerate(events) if isinstance(event, Account))
    assert not [event for event in events[taken + 1 :] if event.did == repos[-1].did]


class FullQueue:
    """The queue to the log is full, as the disk does not answer: `blocked` are those who wait, beside `account`."""

    def __init__(self, path: EventPath, host: Host, account: RepoBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("relay.stream.group_commit.QUEUE_EVENTS", 2)
        lane = crc32(account.did.encode()) % LANES
        repos = [path.repo(host.endpoint.url) for _ in range(11)]
        repos = [repo for repo in repos if crc32(repo.did.encode()) % LANES != lane]
        self.events = 2 * len(repos)
        for seq, repo in enumerate(repos, 100):
            path.put(host, post(repo, "3kaaa").frame(seq))
        path.logged(path.stream.firehose.last_seq + len(repos))
        self._answers = Event()
        write = path.stream.log.write
        monkeypatch.setattr(path.stream.log, "write", lambda block: self._answers.wait(60) and write(block))
        for seq, repo in enumerate(repos, 200):
            path.put(host, post(repo, "3kaab").frame(seq))
        self._blocked = path.stream.sequencer._commits._blocked
        until(lambda: len(self._blocked) >= 3, 30)

    def another_waits(self, begin: Callable[[], object]) -> None:
        """Return when what `begin` begins waits for room."""
        waiting = len(self._blocked)
        begin()
        until(lambda: len(self._blocked) > waiting, 30)

    def end(self) -> None:
        """The disk answers."""
        self._answers.set()


def test_what_passes_the_gate_while_a_restored_account_waits_for_room_is_of_an_active_account(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.ingest.moderation.takedown(repo.did)
    queue = FullQueue(path, host, repo, monkeypatch)
    queue.another_waits(lambda: gevent.spawn(path.ingest.moderation.restore, repo.did))
    queue.another_waits(lambda: path.put(host, repo.account_frame(300)))
    queue.end()
    assert statuses(path, 4 + queue.events) == [(False, "takendown"), (True, None), (True, None)]
    assert repo.did in replayed_commits(path)


def test_an_account_taken_down_while_its_recovery_waits_for_room_stays_silent(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch, drops: DropCounter
) -> None:
    drops.watch("account-takendown")
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.put(host, repo.account_frame(2, active=False, status="desynchronized"))
    path.logged(2)
    queue = FullQueue(path, host, repo, monkeypatch)
    queue.another_waits(lambda: path.put(host, post(repo, "3kaab").frame(300)))
    queue.another_waits(lambda: gevent.spawn(path.ingest.moderation.takedown, repo.did))
    queue.end()
    until(lambda: drops.since("account-takendown") == 1, 30)
    assert statuses(path, 4 + queue.events) == [(False, "desynchronized"), (True, None), (False, "takendown")]
    assert repo.did not in replayed_commits(path)


def test_an_account_that_moves_again_while_its_move_waits_for_room_is_not_spoken_for(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch, drops: DropCounter
) -> None:
    """Consumers are told of the move, as the account was over the limit of its former host."""
    drops.watch("wrong-host")
    full, roomy = path.host(pds.url, account_limit=0), path.host(other_pds.url)
    repo = path.repo(pds.url)
    path.put(full, repo.account_frame(1))
    path.logged(1)
    path.move(repo, other_pds.url)
    queue = FullQueue(path, roomy, repo, monkeypatch)
    queue.another_waits(lambda: path.put(roomy, post(repo, "3kaaa").frame(300)))
    path.move(repo, pds.url)
    path.resolver.refresh(repo.did, "another.example.com")
    queue.end()
    until(lambda: drops.since("wrong-host") == 1, 30)
    assert statuses(path, 2 + queue.events) == [(False, "throttled"), (True, None)]
    assert repo.did not in replayed_commits(path)


def test_an_account_taken_down_while_places_are_given_away_stays_down(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To find out how each of the accounts is now may take SQL, and others have their turns meanwhile."""
    host = path.host(pds.url, account_limit=0)
    repos = [path.repo(pds.url) for _ in range(2)]
    for seq, repo in enumerate(repos, 1):
        path.put(host, repo.account_frame(seq))
    path.logged(2)
    path.store()
    lookup = path.ingest.accounts.lookup
    taken: list[str] = []

    def take_down_the_first(did: str) -> AccountState | None:
        if did == repos[1].did and not taken:
            taken.append(did)
            path.ingest.moderation.takedown(repos[0].did)
        return lookup(did)

    monkeypatch.setattr(path.ingest.accounts, "lookup", take_down_the_first)
    assert path.ingest.moderation.release_throttled(host, 2) == 1
    path.store()
    assert [path.db.read(accounts.many_by_did, [repo.did])[repo.did][0].status for repo in repos] == [
        "takendown",
        "active",
    ]


def test_a_takedown_of_nobody_is_refused(path: EventPath) -> None:
    with pytest.raises(AccountUnknown):
        path.ingest.moderation.takedown("did:plc:" + "z" * 24)


def test_a_stale_inactive_account_is_healed_by_its_host(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.account_frame(1, active=False, status="deactivated"))
    path.logged(1)
    pds.repo_status[repo.did] = {"did": repo.did, "active": True, "rev": "x"}
    path.put(host, post(repo, "3kaaa").frame(2))
    path.logged(3)
    path.stream.projector.flush()
    assert path.db.read(accounts.many_by_did, [repo.did])[repo.did][0].upstream_status == "active"


@pytest.mark.parametrize("odd", [{"did": "did:plc:" + "z" * 24}, {"active": 1}], ids=str)
def test_an_answer_that_is_about_another_account_or_not_clear_heals_nothing(
    path: EventPath, pds: FakePds, drops: DropCounter, odd: dict[str, object]
) -> None:
    drops.watch("account-inactive")
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.account_frame(1, active=False, status="deactivated"))
    path.logged(1)
    pds.repo_status[repo.did] = {"did": repo.did, "active": True, "rev": "x"} | odd
    path.put(host, post(repo, "3kaaa").frame(2))
    until(lambda: drops.since("account-inactive") == 1)
    assert statuses(path, 1) == [(False, "deactivated")]


def test_a_confirmed_inactive_account_is_asked_about_once(path: EventPath, pds: FakePds, drops: DropCounter) -> None:
    drops.watch("account-inactive")
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.account_frame(1, active=False, status="deactivated"))
    path.logged(1)
    pds.repo_status[repo.did] = {"did": repo.did, "active": False, "status": "suspended"}
    for seq in range(2, 6):
        path.put(host, post(repo, f"3kaa{seq}").frame(seq))
    until(lambda: drops.since("account-inactive") == 4)
    assert sum("getRepoStatus" in request for request in pds.requests) == 1
    path.stream.projector.flush()
    assert path.db.read(accounts.many_by_did, [repo.did])[repo.did][0].upstream_status == "suspended"


def test_a_host_that_does_not_answer_costs_only_its_own_account(
    path: EventPath, pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("account-inactive")
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, repo.account_frame(1, active=False, status="deactivated"))
    path.put(host, post(other, "3kaaa").frame(2))
    path.logged(2)

    def read_only(sock: socket.socket) -> None:
        while sock.recv(1 << 16):
            pass

    pds.on_accept = read_only
    path.put(host, post(repo, "3kaaa").frame(3))
    path.put(host, post(other, "3kaab").frame(4))
    assert len(path.logged(3)) == 3
    until(lambda: drops.since("account-inactive") == 1, timeout=10)


def settled(host: Host, seq: int) -> bool:
    return host.cursor.position == seq


def test_accounts_over_the_hosts_limit_wait_for_a_higher_one(path: EventPath, pds: FakePds, drops: DropCounter) -> None:
    drops.watch("account-host-throttled")
    host = path.host(pds.url, account_limit=1)
    repos = [path.repo(pds.url) for _ in range(3)]
    path.put(host, post(repos[0], "3kaaa").frame(1))
    path.logged(1)
    for seq, repo in enumerate(repos[1:], 2):
        path.put(host, post(repo, "3kaaa").frame(seq))
        until(partial(settled, host, seq))
    path.stream.projector.flush()
    assert path.host_row(host).account_count == 3
    assert path.ingest.moderation.release_throttled(host, 1) == 1
    path.put(host, post(repos[1], "3kaab").frame(4))
    assert statuses(path, 3) == [(True, None)]
    path.put(host, post(repos[2], "3kaab").frame(5))
    until(lambda: drops.since("account-host-throttled") == 3)


def test_places_that_come_free_go_to_those_who_wait_the_oldest_first(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(places, "PASSES", 10_000)
    host, elsewhere = path.host(pds.url, account_limit=3), path.host(other_pds.url)
    inside, waiting = [path.repo(pds.url) for _ in range(3)], [path.repo(pds.url) for _ in range(3)]
    for seq, repo in enumerate(inside + waiting, 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
        until(partial(settled, host, seq))

    def active() -> list[str]:
        states = [(repo, path.ingest.accounts.lookup(repo.did)) for repo in inside + waiting]
        return [repo.did for repo, state in states if state and state.row.status == "active"]

    path.put(host, waiting[0].account_frame(7, active=False, status="deactivated"))
    until(partial(settled, host, 7))
    # Who has the place is read in SQL.
    path.store()
    path.put(host, inside[0].account_frame(8, active=False, status="deleted"))
    until(lambda: waiting[1].did in active(), timeout=20)
    # Who was deactivated is the next one once active again.
    path.put(host, waiting[0].account_frame(9))
    until(partial(settled, host, 9))
    path.store()
    path.move(inside[1], other_pds.url)
    path.put(elsewhere, path.repo(other_pds.url).commit(create("app.bsky.feed.post/3kaaa", {})).frame(1))
    path.put(elsewhere, post(inside[1], "3kaab").frame(2))
    until(lambda: waiting[0].did in active(), timeout=20)
    assert waiting[2].did not in active()
    told = [event.did for event in path.events() if isinstance(event, Account) and event.active]
    assert told.count(waiting[1].did) == 1 and waiting[2].did not in told
    path.put(host, post(waiting[1], "3kaab").frame(10))
    until(lambda: [event.did for event in path.events() if isinstance(event, Commit)][-1] == waiting[1].did)


def test_a_limit_that_is_raised_before_sql_knows_who_waits_lets_them_in(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(places, "PASSES", 10_000)
    host = path.host(pds.url, account_limit=1)
    repos = [path.repo(pds.url) for _ in range(3)]
    for seq, repo in enumerate(repos, 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
        until(partial(settled, host, seq))
    host.row.account_limit = 2
    path.ingest.places.look_at(host)
    until(lambda: present(path.ingest.accounts.lookup(repos[1].did)).row.status == "active", timeout=20)
    assert present(path.ingest.accounts.lookup(repos[2].did)).row.status == "host-throttled"


@pytest.mark.parametrize(
    "change", [{"status": "takendown"}, {"upstream_status": "deactivated"}, {"host_id": 99}], ids=str
)
def test_a_place_is_not_given_to_one_who_is_known_not_to_wait_for_it_any_longer(
    path: EventPath, pds: FakePds, change: dict[str, Any]
) -> None:
    """Taken down, gone, or on another host by now, which SQL does not know yet."""
    host = path.host(pds.url, account_limit=1)
    repos = [path.repo(pds.url) for _ in range(3)]
    for seq, repo in enumerate(repos, 1):
        path.put(host, post(repo, "3kaaa").frame(seq))
        until(partial(settled, host, seq))
    path.stream.projector.flush()
    state = present(path.ingest.accounts.lookup(repos[1].did))
    changed = replace(state.row, **change)
    state.set_row(changed)
    assert path.ingest.moderation.release_throttled(host, 2) == 1
    assert present(path.ingest.accounts.lookup(repos[1].did)).row == changed


def test_a_takedown_that_cannot_be_handed_to_the_log_is_not_in_force(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    with monkeypatch.context() as stopping:

        def stopped(entry: object) -> None:
            raise LogError("log-stopped")

        stopping.setattr(path.stream.sequencer, "submit", stopped)
        with pytest.raises(LogError):
            path.ingest.moderation.takedown(repo.did)
    path.put(host, post(repo, "3kaab").frame(2))
    assert isinstance(path.logged(2)[1], Commit)


def test_consumers_are_told_that_events_are_missing_of_a_hosts_own_accounts_that_are_active(
    path: EventPath, pds: FakePds, other_pds: FakePds
) -> None:
    host, foreign, repo = path.host(pds.url), path.host(other_pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    hosting = path.ingest.lanes._lanes[0]._hosting
    assert not hosting.throttle(repo.did, foreign)
    assert hosting.throttle(repo.did, host)
    path.ingest.moderation.takedown(repo.did)
    assert not hosting.throttle(repo.did, host)
    assert statuses(path, 3) == [(True, "throttled"), (False, "takendown")]


def test_an_account_that_sends_garbage_is_slowed_and_its_neighbour_is_not(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.watch("signature-invalid")
    monkeypatch.setattr(penalties, "FREE_CHARGES", 3)
    monkeypatch.setattr(penalties, "FIRST_DELAY_SECONDS", 0.4)
    throttled = metrics.ACCOUNT_THROTTLED_SECONDS._value.get()
    host, bad, good = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    for seq in range(1, 10):
        forged = bad.commit(create(f"app.bsky.feed.post/3kaa{seq}", {}), sign_with=SigningKey.create(seed=50))
        path.put(host, forged.frame(seq))
    path.put(host, post(good, "3kaaa").frame(10))
    path.logged(1)
    assert drops.since("signature-invalid") < 9
    assert host.cursor.position < 9
    until(lambda: metrics.ACCOUNT_THROTTLED_SECONDS._value.get() >= throttled + 0.4)


def test_an_idle_account_is_known_without_sql(path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "BUSY", 1)
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "one").frame(1))
    path.put(host, post(other, "one").frame(2))
    path.logged(2)
    monkeypatch.setattr(path.ingest.accounts, "_find", lambda did: pytest.fail(f"SQL was asked for {did}"))
    states = [path.ingest.accounts.lookup(one.did) for one in (repo, other, repo)]
    assert [state and state.repo and (state.row.did, state.row.host_id, state.repo.rev) for state in states] == [
        (one.did, host.id, one.rev) for one in (repo, other, repo)
    ]


def test_all_who_hold_an_account_see_what_one_of_them_changes(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_module, "BUSY", 1)
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "one").frame(1))
    path.put(host, post(other, "one").frame(2))
    path.logged(2)
    known = path.ingest.accounts
    held = known.lookup(repo.did)
    assert held and known.lookup(other.did)
    # No longer busy, yet held: what is put into it is kept, and what an admin does is seen.
    held.set_repo(None)
    path.ingest.moderation.takedown(repo.did)
    assert held.row.status == "takendown"
    assert known.lookup(other.did)
    del held
    found = known.lookup(repo.did)
    assert found and (found.row.status, found.repo) == ("takendown", None)


def test_a_host_that_gave_no_answer_is_asked_again_soon(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer confirms nothing: an account must not be silent for minutes because its host was for a moment."""
    monkeypatch.setattr("relay.ingest.waits.UNANSWERED_SECONDS", 0.2)
    drops.watch("account-inactive")
    path.restart()
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.account_frame(1, active=False, status="deactivated"))
    path.logged(1)
    for seq in (2, 3):
        path.put(host, post(repo, f"3kaa{seq}").frame(seq))
    until(lambda: drops.since("account-inactive") == 2)
    assert sum("getRepoStatus" in request for request in pds.requests) == 1, "not for each event"
    pds.repo_status[repo.did] = {"did": repo.did, "active": True, "rev": "x"}
    gevent.sleep(0.25)
    path.put(host, post(repo, "3kaa4").frame(4))
    assert len(path.logged(3)) == 3

"""Accounts of which something was missed: noted with the cursor, fetched from their hosts, judged like any event."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from relay.atproto.frames import Account, Commit, Sync
from relay.healing import accounts as healing_accounts
from relay.healing import budgets
from relay.hosts.host import Host
from relay.hosts.lifecycle import Cause
from relay.identity import directory, negatives, resolver
from relay.ingest import waits
from relay.ingest.lines import ACCOUNT_PLACES
from relay.kit import metrics
from relay.kit.errors import StoreError
from relay.store import healing, hosts
from relay.store.healing import LISTED
from tests.support.blocks import car, cid_of, cid_text
from tests.support.event_path import DropCounter, EventPath
from tests.support.healing import connected, known, noted
from tests.support.pds import FakePds
from tests.support.present import present
from tests.support.repo import POST, RepoBuilder, SigningKey, create, timestamp
from tests.support.wait import until


def marked(path: EventPath) -> int:
    """How many accounts are marked as missing something."""
    path.store()
    return len(path.db.read(lambda tx: tx.rows("SELECT uid FROM repo_desynchronized")))


def outcomes(outcome: str) -> float:
    return float(metrics.HEALS.labels(outcome)._value.get())


def behind_a_break(path: EventPath, pds: FakePds, host: Host) -> RepoBuilder:
    """An account of `host` with a commit that was missed, and the next one in the log."""
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/missed", {}))
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(2))
    path.logged(2)
    return repo


def test_an_account_behind_a_break_is_healed(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = behind_a_break(path, pds, host)
    assert [(missed.did, missed.reason) for missed in noted(path, host)] == [(repo.did, "desynchronized")]
    path.heal()
    *_, last = path.logged(3)
    assert isinstance(last, Sync) and (last.did, last.rev) == (repo.did, repo.rev)
    assert noted(path, host) == []
    assert path.db.read(lambda tx: tx.rows("SELECT uid FROM repo_desynchronized")) == []
    # The stream goes on from what was fetched.
    path.put(host, repo.commit(create(f"{POST}/c", {})).frame(3))
    *_, last = path.logged(4)
    assert isinstance(last, Commit) and last.rev == repo.rev
    path.heal()
    assert len(path.events()) == 4


def test_an_account_that_moves_while_the_directory_denies_it_is_healed(
    path: EventPath, pds: FakePds, other_pds: FakePds
) -> None:
    """That a known DID does not exist is not believed at once: what was known of it says that it is another host's."""
    host, other = connected(path, pds), connected(path, other_pds)
    repo = known(path, pds, host)
    del path.plc.documents[repo.did]
    path.put(other, repo.commit(create(f"{POST}/b", {})).frame(1))
    until(lambda: other.cursor.position == 1)
    assert [(missed.did, missed.reason) for missed in noted(path, other)] == [(repo.did, "wrong-host")]
    path.move(repo, other_pds.url)
    other_pds.repos[repo.did] = repo
    path.heal()
    last = path.logged(2)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev and noted(path, other) == []


def test_a_commit_that_the_stream_may_still_bring_is_not_fetched(path: EventPath, pds: FakePds) -> None:
    """A `#sync` of the newest commit would have all before it dropped that are on their way."""
    host = connected(path, pds)
    repo = known(path, pds, host)
    host.connected_at = now = time.time()
    # The newest commit is of now, and what the stream has brought is of a minute ago.
    missed = [repo.commit(create(f"{POST}/{name}", {}), at_us=int(now * 1e6) + at) for at, name in enumerate("bcd")]
    host.note_event(timestamp(int(now * 1e6) - 60_000_000), now)
    path.stream.projector.note_missed(host.id, repo.did, "signature-invalid")
    before = outcomes("to-come")
    path.heal()
    assert len(path.events()) == 1 and outcomes("to-come") == before + 1
    for seq, commit in enumerate(missed, 2):
        path.put(host, commit.frame(seq))
    assert [type(event) for event in path.logged(4)] == [Commit] * 4
    path.ahead += 60
    path.heal()
    assert noted(path, host) == [] and len(path.events()) == 4


def test_commits_before_an_account_was_gone_are_waited_for(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    pds.repo_status[repo.did] = {"did": repo.did, "active": False, "status": "deactivated"}
    pds.answers["getLatestCommit"] = lambda _: (400, b'{"error":"RepoDeactivated"}')
    host.connected_at = now = time.time()
    host.note_event(timestamp(int(now * 1e6) - 20_000_000), now)
    path.stream.projector.note_missed(host.id, repo.did, "signature-invalid")
    path.heal()
    assert len(path.events()) == 1
    path.put(host, repo.commit(create(f"{POST}/b", {}), at_us=int(now * 1e6)).frame(2))
    path.put(host, repo.account_frame(3, active=False, status="deactivated"))
    assert [type(event) for event in path.logged(3)] == [Commit, Commit, Account]
    path.ahead += 60
    path.heal()
    assert noted(path, host) == [] and len(path.events()) == 3


@pytest.mark.parametrize("reason", ["quiet", "past it", "long connected", "old commit", "a break before it"])
def test_a_commit_that_no_stream_brings_is_fetched(path: EventPath, pds: FakePds, reason: str) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    now = time.time()
    made_at = now - (90_000 if reason == "old commit" else 10)
    if reason == "a break before it":
        repo.commit(create(f"{POST}/missed", {}), at_us=int(made_at * 1e6) - 1)
    commit = repo.commit(create(f"{POST}/b", {}), at_us=int(made_at * 1e6))
    if reason == "a break before it":
        path.put(host, commit.frame(2))
        path.logged(2)
    else:
        path.stream.projector.note_missed(host.id, repo.did, "signature-invalid")
    host.connected_at = now - (601 if reason == "long connected" else 30)
    stated = now - (9 if reason == "past it" else 100_000)
    host.note_event(timestamp(int(stated * 1e6)), now - (4 if reason == "quiet" else 0))
    path.heal()
    *_, last = path.logged(3 if reason == "a break before it" else 2)
    assert isinstance(last, Sync) and last.rev == repo.rev


def test_what_was_dropped_is_noted_with_the_cursor_and_healed_after_a_restart(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    broken = repo.commit(create(f"{POST}/b", {}), sign_with=SigningKey.create(seed=99))
    path.put(host, broken.frame(2))
    until(lambda: host.cursor.position == 2)
    path.restart()
    host = path.registry.add(path.db.read(hosts.all_rows)[0])
    assert host.cursor.position == 2
    host.connected_at = time.time() - 60
    assert [(missed.did, missed.reason) for missed in noted(path, host)] == [(repo.did, "signature-invalid")]
    repo.commit(create(f"{POST}/c", {}))
    path.heal()
    *_, last = path.logged(2)
    assert isinstance(last, Sync) and last.rev == repo.rev
    assert noted(path, host) == []
    assert host.cursor.position == 2, "what was fetched moves no cursor"


def test_records_that_were_fetched_do_not_confuse_the_cursor_of_a_restart(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = path.repo(pds.url)
    repo.commit(create(f"{POST}/a", {}))
    pds.repos[repo.did] = repo
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    path.logged(1)
    path.restart()
    host = path.registry.add(path.db.read(hosts.all_rows)[0])
    assert host.cursor.position == -1
    assert not path.stream.cursors.restored


def test_an_unreadable_event_is_missed_and_nothing_of_it_is_needed(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/b", {}))
    path.ingest.lanes.reject(host, 2, "frame-field", repo.did, "rev")
    path.heal()
    assert isinstance(path.logged(2)[-1], Sync)


def test_an_event_of_nobody_is_a_gap_of_the_host(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    path.ingest.lanes.reject(host, 2, "message-too-big", None)
    path.store()
    assert path.db.read(lambda tx: tx.rows("SELECT host_id, reason, state FROM heal_host")) == [
        (host.id, "unreadable", "due")
    ]


@pytest.mark.parametrize("reason", ["wrong-host", "rev-old", "seq-not-rising"])
def test_what_is_no_loss_is_not_noted(path: EventPath, pds: FakePds, reason: str) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.ingest.lanes.reject(host, 2, reason, repo.did)
    assert noted(path, host) == []


@pytest.mark.parametrize("rev", [None, "2222222222222", ""], ids=["the last one", "the first one", "none"])
def test_a_commit_under_an_old_rev_that_is_not_its_own_is_missed(
    path: EventPath, pds: FakePds, drops: DropCounter, rev: str | None
) -> None:
    drops.watch("rev-old")
    host = connected(path, pds)
    repo = known(path, pds, host)
    old = repo.rev
    first = repo.commit(create(f"{POST}/b", {}))
    path.put(host, first.frame(2))
    path.logged(2)
    event = repo.commit(create(f"{POST}/c", {}))
    event.fields["rev"] = old if rev is None else rev
    path.put(host, event.frame(3))
    path.put(host, first.frame(4))
    until(lambda: host.cursor.position == 4)
    assert drops.since("rev-old") == 1, "the repetition alone"
    assert [missed.did for missed in noted(path, host)] == [repo.did]
    path.heal()
    last = path.logged(3)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev


def test_an_account_that_is_in_step_costs_one_question(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    asked, before = len(pds.requests), outcomes("current")
    path.heal()
    assert len(pds.requests) - asked == 1 and outcomes("current") == before + 1
    assert noted(path, host) == [] and len(path.events()) == 1


@pytest.mark.parametrize(
    ("status", "name"), [(400, "RepoTakendown"), (403, "RepoTakendown"), (403, "RepoInactive"), (410, "RepoDeleted")]
)
def test_an_account_that_its_host_took_down_is_told(path: EventPath, pds: FakePds, status: int, name: str) -> None:
    """Which status comes with a name, and which names there are, is not the same in all software of hosts."""
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    pds.answers["getLatestCommit"] = lambda _: (status, b'{"error":"%b"}' % name.encode())
    pds.repo_status[repo.did] = {"did": repo.did, "active": False, "status": "takendown"}
    path.heal()
    last = path.logged(2)[-1]
    assert isinstance(last, Account) and (last.active, last.status) == (False, "takendown")
    assert noted(path, host) == []


def is_told_active_and_healed(path: EventPath, repo: RepoBuilder) -> None:
    """Of four events these are the last two."""
    *_, told, healed = path.logged(4)
    assert isinstance(told, Account) and told.active
    assert isinstance(healed, Sync) and healed.rev == repo.rev


def test_an_account_that_came_back_unheard_is_told_and_healed(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.put(host, repo.account_frame(2, active=False, status="deactivated"))
    path.logged(2)
    repo.commit(create(f"{POST}/b", {}))
    pds.repo_status[repo.did] = {"did": repo.did, "active": True}
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    is_told_active_and_healed(path, repo)


def test_an_account_whose_status_nobody_told_is_healed_later(path: EventPath, pds: FakePds) -> None:
    """It is active again, its host did not say so, and did not answer when the next commit came."""
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.put(host, repo.account_frame(2, active=False, status="deactivated"))
    path.logged(2)
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(3))
    until(lambda: host.cursor.position == 3)
    assert [(missed.did, missed.reason) for missed in noted(path, host)] == [(repo.did, "account-inactive")]
    pds.repo_status[repo.did] = {"did": repo.did, "active": True}
    path.heal()
    is_told_active_and_healed(path, repo)


def test_an_account_that_its_host_calls_inactive_is_not_noted(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.put(host, repo.account_frame(2, active=False, status="deactivated"))
    pds.repo_status[repo.did] = {"did": repo.did, "active": False, "status": "deactivated"}
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(3))
    until(lambda: host.cursor.position == 3)
    assert noted(path, host) == []


@pytest.mark.parametrize("broken", ["no key", "no document"])
def test_what_a_broken_document_cost_is_healed_when_it_is_whole(path: EventPath, pds: FakePds, broken: str) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    document = path.plc.documents[repo.did]
    assert isinstance(document, dict)
    path.plc.documents[repo.did] = document | {"verificationMethod": []} if broken == "no key" else b"{" + b"x" * 70_000
    path.resolver.known.forget(repo.did)
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(2))
    until(lambda: host.cursor.position == 2)
    path.plc.documents[repo.did] = document
    # As after two minutes.
    path.resolver._negatives.found(repo.did)
    path.heal()
    last = path.logged(2)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev


def no_answer(*_: Any) -> None:
    raise StoreError("store-unavailable", "no answer")


def not_in_the_directory(path: EventPath, pds: FakePds, host: Host) -> tuple[RepoBuilder, dict[str, Any] | bytes]:
    """A new account whose first event was dropped, and its document, which the directory does not have."""
    repo = path.repo(pds.url)
    pds.repos[repo.did] = repo
    document = path.plc.documents.pop(repo.did)
    path.put(host, repo.commit(create(f"{POST}/a", {})).frame(1))
    until(lambda: host.cursor.position == 1)
    assert [(missed.did, missed.reason) for missed in noted(path, host)] == [(repo.did, "did-not-found")]
    return repo, document


def look_again(path: EventPath, repo: RepoBuilder, seconds: float) -> None:
    """As after so many seconds, for longer than which the directory's word is not believed."""
    path.ahead += seconds
    path.resolver._negatives.found(repo.did)
    path.heal()


def test_a_new_account_is_healed_once_the_directory_has_it(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wrote before a mirror of the directory had it, and does not write again."""
    monkeypatch.setattr(negatives, "YOUNG_SECONDS", (0.1,))
    host = connected(path, pds)
    repo, document = not_in_the_directory(path, pds, host)
    path.heal()
    assert not pds.requests, "the directory's word is believed for two minutes"
    for seconds in (200.0, 250.0, 450.0):
        look_again(path, repo, seconds)
    assert noted(path, host)[0].attempts == 3 and path.events() == []
    path.plc.documents[repo.did] = document
    look_again(path, repo, 900.0)
    last = path.logged(1)[-1]
    assert isinstance(last, Sync) and (last.did, last.rev) == (repo.did, repo.rev)
    assert noted(path, host) == []


def test_an_account_that_the_directory_never_has_is_given_up(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "YOUNG_SECONDS", ())
    host = connected(path, pds)
    repo, _ = not_in_the_directory(path, pds, host)
    for _ in range(10):
        look_again(path, repo, 3600.0)
    assert noted(path, host) == [] and path.events() == []
    assert path.plc.asked[repo.did] == 1 + healing_accounts.NOT_FOUND_ATTEMPTS


def test_an_account_that_is_merely_listed_and_in_no_directory_is_looked_at_once(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "YOUNG_SECONDS", ())
    host = connected(path, pds)
    repo = path.repo(pds.url)
    repo.commit(create(f"{POST}/a", {}))
    pds.repos[repo.did] = repo
    del path.plc.documents[repo.did]
    path.stream.projector.note_missed(host.id, repo.did, healing.UNSEEN)
    path.heal()
    assert path.plc.asked[repo.did] == 1 and noted(path, host) == []


def test_an_account_that_is_released_is_healed(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.ingest.moderation.takedown(repo.did)
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(2))
    until(lambda: host.cursor.position == 2)
    path.heal()
    assert noted(path, host) == [], "what is taken down is not fetched"
    path.ingest.moderation.restore(repo.did)
    path.heal()
    last = path.logged(4)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev


def test_what_is_missed_while_an_account_is_healed_outlives_it(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/b", {}))
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    latest = pds._of_repo("com.atproto.sync.getLatestCommit", repo)

    def slowly(_: dict[str, str]) -> tuple[int, bytes]:
        path.stream.projector.note_missed(host.id, repo.did, "frame-field")
        path.store()
        assert latest is not None
        return latest

    pds.answers["getLatestCommit"] = slowly
    path.heal()
    path.logged(2)
    assert len(noted(path, host)) == 1
    del pds.answers["getLatestCommit"]
    path.heal()
    assert noted(path, host) == [] and len(path.events()) == 2


def test_an_account_that_writes_faster_than_it_is_healed_stays_noted(path: EventPath, pds: FakePds) -> None:
    """What was fetched is older than what its stream brought meanwhile: what was missed before that still is."""
    host = connected(path, pds)
    repo = behind_a_break(path, pds, host)
    before = pds._of_repo("com.atproto.sync.getLatestCommit", repo)
    assert before is not None

    def overtaken(_: dict[str, str]) -> tuple[int, bytes]:
        path.put(host, repo.commit(create(f"{POST}/c", {})).frame(3))
        path.logged(3)
        del pds.answers["getLatestCommit"]
        return before

    pds.answers["getLatestCommit"] = overtaken
    path.heal()
    assert [missed.did for missed in noted(path, host)] == [repo.did]
    path.heal()
    last = path.logged(4)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev
    assert marked(path) == 0


def test_a_gap_right_after_one_that_was_healed_is_noted(path: EventPath, pds: FakePds) -> None:
    """Before SQL was told that the first one is closed."""
    host = connected(path, pds)
    repo = behind_a_break(path, pds, host)
    (missed,) = noted(path, host)
    with path.stream.projector._one_flush:
        path.put(host, repo.sync_frame(3))
        repo.commit(create(f"{POST}/missed-again", {}))
        path.put(host, repo.commit(create(f"{POST}/c", {})).frame(4))
        path.logged(4)
    path.db.write(healing.settle, missed)
    assert [missed.did for missed in noted(path, host)] == [repo.did]
    path.heal()
    assert isinstance(path.logged(5)[-1], Sync) and marked(path) == 0


def test_an_account_of_which_something_is_missing_is_healed_where_it_moves(
    path: EventPath, pds: FakePds, other_pds: FakePds
) -> None:
    host, other = connected(path, pds), connected(path, other_pds)
    repo = behind_a_break(path, pds, host)
    path.move(repo, other_pds.url)
    other_pds.repos[repo.did] = repo
    path.put(other, repo.identity_frame(1))
    path.put(other, repo.account_frame(2))
    path.logged(4)
    path.heal()
    path.ahead += 60
    path.heal()
    last = path.logged(5)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev
    assert marked(path) == 0 and noted(path, host) == noted(path, other) == []


def test_an_account_of_which_something_is_missing_is_healed_when_it_is_active_again(
    path: EventPath, pds: FakePds
) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/missed", {}))
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(2))
    path.put(host, repo.account_frame(3, active=False, status="deactivated"))
    path.logged(3)
    pds.repo_status[repo.did] = {"did": repo.did, "active": False, "status": "deactivated"}
    pds.answers["getLatestCommit"] = lambda _: (400, b'{"error":"RepoDeactivated"}')
    path.heal()
    assert noted(path, host) == []
    pds.answers.clear()
    pds.repo_status.clear()
    path.put(host, repo.account_frame(4, active=True))
    path.logged(4)
    path.heal()
    last = path.logged(5)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev and marked(path) == 0


@pytest.mark.parametrize("writes_fail", [False, True])
def test_an_account_that_was_away_between_two_writes_to_sql_is_healed(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch, writes_fail: bool
) -> None:
    """Deactivated, and active again half a second later: SQL never has the first of it."""
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.store()
    projector = path.stream.projector
    with projector._one_flush:
        path.put(host, repo.account_frame(2, active=False, status="deactivated"))
        pds.repo_status[repo.did] = {"did": repo.did, "active": False, "status": "deactivated"}
        path.logged(2)
        path.put(host, repo.commit(create(f"{POST}/b", {})).frame(3))
        until(lambda: host.cursor.position == 3)
        if writes_fail:
            with monkeypatch.context() as away:
                away.setattr(path.db, "write", no_answer)
                assert not projector._flush()
        pds.repo_status.clear()
        path.put(host, repo.account_frame(4, active=True))
        path.logged(3)
    path.heal()
    last = path.logged(4)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev


@pytest.mark.parametrize("status", ["deactivated", "desynchronized"])
def test_an_account_that_wrote_while_its_host_did_not_serve_it_is_healed(
    path: EventPath, pds: FakePds, status: str
) -> None:
    """Its commits were dropped, and when it is active again nothing but that comes."""
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.put(host, repo.account_frame(2, active=False, status=status))
    pds.repo_status[repo.did] = {"did": repo.did, "active": False, "status": status}
    path.logged(2)
    repo.commit(create(f"{POST}/missed", {}))
    path.put(host, repo.commit(create(f"{POST}/b", {})).frame(3))
    until(lambda: host.cursor.position == 3)
    path.heal()
    assert noted(path, host) == [] and len(path.events()) == 2
    pds.repo_status.clear()
    path.put(host, repo.account_frame(4, active=True))
    path.logged(3)
    path.heal()
    last = path.logged(4)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev and noted(path, host) == []


def test_an_account_that_was_given_up_is_tried_again_when_it_writes(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing_accounts, "ATTEMPTS", 1)
    host = connected(path, pds)
    repo = behind_a_break(path, pds, host)
    pds.answers["getLatestCommit"] = lambda _: (200, b"{}")
    path.heal()
    assert noted(path, host) == []
    pds.answers.clear()
    path.put(host, repo.commit(create(f"{POST}/c", {})).frame(3))
    path.logged(3)
    path.heal()
    assert isinstance(path.logged(4)[-1], Sync) and marked(path) == 0


# Hosts that are slow, wrong or hostile


def test_a_wrong_signature_is_refused_and_tried_again_later(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/b", {}), sign_with=SigningKey.create(seed=99))
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    (missed,) = noted(path, host)
    assert missed.attempts == 1 and len(path.events()) == 1
    assert path.db.read(healing.due, host.id, time.time() + path.ahead + 20, 10) == []
    path.ahead += 60
    repo.commit(create(f"{POST}/c", {}))
    path.heal()
    assert isinstance(path.logged(2)[-1], Sync) and noted(path, host) == []


def test_what_a_clock_put_off_that_was_far_ahead_is_due(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/b", {}))
    year = 365 * 86_400.0
    path.db.write(healing.note, {(host.id, repo.did): "frame-field"}, time.time() + year)
    assert path.db.read(healing.hosts_due, time.time()) == [host.id]
    path.heal()
    assert isinstance(path.logged(2)[-1], Sync) and noted(path, host) == []


def test_a_commit_of_another_account_is_refused(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo, other = known(path, pds, host), known(path, pds, host, 2)
    other.commit(create(f"{POST}/b", {}))
    pds.repos[repo.did] = other
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    assert len(path.events()) == 2 and noted(path, host)[0].attempts == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{", b'{"cid":1,"rev":2}', b'{"cid":"x","rev":"3kabcdefghij2"}', b"[" * 20_000, b"x" * 1_000_000],
    ids=["empty", "list", "cut", "numbers", "no-cid", "deep", "huge"],
)
def test_an_answer_that_names_no_commit_is_refused(path: EventPath, pds: FakePds, answer: bytes) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    pds.answers["getLatestCommit"] = lambda _: (200, answer)
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    assert len(path.events()) == 1 and noted(path, host)[0].attempts == 1


@pytest.mark.parametrize("name", [b"[]", b"{}", b"1", b"null", b'"Odd"'])
def test_an_error_that_has_no_name_is_refused(path: EventPath, pds: FakePds, name: bytes) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    pds.answers["getLatestCommit"] = pds.answers["getRepo"] = lambda _: (400, b'{"error":' + name + b"}")
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    before = outcomes("refused")
    path.heal()
    assert outcomes("refused") == before + 1


def test_a_huge_or_broken_block_is_not_taken(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/b", {}))
    huge = repo.head_block + b"\0" * 100_000
    for method in ("getBlocks", "getRecord", "getRepo"):
        pds.answers[method] = lambda _: (200, car([repo.head], {repo.head: huge}))
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    assert len(path.events()) == 1 and noted(path, host)[0].attempts == 1


@pytest.mark.parametrize("size", [10_000, 20_000, 40_000])
def test_a_commit_object_that_is_too_large_for_an_event_is_refused(path: EventPath, pds: FakePds, size: int) -> None:
    """It may name any account, in as many letters."""
    host = connected(path, pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/b", {}))
    name = b"\x79" + size.to_bytes(2) + b"did:web:".ljust(size, b"a")
    block = repo.head_block.replace(b"\x78\x20" + repo.did.encode(), name)
    newest = {"cid": cid_text(cid_of(block)), "rev": repo.rev}
    pds.answers["getLatestCommit"] = lambda _: (200, json.dumps(newest).encode())
    pds.answers["getBlocks"] = lambda _: (200, car([cid_of(block)], {cid_of(block): block}))
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    before = outcomes("refused")
    path.heal()
    assert len(path.events()) == 1 and outcomes("refused") == before + 1


def test_of_a_large_repository_the_beginning_is_enough(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/b", {}))
    pds.answers["getBlocks"] = pds.answers["getRecord"] = lambda _: (501, b'{"error":"MethodNotImplemented"}')
    whole = car([repo.head], {repo.head: repo.head_block}) + b"\xff" * 2_000_000
    pds.answers["getRepo"] = lambda _: (200, whole)
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    assert isinstance(path.logged(2)[-1], Sync) and noted(path, host) == []


@pytest.mark.parametrize(
    ("status", "body"),
    [(501, b'{"error":"MethodNotImplemented"}'), (501, b""), (404, b"<h1>Not here</h1>"), (403, b"")],
)
def test_a_host_without_the_method_is_asked_for_the_repository(
    path: EventPath, pds: FakePds, status: int, body: bytes
) -> None:
    host = connected(path, pds)
    repo, gone = known(path, pds, host), known(path, pds, host, 2)
    repo.commit(create(f"{POST}/b", {}))
    pds.answers["getLatestCommit"] = lambda _: (status, body)
    pds.answers["getRepo"] = lambda query: (
        (400, b'{"error":"RepoTakendown"}')
        if query["did"] == gone.did
        else pds._of_repo("com.atproto.sync.getRepo", repo) or (404, b"")
    )
    pds.repo_status[gone.did] = {"did": gone.did, "active": False, "status": "takendown"}
    for one in (repo, gone):
        path.stream.projector.note_missed(host.id, one.did, "frame-field")
    path.heal()
    told = {event.did: event for event in path.logged(4)[2:]}
    healed, taken_down = told[repo.did], told[gone.did]
    assert isinstance(healed, Sync) and healed.rev == repo.rev
    assert isinstance(taken_down, Account) and taken_down.status == "takendown"
    assert noted(path, host) == []


@pytest.mark.parametrize("status", [401, 403, 404, 501])
def test_what_names_no_reason_says_nothing_of_the_account(path: EventPath, pds: FakePds, status: int) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    pds.answers["getLatestCommit"] = pds.answers["getRepo"] = lambda _: (status, b'{"error":"NotFound"}')
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    assert noted(path, host)[0].attempts == 1 and len(path.events()) == 1


def test_a_status_that_does_not_say_whether_the_account_is_active_is_none(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    pds.answers["getLatestCommit"] = lambda _: (400, b'{"error":"RepoNotFound"}')
    pds.repo_status[repo.did] = {"did": repo.did}
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    assert noted(path, host)[0].attempts == 1 and len(path.events()) == 1


def test_a_host_that_does_not_answer_is_left_alone(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.healing.source.TIMEOUT_SECONDS", 0.2)
    host = connected(path, pds)
    repos = [known(path, pds, host, seq) for seq in range(1, 8)]
    asked: list[float] = []

    def hang(sock: socket.socket) -> None:
        asked.append(time.monotonic())
        while sock.recv(4096):
            pass

    pds.hang_up()
    pds.on_accept = hang
    for repo in repos:
        path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    path.heal()
    assert len(asked) <= healing_accounts.AT_ONCE + 1
    assert len(noted(path, host)) == len(repos)


def test_revs_that_jump_each_time_end_at_the_budget(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    for _ in range(10):
        repo.commit(create(f"{POST}/{repo.micros}", {}))
        path.stream.projector.note_missed(host.id, repo.did, "frame-field")
        path.heal()
        path.ahead += 120
    assert sum(isinstance(event, Sync) for event in path.events()) == 3
    assert noted(path, host)[0].attempts == 0, "that costs no attempt"


def test_a_host_names_no_accounts_of_others(path: EventPath, pds: FakePds, other_pds: FakePds) -> None:
    host, other = connected(path, pds), connected(path, other_pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/b", {}))
    other_pds.repos[repo.did] = repo
    path.stream.projector.note_missed(other.id, repo.did, "frame-field")
    path.heal()
    assert len(path.events()) == 1 and noted(path, other) == [] and not other_pds.requests
    # Of an account that is new here, its DID document decides.
    new = path.repo(pds.url)
    new.commit(create(f"{POST}/a", {}))
    other_pds.repos[new.did] = new
    path.stream.projector.note_missed(other.id, new.did, "frame-field")
    path.heal()
    assert len(path.events()) == 1 and noted(path, other) == []


def test_a_queue_is_bounded_and_what_does_not_fit_makes_the_host_due(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "MAX_BEYOND_LIMIT", 3)
    host = connected(path, pds, account_limit=2)
    for number in range(20):
        path.stream.projector.note_missed(host.id, f"did:web:{number}.example", "frame-field")
        path.store()
    assert len(noted(path, host)) == 5
    assert path.db.read(lambda tx: tx.rows("SELECT reason FROM heal_host")) == [("queue-full",)]


def test_an_account_that_cannot_be_healed_is_given_up(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing_accounts, "ATTEMPTS", 3)
    host = connected(path, pds)
    repo = known(path, pds, host)
    pds.answers["getLatestCommit"] = lambda _: (200, b"{}")
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    before = outcomes("given-up")
    for _ in range(4):
        path.heal()
        path.ahead += 7 * 3600
    assert noted(path, host) == [] and outcomes("given-up") == before + 1


def test_nothing_is_asked_of_a_host_that_is_away_or_banned(path: EventPath, pds: FakePds) -> None:
    host = connected(path, pds)
    repo = known(path, pds, host)
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    host.connected_at = None
    path.heal()
    assert not pds.requests and len(noted(path, host)) == 1
    path.registry.change(host, Cause.BLOCKED)
    path.heal()
    assert not pds.requests and noted(path, host) == []


def test_an_account_that_moved_while_nobody_could_tell_is_healed_where_it_is_now(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of its events came than may wait for the directory, and none comes after that."""
    monkeypatch.setattr(waits, "LONGEST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(negatives, "UNANSWERED_SECONDS", 0.1)
    monkeypatch.setattr(directory, "TRIES", 1)
    monkeypatch.setattr(directory, "LONGEST_CLOSED_SECONDS", 1.0)
    path.restart()
    host, other = connected(path, pds), connected(path, other_pds)
    repo = known(path, pds, host)
    path.move(repo, other_pds.url)
    other_pds.repos[repo.did] = repo
    path.plc.instead = "503 Service Unavailable"
    for seq in range(1, ACCOUNT_PLACES + 4):
        path.put(other, repo.commit(create(f"{POST}/b{seq}", {})).frame(seq))
    until(lambda: [missed.reason for missed in noted(path, other)] == ["account-throttled"])
    path.heal()
    path.plc.instead = None
    path.logged(1 + ACCOUNT_PLACES)
    path.ahead += 120
    path.heal()
    *_, last = path.events()
    assert isinstance(last, Sync) and last.rev == repo.rev and noted(path, other) == []


@pytest.mark.parametrize("how", ["the account's", "the host's"])
def test_an_account_whose_move_was_not_read_is_healed_where_it_is_now(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Its new host had no refresh left for its document, and it does not write again."""
    monkeypatch.setattr(resolver, "REFRESHES_PER_DID" if how == "the account's" else "REFRESHES_PER_HOST", 1)
    for name in ("REFRESH_DID_SECONDS", "REFRESH_HOST_SECONDS"):
        monkeypatch.setattr(resolver, name, 3600.0)
    path.restart()
    host, other = connected(path, pds), connected(path, other_pds)
    repo = known(path, pds, host)
    path.put(other, repo.account_frame(1, active=False, status="deleted"))
    until(lambda: other.cursor.position == 1)
    assert noted(path, other) == [], "the document says that it is another host's"
    path.move(repo, other_pds.url)
    other_pds.repos[repo.did] = repo
    path.put(other, repo.commit(create(f"{POST}/c", {})).frame(2))
    until(lambda: other.cursor.position == 2)
    assert [(missed.did, missed.reason) for missed in noted(path, other)] == [(repo.did, "wrong-host")]
    path.heal()
    assert noted(path, other)[0].attempts == 1 and len(path.events()) == 1
    monkeypatch.undo()
    path.restart()
    other = path.registry.add(present(path.db.read(hosts.by_id, other.id)))
    other.connected_at = time.time() - 60
    path.ahead += 120
    path.heal()
    last = path.logged(2)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev and noted(path, other) == []


def claimed(path: EventPath, pds: FakePds, other_pds: FakePds) -> tuple[Host, RepoBuilder]:
    """A host, and an account of another one whose commit it has sent."""
    host, other = connected(path, pds), connected(path, other_pds)
    repo = known(path, pds, host)
    other_pds.repos[repo.did] = repo
    path.put(other, repo.commit(create(f"{POST}/b", {})).frame(1))
    until(lambda: other.cursor.position == 1)
    return other, repo


def test_an_account_that_moves_before_the_directory_has_its_document_is_healed_where_it_is_now(
    path: EventPath, pds: FakePds, other_pds: FakePds
) -> None:
    other, repo = claimed(path, pds, other_pds)
    path.heal()
    assert [(missed.did, missed.reason) for missed in noted(path, other)] == [(repo.did, "wrong-host")]
    assert len(path.events()) == 1
    path.move(repo, other_pds.url)
    path.ahead += 120
    path.heal()
    last = path.logged(2)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev and noted(path, other) == []


def test_a_host_that_speaks_for_the_accounts_of_others_is_asked_about_each_a_few_times(
    path: EventPath, pds: FakePds, other_pds: FakePds
) -> None:
    other, repo = claimed(path, pds, other_pds)
    for _ in range(1 + healing_accounts.LATE_ATTEMPTS):
        assert len(noted(path, other)) == 1
        path.heal()
        path.ahead += 600
    assert noted(path, other) == [] and len(path.events()) == 1
    path.put(other, repo.commit(create(f"{POST}/c", {})).frame(2))
    until(lambda: other.cursor.position == 2)
    assert noted(path, other) == []


@pytest.mark.parametrize("stored", [True, False])
def test_where_an_account_may_have_moved_is_not_forgotten_for_what_else_was_missed(
    path: EventPath, pds: FakePds, other_pds: FakePds, stored: bool
) -> None:
    """An event of it cannot be read, another comes while nobody tells whose it is, and a third one cannot be read."""
    host, other = connected(path, pds), connected(path, other_pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/b", {}))
    path.move(repo, other_pds.url)
    other_pds.repos[repo.did] = repo
    for reason in ("frame-field", "did-unavailable", "frame-field"):
        path.stream.projector.note_missed(other.id, repo.did, reason)
        if stored:
            path.store()
    path.heal()
    last = path.logged(2)[-1]
    assert isinstance(last, Sync) and last.rev == repo.rev


def test_what_other_hosts_say_of_an_account_does_not_keep_it_from_being_healed(
    path: EventPath, pds: FakePds, other_pds: FakePds
) -> None:
    host, other = connected(path, pds), connected(path, other_pds)
    repo = known(path, pds, host)
    repo.commit(create(f"{POST}/missed", {}))
    other_pds.repos[repo.did] = repo
    for _ in range(budgets.OF_ACCOUNT[0]):
        path.db.write(healing.note, {(other.id, repo.did): LISTED}, time.time())
        path.heal()
        assert noted(path, other) == []
    path.stream.projector.note_missed(host.id, repo.did, "frame-field")
    path.heal()
    assert isinstance(path.logged(2)[-1], Sync) and noted(path, host) == []


def test_the_queue_of_all_hosts_is_bounded_whoever_fills_it(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "MAX_ACCOUNTS", 5)
    both = [connected(path, pds), connected(path, other_pds)]
    for number in range(4):
        for host in both:
            path.stream.projector.note_missed(host.id, f"did:web:{number}.example", "frame-field")
    assert sum(len(noted(path, host)) for host in both) == 5
    assert path.db.read(lambda tx: tx.rows("SELECT host_id, reason FROM heal_host")) == [(both[1].id, "queue-full")]

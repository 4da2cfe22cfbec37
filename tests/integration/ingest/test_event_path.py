"""What passes the event path and what does not: verification, authority, order, cursors, restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

from relay.atproto.frames import Account, Commit, Identity, Sync, decode
from relay.ingest.delivery import Hold
from relay.ingest.lanes import QUEUE_CAPACITY
from relay.kit import metrics
from relay.store import hosts
from tests.support.blocks import car, cid_of, link
from tests.support.event_path import DropCounter, EventPath, commits, desynchronized, revs
from tests.support.living import living, without_collections
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.repo import (
    POST,
    RepoBuilder,
    SigningKey,
    account_did,
    create,
    did_document,
    frame,
    post,
)
from tests.support.wait import until


@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_a_verified_commit_is_logged_and_becomes_the_accounts_state(path: EventPath, pds: FakePds, curve: str) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url, curve)
    path.put(host, post(repo, "3kaaa").frame(7))
    (event,) = path.logged(1)
    assert isinstance(event, Commit) and event.rev == repo.rev and event.did == repo.did
    assert until(lambda: host.cursor.position == 7)
    path.stream.projector.flush()
    row, stored = path.stored(repo.did)
    assert (row.host_id, row.upstream_status, stored.rev, bytes(stored.data)) == (
        host.id, "active", repo.rev, repo.data,
    )  # fmt: skip
    assert path.host_row(host).last_seq == 7
    assert path.host_row(host).account_count == host.account_count == 1


def test_a_forged_commit_is_never_logged(path: EventPath, pds: FakePds, drops: DropCounter) -> None:
    drops.watch("signature-invalid")
    host, repo = path.host(pds.url), path.repo(pds.url)
    forged = repo.commit(create(f"{POST}/3kaaa", {"text": "mine"}), sign_with=SigningKey.create(seed=99))
    path.put(host, forged.frame(1))
    until(lambda: drops.since("signature-invalid") == 1)
    assert path.stream.firehose.last_seq == 0
    assert host.cursor.position == 1
    assert path.plc.asked[repo.did] == 2, "once for the key, once more in case it was rotated"


def test_a_rotated_key_is_followed_on_the_first_event(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.logged(1)
    repo.key = SigningKey.create("p256", seed=77)
    path.move(repo, pds.url)
    path.put(host, post(repo, "3kaab").frame(2))
    assert len(path.logged(2)) == 2


def test_events_wait_for_their_identity_in_order_while_others_pass(path: EventPath, pds: FakePds, plc: FakePlc) -> None:
    host = path.host(pds.url)
    known = path.repo(pds.url)
    path.put(host, post(known, "3kaaa").frame(1))
    path.logged(1)
    stranger = path.repo(pds.url)
    sent = []
    with plc.holding():
        for seq in range(2, 12):
            path.put(host, post(stranger, f"3kaa{seq:x}").frame(seq))
            sent.append(stranger.rev)
        path.put(host, post(known, "3kaab").frame(12))
        until(lambda: path.stream.firehose.last_seq == 2)
        assert host.cursor.position == 1, "the cursor waits for what is parked"
    assert [e.rev for e in commits(path, 12) if e.did == stranger.did] == sent
    assert until(lambda: host.cursor.position == 12)
    assert plc.asked[stranger.did] == 1


def test_nothing_is_lost_when_the_directory_fails_now_and_then(path: EventPath, pds: FakePds, plc: FakePlc) -> None:
    host = path.host(pds.url)
    repos = [path.repo(pds.url) for _ in range(100)]
    plc.failure_rate, plc.latency = 0.2, 0.02
    seq = 0
    for name in ("3kaaa", "3kaab"):
        for repo in repos:
            seq += 1
            path.put(host, post(repo, name).frame(seq))
    until(lambda: path.stream.firehose.last_seq == 200, timeout=30)
    order: dict[str, list[str]] = {}
    for event in commits(path, 200):
        order.setdefault(event.did, []).append(event.rev)
    assert len(order) == 100
    assert all(len(found) == 2 and found == sorted(found) for found in order.values())


def test_an_unknown_did_is_dropped_for_a_reason(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.identity.negatives.YOUNG_SECONDS", (0.1,))
    drops.watch("did-not-found", "did-tombstone")
    host = path.host(pds.url)
    nobody, gone = path.repo(pds.url), path.repo(pds.url)
    del path.plc.documents[nobody.did]
    del path.plc.documents[gone.did]
    path.plc.tombstones.add(gone.did)
    path.put(host, post(nobody, "3kaaa").frame(1))
    path.put(host, post(gone, "3kaaa").frame(2))
    until(lambda: drops.since("did-not-found") == 1 and drops.since("did-tombstone") == 1)
    assert host.cursor.position == 2 and path.stream.firehose.last_seq == 0
    assert path.plc.asked[nobody.did] == 2, "once, and once more in case it is new"


def test_a_tombstone_that_is_taken_back_is_not_believed_for_a_day(
    path: EventPath, pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("did-tombstone")
    host, repo = path.host(pds.url), path.repo(pds.url)
    document = path.plc.documents.pop(repo.did)
    path.plc.tombstones.add(repo.did)
    path.put(host, post(repo, "3kaaa").frame(1))
    until(lambda: drops.since("did-tombstone") == 1)
    path.plc.tombstones.clear()
    path.plc.documents[repo.did] = document
    path.put(host, post(repo, "3kaab").frame(2))
    assert isinstance(path.logged(1)[0], Commit)


def test_only_the_host_that_the_document_names_may_send(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("wrong-host")
    path.host(pds.url)
    thief, repo = path.host(other_pds.url), path.repo(pds.url)
    path.put(thief, post(repo, "3kaaa").frame(1))
    path.put(thief, repo.account_frame(2, active=False, status="deleted"))
    path.put(thief, repo.identity_frame(3))
    until(lambda: drops.since("wrong-host") == 3)
    assert path.stream.firehose.last_seq == 0 and thief.account_count == 0


def test_a_migrated_account_keeps_flowing_and_its_old_host_does_not(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("wrong-host")
    old, new = path.host(pds.url), path.host(other_pds.url)
    repo = path.repo(pds.url)
    path.put(old, post(repo, "3kaaa").frame(1))
    path.logged(1)
    path.move(repo, other_pds.url)
    path.put(new, post(repo, "3kaab").frame(50))
    path.logged(2)
    late = post(repo, "3kaac").frame(2)
    path.put(old, late)
    until(lambda: drops.since("wrong-host") == 1)
    path.put(new, post(repo, "3kaad").frame(51))
    path.logged(3)
    path.stream.projector.flush()
    assert (old.account_count, new.account_count) == (0, 1)
    stored = {host.id: host.account_count for host in path.db.read(hosts.all_rows)}
    assert (stored[old.id], stored[new.id]) == (0, 1)
    row, state = path.stored(repo.did)
    assert row.host_id == new.id and state.rev == repo.rev


def test_rev_never_goes_back(path: EventPath, pds: FakePds, drops: DropCounter) -> None:
    drops.watch("rev-old", "rev-future")
    host, repo = path.host(pds.url), path.repo(pds.url)
    first, second = post(repo, "3kaaa").frame(1), post(repo, "3kaab").frame(2)
    path.put(host, first)
    path.put(host, second)
    path.logged(2)
    newest = repo.rev
    again = RepoBuilder(repo.did, repo.key)
    path.put(host, post(again, "3kaaa").frame(3))
    path.put(host, again.sync_frame(4))
    until(lambda: drops.since("rev-old") == 2)
    ahead = repo.commit(create(f"{POST}/3kaac", {}), at_us=int((time.time() + 3600) * 1_000_000))
    path.put(host, ahead.frame(5))
    until(lambda: drops.since("rev-future") == 1)
    path.stream.projector.flush()
    assert path.stored(repo.did)[1].rev == newest
    assert len(path.events()) == 2


def test_another_commit_of_the_same_rev_does_not_follow(path: EventPath, pds: FakePds, drops: DropCounter) -> None:
    drops.watch("rev-old")
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.put(host, post(repo, "3kaab").frame(2))
    path.logged(2)
    fork = RepoBuilder(repo.did, repo.key)
    post(fork, "3kaaa")
    other = post(fork, "3kaac")
    assert (fork.rev, fork.head != repo.head) == (repo.rev, True)
    path.put(host, other.frame(3))
    path.put(host, fork.sync_frame(4))
    until(lambda: drops.since("rev-old") == 2)
    assert len(path.events()) == 2


def test_a_gap_in_the_chain_is_counted_and_passes_and_a_sync_passes(path: EventPath, pds: FakePds) -> None:
    before = metrics.CHAIN_BREAKS._value.get()
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    post(repo, "3kaab")
    path.put(host, post(repo, "3kaac").frame(3))
    assert len(revs(path, 2)) == 2
    assert metrics.CHAIN_BREAKS._value.get() == before + 1
    assert desynchronized(path, repo)
    path.restart()
    host = path.host(pds.url)
    repo.commit()
    path.put(host, repo.sync_frame(4))
    assert revs(path, 3)[-1] == repo.rev
    assert not desynchronized(path, repo)
    path.put(host, post(repo, "3kaad").frame(5))
    path.logged(4)
    assert metrics.CHAIN_BREAKS._value.get() == before + 1


def test_a_commit_that_does_not_say_what_it_builds_on_is_passed_on_as_sync(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    unproven = post(repo, "3kaab")
    del unproven.fields["prevData"]
    path.put(host, unproven.frame(2))
    _, event = path.logged(2)
    assert isinstance(event, Sync) and event.rev == unproven.fields["rev"]


def test_a_handle_is_passed_on_only_as_the_document_says(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.identity_frame(1, "user.test"))
    path.put(host, repo.identity_frame(2, "somebody.else"))
    path.put(host, repo.identity_frame(3))
    path.put(host, repo.identity_frame(4, "User.Test"))
    handles = [event.handle for event in path.logged(4) if isinstance(event, Identity)]
    assert handles == ["user.test", None, None, "User.Test"]
    # In lower case the Kelvin sign is a k.
    path.plc.documents[repo.did] = did_document(repo.did, repo.key, pds.url, "kim.test")
    path.put(host, repo.identity_frame(5, "\N{KELVIN SIGN}im.test"))
    path.put(host, repo.identity_frame(6, "Kim.test"))
    handles = [event.handle for event in path.logged(6)[4:] if isinstance(event, Identity)]
    assert handles == [None, "Kim.test"]


def test_after_a_restart_no_kind_of_event_is_taken_twice(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    sent = [post(repo, "3kaaa").frame(1), repo.identity_frame(2), repo.account_frame(3)]
    repo.commit()
    sent += [repo.sync_frame(4), post(repo, "3kaab").frame(5)]
    for event in sent:
        path.put(host, event)
    kinds = [type(event) for event in path.logged(5)]
    assert kinds == [Commit, Identity, Account, Sync, Commit]
    # SQL is as it was before any of them, as after a crash that came before the first projection.
    path.crash()
    host = path.host(pds.url)
    for event in sent:
        path.put(host, event)
    path.put(host, repo.identity_frame(6))
    assert len(path.logged(6)) == 6
    assert path.plc.asked[repo.did] <= 4


def test_repetitions_take_neither_room_nor_turns(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, repo.identity_frame(1))
    assert until(lambda: host.cursor.position == 1)
    with gevent.Timeout(60):
        for _ in range(2 * QUEUE_CAPACITY):
            path.put(host, repo.identity_frame(1))
    assert not host.share._shares.working


def test_an_event_the_relay_cannot_handle_does_not_stop_the_lane(
    path: EventPath, pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.watch("internal-error")
    host, repo = path.host(pds.url), path.repo(pds.url)
    gate = path.ingest.lanes._lanes[0]._gate
    real = gate.judge
    monkeypatch.setattr(type(gate), "judge", lambda self, item: 1 / 0 if item.event.seq == 1 else real(item))
    path.put(host, post(repo, "3kaaa").frame(1))
    until(lambda: drops.since("internal-error") == 1)
    path.put(host, post(repo, "3kaab").frame(2))
    assert len(path.logged(1)) == 1


def test_lenient_mode_passes_what_does_not_invert_and_strict_mode_its_commit(
    path: EventPath, pds: FakePds, plc: FakePlc, tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    repo = path.repo(pds.url)
    post(repo, "3kaaa")
    spoilt = post(repo, "3kaab")
    spoilt.fields["prevData"] = spoilt.fields["commit"]
    host = path.host(pds.url)
    path.put(host, spoilt.frame(1))
    (event,) = path.logged(1)
    assert isinstance(event, Sync)

    lenient = EventPath(tmp_path / "lenient", new_database_url(), plc, lenient=True)
    try:
        host = lenient.host(pds.url)
        lenient.put(host, spoilt.frame(1))
        of_old = post(repo, "3kaac")
        del of_old.fields["prevData"]
        lenient.put(host, of_old.frame(2))
        assert [type(event) for event in lenient.logged(2)] == [Commit, Commit]
    finally:
        lenient.close()


@pytest.mark.parametrize(
    "change", [{"rev": "3kaaaaaaaaaab"}, {"repo": account_did(9)}, {"commit": link(cid_of(b""))}, {"blocks": b""}]
)
def test_a_commit_that_says_other_than_it_signed_is_dropped(
    path: EventPath, pds: FakePds, change: dict[str, object]
) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.plc.documents[account_did(9)] = did_document(account_did(9), repo.key, pds.url)
    event = post(repo, "3kaaa")
    blocks = car([event.root], event.blocks)
    path.put(host, frame("#commit", {"seq": 1, "ops": event.ops, "blocks": blocks, **event.fields, **change}))
    assert until(lambda: host.cursor.position == 1)
    assert path.stream.firehose.last_seq == 0
    assert sum(path.plc.asked.values()) == 1, "no other key would do"


# Crashes that come before SQL has a host's cursor


@pytest.fixture
def seldom_flushed(monkeypatch: pytest.MonkeyPatch, path: EventPath) -> None:
    """SQL is written only when somebody waits for it."""
    loop = path.stream.projector._loop
    monkeypatch.setattr(loop, "_every", 3600.0)
    loop.wake()


@pytest.mark.usefixtures("seldom_flushed")
def test_a_host_whose_seqs_started_again_loses_nothing_in_a_crash(path: EventPath, pds: FakePds) -> None:
    host, before, after = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    for seq in range(1, 11):
        path.put(host, post(before, f"3kaa{seq:x}").frame(seq))
    path.logged(10)
    until(path.stream.projector.flush)
    for seq in range(11, 16):
        path.put(host, post(before, f"3kab{seq:x}").frame(seq))
    path.logged(15)
    until(lambda: host.cursor.position == 15)
    host.cursor.reset()
    sent = [post(after, f"3kac{seq:x}").frame(seq) for seq in range(1, 21)]
    for event in sent[:2]:
        path.put(host, event)
    path.logged(17)
    path.crash()
    host = path.host(pds.url)
    assert host.cursor.position in (0, 2), "where the host goes on by its new numbers"
    for event in sent[host.cursor.position :]:
        path.put(host, event)
    assert [event.seq for event in path.logged(35)] == list(range(1, 36))


@pytest.mark.usefixtures("seldom_flushed")
def test_what_was_fetched_in_silence_is_told_of_an_account_that_consumers_know_by_then(
    path: EventPath, pds: FakePds, drops: DropCounter
) -> None:
    """Its first event was on its way when it was asked about, and others are behind."""
    drops.watch("rev-old")
    host, repo = path.host(pds.url), path.repo(pds.url)
    first, second = post(repo, "3kaaa"), post(repo, "3kaab")
    path.put(host, first.frame(1))
    fetched = decode(repo.sync_frame(1))
    assert isinstance(fetched, Sync)
    delivery = path.ingest.lanes.put_fetched(host, fetched, silent=True)
    path.put(host, second.frame(2))
    assert delivery.settled.wait(60)
    until(lambda: drops.since("rev-old") == 1)
    assert [type(event) for event in path.logged(2)] == [Commit, Sync]


def test_the_first_event_of_a_new_host_waits_for_its_identity_through_a_crash(
    path: EventPath, pds: FakePds, plc: FakePlc
) -> None:
    host, known, stranger = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.resolver.resolve(known.did)
    plc.latency = 30.0
    first, second = post(stranger, "3kaaa").frame(1000), post(known, "3kaaa").frame(1001)
    path.put(host, first)
    path.put(host, second)
    path.logged(1)
    # Its lookup is under way, and so waits for longer than this life lasts.
    assert until(lambda: plc.asked[stranger.did])
    plc.latency = 0.0
    path.crash()
    host = path.host(pds.url)
    assert host.cursor.position == 999
    path.put(host, first)
    path.put(host, second)
    assert {event.did for event in path.logged(2)} == {known.did, stranger.did}
    assert until(lambda: host.cursor.position == 1001)


def test_events_are_counted_by_kind_and_outcome(path: EventPath, pds: FakePds) -> None:
    def judged(kind: str, outcome: str) -> float:
        return float(metrics.EVENTS_JUDGED.labels(kind, outcome)._value.get())

    wanted = [("commit", "accepted"), ("commit", "dropped"), ("identity", "duplicate")]
    before = [judged(*labels) for labels in wanted]
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    path.put(host, post(path.repo("https://elsewhere.example.com"), "3kaaa").frame(2))
    until(lambda: host.cursor.position == 2)
    path.put(host, repo.identity_frame(1))
    assert [judged(*labels) for labels in wanted] == [count + 1 for count in before]


def test_what_was_parked_is_freed_without_a_garbage_collection(path: EventPath, pds: FakePds) -> None:
    host, repos = path.host(pds.url), [path.repo(pds.url) for _ in range(5)]
    with without_collections():
        for seq, repo in enumerate(repos, 1):
            path.put(host, post(repo, "one").frame(seq))
        path.logged(len(repos))
        until(lambda: path.ingest.lanes._parking.events == 0)
        assert not living(Hold)

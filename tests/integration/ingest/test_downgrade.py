"""What an account has signed reaches consumers, also where the event around it proves nothing or contradicts it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from relay.atproto.frames import Account, Commit, Identity, Sync
from relay.atproto.syntax import is_datetime
from relay.ingest import penalties
from relay.kit import metrics
from tests.support.blocks import car
from tests.support.event_path import DropCounter, EventPath, desynchronized
from tests.support.pds import FakePds
from tests.support.repo import POST, CommitEvent, RepoBuilder, SigningKey, create, delete, frame, post
from tests.support.wait import until


def downgraded(reason: str) -> float:
    return float(metrics.EVENTS_DOWNGRADED.labels(reason)._value.get())


def without_record(event: CommitEvent) -> None:
    del event.blocks[event.ops[0]["cid"].value[1:]]


def with_wrong_prev_data(event: CommitEvent) -> None:
    event.fields["prevData"] = event.fields["commit"]


SPOILT = {
    "record-missing": without_record,
    "prev-data-mismatch": with_wrong_prev_data,
}


@pytest.mark.parametrize("reason", SPOILT)
def test_an_unproven_commit_goes_out_as_sync_and_the_next_one_follows(
    path: EventPath, pds: FakePds, reason: str
) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    spoilt, before = post(repo, "3kaab"), downgraded(reason)
    SPOILT[reason](spoilt)
    path.put(host, spoilt.frame(2))
    path.put(host, post(repo, "3kaac").frame(3))
    first, stated, last = path.logged(3)
    assert isinstance(first, Commit) and isinstance(stated, Sync) and isinstance(last, Commit)
    assert (stated.did, stated.rev) == (repo.did, spoilt.fields["rev"])
    assert stated.blocks == car([spoilt.root], {spoilt.root: spoilt.blocks[spoilt.root]})
    assert downgraded(reason) == before + 1
    assert not desynchronized(path, repo)


@pytest.mark.parametrize("time", ["2026-01-01 00:00:00", "", None])
def test_a_time_that_cannot_be_read_is_not_passed_on(path: EventPath, pds: FakePds, time: str | None) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(1))
    spoilt = post(repo, "3kaab")
    spoilt.fields["time"] = time
    path.put(host, spoilt.frame(2))
    path.put(host, sync(repo, 3, spoilt, time=time))
    for stated in path.logged(3)[1:]:
        assert isinstance(stated, Sync) and stated.rev == spoilt.fields["rev"]
        assert stated.fault is None and is_datetime(stated.time)


@pytest.mark.parametrize("time", ["2026-01-01 00:00:00", "", None, "missing"])
def test_an_identity_or_account_with_such_a_time_passes_with_that_of_now(
    path: EventPath, pds: FakePds, time: str | None
) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    fields: dict[str, Any] = {"did": repo.did} | ({} if time == "missing" else {"time": time})
    path.put(host, frame("#identity", {"seq": 1, "handle": "user.test", **fields}))
    path.put(host, frame("#account", {"seq": 2, "active": True, "status": "throttled", **fields}))
    path.put(host, frame("#account", {"seq": 3, "active": False, "status": "deactivated", **fields}))
    identity, throttled, inactive = path.logged(3)
    assert isinstance(identity, Identity) and identity.handle == "user.test"
    assert isinstance(throttled, Account) and (throttled.active, throttled.status) == (True, "throttled")
    assert isinstance(inactive, Account) and (inactive.active, inactive.status) == (False, "deactivated")
    assert all(is_datetime(event.time) for event in (identity, throttled, inactive))


def test_the_first_commit_of_an_account_may_be_unproven(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    spoilt = post(repo, "3kaaa")
    without_record(spoilt)
    path.put(host, spoilt.frame(1))
    path.put(host, post(repo, "3kaab").frame(2))
    assert [type(event) for event in path.logged(2)] == [Sync, Commit]


def test_what_the_account_has_not_signed_is_dropped_whatever_is_wrong_with_it(
    path: EventPath, pds: FakePds, drops: DropCounter
) -> None:
    drops.watch("signature-invalid", "rev-old")
    host, repo = path.host(pds.url), path.repo(pds.url)
    old = post(repo, "3kaaa")
    path.put(host, post(repo, "3kaab").frame(1))
    path.logged(1)
    without_record(old)
    path.put(host, old.frame(2))
    until(lambda: drops.since("rev-old") == 1)
    forged = repo.commit(create(f"{POST}/3kaac", {}), sign_with=SigningKey.create(seed=99))
    without_record(forged)
    path.put(host, forged.frame(3))
    until(lambda: drops.since("signature-invalid") == 1)
    assert path.stream.firehose.last_seq == 1


def test_too_many_unproven_commits_slow_the_account(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(penalties, "FREE_CHARGES", 2)
    monkeypatch.setattr(penalties, "FIRST_DELAY_SECONDS", 600.0)
    monkeypatch.setattr(penalties, "LONGEST_DELAY_SECONDS", 600.0)
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    for seq in range(1, 6):
        spoilt = post(repo, f"3kaa{seq}")
        without_record(spoilt)
        path.put(host, spoilt.frame(seq))
    path.put(host, post(other, "3kaaa").frame(6))
    # Another account's events may be verified before or after these.
    assert Counter(event.did for event in path.logged(4)) == {repo.did: 3, other.did: 1}


# What a host may state with #sync


def sync(repo: RepoBuilder, seq: int, event: CommitEvent, **changes: Any) -> bytes:
    """A `#sync` of the commit of `event`, with other outer fields."""
    blocks = car([event.root], {event.root: event.blocks[event.root]})
    fields = {"seq": seq, "did": repo.did, "rev": event.fields["rev"], "time": event.fields["time"], "blocks": blocks}
    return frame("#sync", fields | changes)


def test_a_sync_of_what_is_known_is_passed_on_and_an_older_one_is_not(
    path: EventPath, pds: FakePds, drops: DropCounter
) -> None:
    """Operators of a host send it to have consumers fetch the repository again."""
    drops.watch("rev-old")
    host, repo = path.host(pds.url), path.repo(pds.url)
    first, second = post(repo, "3kaaa"), post(repo, "3kaab")
    for seq, event in enumerate((first, second), 1):
        path.put(host, event.frame(seq))
    path.put(host, sync(repo, 3, second))
    path.put(host, sync(repo, 4, first))
    until(lambda: drops.since("rev-old") == 1)
    assert [getattr(event, "rev", "") for event in path.logged(3)] == [
        first.fields["rev"], second.fields["rev"], second.fields["rev"],
    ]  # fmt: skip


def test_the_commit_counts_when_a_sync_contradicts_it(path: EventPath, pds: FakePds, drops: DropCounter) -> None:
    drops.watch("rev-old")
    host, repo = path.host(pds.url), path.repo(pds.url)
    events = [post(repo, f"3kaa{number}") for number in range(4)]
    path.put(host, events[1].frame(1))
    path.put(host, sync(repo, 2, events[3], rev=events[0].fields["rev"]))
    path.put(host, sync(repo, 3, events[2], rev="3zzzzzzzzzz22"))
    until(lambda: drops.since("rev-old") == 1)
    commit, stated = path.logged(2)
    assert isinstance(stated, Sync) and stated.rev == events[3].fields["rev"]
    path.put(host, repo.commit(delete(f"{POST}/3kaa0")).frame(4))
    assert isinstance(path.logged(3)[-1], Commit) and not desynchronized(path, repo)
    assert isinstance(commit, Commit)

"""What crosses to a worker process and back is what was sent, and what comes of it is what comes of it here."""

from __future__ import annotations

import marshal
from dataclasses import replace

import pytest

from relay.atproto import frames
from relay.atproto.cid import Cid
from relay.atproto.commit import Unproven
from relay.atproto.frames import Commit, Sync
from relay.ingest.verification import Refusal, Verdict, pack_outcome, pack_task, unpack_outcome, unpack_task, verify
from tests.support.commits import NOW, PATHS, batch, decoded, public, repository
from tests.support.repo import RepoBuilder, delete


def crossed(event: Commit | Sync, repo: RepoBuilder) -> Verdict | Unproven | Refusal:
    """The outcome of a verification here, once it has gone the way of one that was made elsewhere."""
    here = verify(event, public(repo.key), NOW, lenient=False)
    there, key = unpack_task(marshal.loads(marshal.dumps(pack_task(event, public(repo.key)))))
    assert key == public(repo.key)
    outcome = verify(there, key, NOW, lenient=False)
    assert outcome == here
    back = unpack_outcome(marshal.loads(marshal.dumps(pack_outcome(outcome))))
    assert back == outcome
    assert type(back) is type(outcome)
    assert list(map(type, back)) == list(map(type, outcome))
    return back


def test_each_outcome_crosses_to_the_relay_unchanged() -> None:
    repo = repository()
    event = decoded(batch(repo))
    assert crossed(event, repo) == Verdict(event.commit, Cid(repo.data), None, {"app.bsky.feed.post": True})
    assert crossed(replace(event, prev_data=None), repo) == crossed(event, repo)
    unproven = crossed(replace(event, ops=event.ops[1:]), repo)
    assert isinstance(unproven, Unproven)
    assert unproven[0] == "prev-data-mismatch"
    assert unproven[2:5] == (repo.head, repo.data, repo.rev)
    assert crossed(replace(event, did="did:web:example.com"), repo)[0] == "commit-did"


@pytest.mark.parametrize("fault", ["frame-blocks-size", "frame-ops-count"])
def test_a_fault_of_the_frame_goes_along(fault: str) -> None:
    repo = repository()
    commit = decoded(batch(repo))
    sync = frames.decode(repo.sync_frame(3))
    assert isinstance(sync, Sync)
    for event in (replace(commit, fault=fault, ops=()), replace(sync, fault=fault)):
        outcome = crossed(event, repo)
        assert isinstance(outcome, Unproven)
        assert outcome.reason == fault


def test_a_sync_of_another_rev() -> None:
    repo = repository()
    event = frames.decode(repo.sync_frame(3))
    assert isinstance(event, Sync)
    assert crossed(event, repo) == Verdict(Cid(repo.head), Cid(repo.data), None, {})
    outcome = crossed(replace(event, rev=""), repo)
    assert isinstance(outcome, Unproven)
    assert outcome.rev == repo.rev


def test_what_a_commit_tells_of_collections() -> None:
    repo = repository()
    repo.commit(*(delete(path) for path in PATHS[1:30]))
    outcome = crossed(decoded(repo.commit(delete(PATHS[0]))), repo)
    assert isinstance(outcome, Verdict)
    assert outcome.touched == {"app.bsky.feed.post": False}


def test_a_want_of_memory_says_nothing_of_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process ends over it, and another one tries."""

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("relay.ingest.verification.verify_commit", no_memory)
    repo = repository()
    with pytest.raises(MemoryError):
        verify(decoded(batch(repo)), public(repo.key), NOW, lenient=False)

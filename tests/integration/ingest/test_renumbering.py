"""When a host's numbers start again, and when it only repeats what it sent."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from relay.atproto import frames
from relay.atproto.frames import Account, Commit, Identity, Sync
from relay.hosts.host import Host
from relay.hosts.subscriber import Subscriber
from relay.ingest import renumbering
from relay.net.websocket_connection import StreamEnded
from tests.support.event_path import EventPath
from tests.support.hosts import Stream
from tests.support.pds import FakePds
from tests.support.repo import CommitEvent, RepoBuilder, create
from tests.support.wait import until


def post(repo: RepoBuilder, name: str) -> CommitEvent:
    return repo.commit(create(f"app.bsky.feed.post/{name}", {"text": name}))


def starts_again(path: EventPath, host: Host, frame: bytes) -> bool:
    event = frames.decode(frame)
    assert isinstance(event, Commit | Sync | Identity | Account)
    return path.ingest.renumbering.starts_again(host, event)


def test_a_new_rev_under_an_old_number_begins_the_cursor_anew(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    for seq in (1000, 1001):
        path.put(host, post(repo, f"3k{seq}").frame(seq))
    path.logged(2)
    assert not starts_again(path, host, repo.identity_frame(1))
    after = post(repo, "3kafter")
    assert starts_again(path, host, after.frame(1))
    path.put(host, after.frame(1))
    path.put(host, post(repo, "3kthen").frame(2))
    path.logged(4)
    assert until(lambda: host.cursor.position == 2)
    path.restart()
    again = path.host(pds.url)
    assert again.cursor.position == 2


def test_what_was_settled_is_a_repetition_whatever_its_number(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    first, second = post(repo, "3kaaa"), post(repo, "3kbbb")
    path.put(host, first.frame(10))
    path.put(host, second.frame(11))
    # Asked while both are under way.
    assert not starts_again(path, host, second.frame(11))
    assert not starts_again(path, host, first.frame(1))
    assert not starts_again(path, host, repo.sync_frame(5))
    assert host.cursor.position == 11


def test_what_was_settled_after_it_was_asked_for_again_is_a_repetition(path: EventPath, pds: FakePds) -> None:
    """Also of an account that is taken down, whose commit was dropped, so that its rev is still newer than what is
    known: else what the host repeated before that would be passed on twice."""
    host, repo, down = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(10))
    path.put(host, post(down, "3kaaa").frame(11))
    path.logged(2)
    path.ingest.moderation.takedown(down.did)
    frames_again = [repo.identity_frame(12), post(down, "3kbbb").frame(13)]
    for frame in frames_again:
        path.put(host, frame)
    assert until(lambda: host.cursor.position == 13)
    before = [(event.did, event.kind) for event in path.logged(4)]
    nothing: Any = None
    stream: Any = Stream(*frames_again, post(repo, "3kbbb").frame(14))
    subscriber = Subscriber(nothing, nothing, path.ingest.lanes, path.ingest.renumbering.starts_again, "")
    with pytest.raises(StreamEnded):
        subscriber.read(host, stream, 11)
    assert until(lambda: host.cursor.position == 14)
    assert [(event.did, event.kind) for event in path.logged(5)] == [*before, (repo.did, frames.Kind.COMMIT)]


def test_what_cannot_be_an_account_shows_nothing(path: EventPath, pds: FakePds) -> None:
    """SQL is not asked about it: PostgreSQL has no NUL in text."""
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(10))
    path.logged(1)
    for did in ("did:plc:\0", "", "did:web:a.test:b"):
        repo.did = did
        assert not starts_again(path, host, post(repo, "3kbbb").frame(1))


def test_for_a_repetition_nobody_has_to_wait(path: EventPath, pds: FakePds) -> None:
    """As when a host repeats its last event while another account's wait for an identity."""
    host, repo = path.host(pds.url), path.repo(pds.url)
    first = post(repo, "3kaaa")
    path.put(host, first.frame(10))
    until(lambda: host.cursor.position == 10)
    assert host.cursor.begin(11)
    with gevent.Timeout(60):
        assert not starts_again(path, host, first.frame(10))
    host.cursor.finish(11)


def test_an_account_that_is_new_here_shows_it_as_well(path: EventPath, pds: FakePds) -> None:
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(10))
    path.logged(1)
    assert starts_again(path, host, post(other, "3kaaa").frame(1))
    path.put(host, other.sync_frame(1))
    path.logged(2)
    post(other, "3kbbb")
    assert starts_again(path, host, other.sync_frame(1))


def test_nobody_but_the_account_at_its_own_host_can_show_it(
    path: EventPath, pds: FakePds, other_pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, repo, foreign = path.host(pds.url), path.repo(pds.url), path.repo(other_pds.url)
    path.put(host, post(repo, "3kaaa").frame(10))
    path.logged(1)
    assert not starts_again(path, host, post(foreign, "3kaaa").frame(1))
    forged = post(repo, "3kbbb").frame(1)
    at = forged.index(b"csig") + 8
    assert not starts_again(path, host, forged[:at] + bytes(8) + forged[at + 8 :])
    # What is looked at is bounded, since each look costs a verification.
    monkeypatch.setattr(renumbering, "CHECKS", 2)
    assert not starts_again(path, host, forged)
    assert host.cursor.position == 10


def test_it_waits_for_the_earlier_events(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(10))
    path.logged(1)
    until(lambda: host.cursor.position == 10)
    assert host.cursor.begin(11)
    asking = gevent.spawn(starts_again, path, host, post(repo, "3kbbb").frame(1))
    gevent.sleep(0.2)
    assert not asking.ready()
    host.cursor.finish(11)
    assert asking.get(timeout=60)

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
from tests.support.blocks import car
from tests.support.event_path import EventPath
from tests.support.hosts import Stream
from tests.support.pds import FakePds
from tests.support.repo import frame, post
from tests.support.wait import until


def starts_again(path: EventPath, host: Host, frame: bytes) -> bool:
    event = frames.decode(frame)
    assert isinstance(event, Commit | Sync | Identity | Account)
    return path.ingest.renumbering.starts_again(host, event)


def read(path: EventPath, host: Host, cursor: int | None, *messages: bytes) -> None:
    """Read a connection to `host`, opened for what is after `cursor`, that brings these messages and ends."""
    nothing: Any = None
    stream: Any = Stream(*messages)
    subscriber = Subscriber(nothing, path.ingest.lanes, path.ingest.renumbering.starts_again)
    with pytest.raises(StreamEnded):
        subscriber.read(host, stream, cursor)
    assert until(lambda: not host.cursor.outstanding, 30)


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
    for each in frames_again:
        path.put(host, each)
    assert until(lambda: host.cursor.position == 13)
    before = [(event.did, event.kind) for event in path.logged(4)]
    read(path, host, 11, *frames_again, post(repo, "3kbbb").frame(14))
    assert host.cursor.position == 14
    assert [(event.did, event.kind) for event in path.logged(5)] == [*before, (repo.did, frames.Kind.COMMIT)]


def test_what_comes_behind_a_number_that_was_nonsense_passes(path: EventPath, pds: FakePds) -> None:
    """A frame that cannot be read moved the cursor ahead, so that what followed looks settled."""
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(10))
    assert until(lambda: host.cursor.position == 10)
    broken = frame("#identity", {"did": repo.did, "seq": 500_000, "time": "", "handle": 1})
    read(path, host, 10, broken, post(repo, "3kbbb").frame(11), post(repo, "3kccc").frame(12))
    assert [event.rev for event in path.logged(3) if isinstance(event, Commit)][-1] == repo.rev
    assert host.cursor.position == 12


def test_a_host_that_begins_with_the_last_event_again_repeats_it(path: EventPath, pds: FakePds) -> None:
    """Whatever became of it: of a commit that was dropped, the rev is still newer than what is known."""
    host, repo, away = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(10))
    path.put(host, post(away, "3kaaa").frame(11))
    path.put(host, away.account_frame(12, active=False, status="deactivated"))
    pds.repo_status[away.did] = {"did": away.did, "active": False, "status": "deactivated"}
    last = post(away, "3kbbb").frame(13)
    path.put(host, last)
    assert until(lambda: host.cursor.position == 13, 30)
    read(path, host, 13, last, post(repo, "3kbbb").frame(14))
    assert host.restarted_at is None and host.cursor.position == 14


def test_another_event_under_the_number_that_was_asked_for_begins_the_cursor_anew(
    path: EventPath, pds: FakePds
) -> None:
    """The host lost its last events in a crash, and has given their numbers to others since."""
    host, repo, lost = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    read(path, host, None, post(repo, "3kaaa").frame(10), last := post(lost, "3kaaa").frame(11))
    read(path, host, 11, last)
    assert host.restarted_at is None and len(path.logged(2)) == 2
    read(path, host, 11, post(repo, "3kbbb").frame(11), post(repo, "3kccc").frame(12))
    assert host.restarted_at is not None and host.cursor.position == 12
    assert [event.rev for event in path.logged(4) if isinstance(event, Commit)][-1] == repo.rev
    path.store()
    assert path.db.read(lambda tx: tx.rows("SELECT reason FROM heal_host")) == [("numbers-restarted",)]


@pytest.mark.parametrize("cursor", [None, 13])
def test_what_is_repeated_of_an_account_that_is_not_followed_shows_nothing(
    path: EventPath, pds: FakePds, cursor: int | None
) -> None:
    """A host that takes no notice of the cursor."""
    host, repo, down = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    repeated = [repo.identity_frame(10), post(down, "3kaaa").frame(11)]
    for each in repeated:
        path.put(host, each)
    path.logged(2)
    path.ingest.moderation.takedown(down.did)
    repeated += [repo.identity_frame(12), post(down, "3kbbb").frame(13)]
    for each in repeated[2:]:
        path.put(host, each)
    assert until(lambda: host.cursor.position == 13, 30)
    count = len(path.events())
    read(path, host, cursor, *repeated)
    assert host.restarted_at is None and host.cursor.position == 13
    assert len(path.events()) == count


def test_what_cannot_be_an_account_shows_nothing(path: EventPath, pds: FakePds) -> None:
    """SQL is not asked about it: PostgreSQL has no NUL in text."""
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.put(host, post(repo, "3kaaa").frame(10))
    path.logged(1)
    for did in ("did:plc:\0", "", "did:web:a.test:b"):
        repo.did = did
        assert not starts_again(path, host, post(repo, "3kbbb").frame(1))


def test_what_is_not_looked_at_is_missed_unless_it_is_a_repetition(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More events with odd numbers than are verified in a minute: they are dropped for that."""
    monkeypatch.setattr(renumbering, "CHECKS", 0)
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    first, same = post(repo, "3kaaa"), post(other, "3kaaa")
    read(path, host, None, same.frame(19), first.frame(20), post(repo, "3kbbb").frame(15), same.frame(16))
    assert len(path.logged(2)) == 2
    path.store()
    assert path.db.read(lambda tx: tx.rows("SELECT did, reason FROM heal_account")) == [(repo.did, "seq-not-rising")]


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


def test_the_rev_that_is_signed_shows_it_whatever_the_event_says_around_it(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    first, second = post(repo, "3kaaa"), post(repo, "3kbbb")
    path.put(host, first.frame(10))
    path.logged(1)
    fields = {"did": repo.did, "rev": second.fields["rev"], "time": first.fields["time"], "seq": 1}
    assert not starts_again(path, host, frame("#sync", fields | {"blocks": car([first.root], first.blocks)}))
    second.fields["prevData"] = second.fields["commit"]
    assert starts_again(path, host, second.frame(1))


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

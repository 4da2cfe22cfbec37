"""Hosts over real sockets, with all that is behind them: what comes in a bad moment reaches the log all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay.atproto.frames import Commit, Sync
from relay.hosts import backlog
from relay.hosts.hosts import Hosts
from relay.net.http import GuardedHttp
from tests.support.event_path import EventPath
from tests.support.fake_relay import LOCAL
from tests.support.pds import FakePds
from tests.support.repo import RepoBuilder, create
from tests.support.wait import until


@pytest.fixture
def hosts(path: EventPath, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    monkeypatch.setattr(backlog, "PAUSE_SECONDS", 0.1)
    ingest = path.ingest
    http = GuardedHttp("relay-test", allow_insecure=True)
    limit_raised = ingest.places.look_at
    running = Hosts(path.db, path.registry, ingest.lanes, ingest.renumbering.starts_again, limit_raised, http, LOCAL)
    running.start()
    yield running
    running.stop(5)


def post(repo: RepoBuilder, name: str, seq: int) -> bytes:
    return repo.commit(create(f"app.bsky.feed.post/{name}", {"text": name})).frame(seq)


def revs(path: EventPath, count: int) -> list[str]:
    return [event.rev for event in path.logged(count) if isinstance(event, Commit | Sync)]


def test_the_first_events_of_a_new_host_are_not_missed(path: EventPath, hosts: Hosts, pds: FakePds) -> None:
    repo = path.repo(pds.url)
    pds.publish(1, repo.identity_frame(1))
    pds.publish(2, post(repo, "3kaaa", 2))
    hosts.new_hosts.request(pds.url, admin=True)
    pds.publish(3, post(repo, "3kbbb", 3))
    path.logged(3)


def test_numbers_that_start_again_are_followed(path: EventPath, hosts: Hosts, pds: FakePds) -> None:
    repo = path.repo(pds.url)
    hosts.new_hosts.request(pds.url, admin=True)
    for seq in (1000, 1001):
        pds.publish(seq, post(repo, f"3k{seq}", seq))
    path.logged(2)
    for seq in (1, 2, 3):
        pds.publish(seq, post(repo, f"3ka{seq}", seq))
    assert revs(path, 5)[-1] == repo.rev
    host = hosts.known(pds.hostname)
    assert until(lambda: host.cursor.position == 3)
    assert host.restarted_at is not None


def test_what_is_rejected_is_kept_and_what_comes_behind_it_passes(path: EventPath, hosts: Hosts, pds: FakePds) -> None:
    repo = path.repo(pds.url)
    hosts.new_hosts.request(pds.url, admin=True)
    pds.publish(1, post(repo, "3kaaa", 1))
    pds.publish(2, b"\xff" * 10)
    pds.publish(3, post(repo, "3kbbb", 3) + bytes(5_000_000))
    damaged = post(repo, "3kccc", 4)
    at = damaged.index(b"csig") + 8
    pds.publish(4, damaged[:at] + bytes(8) + damaged[at + 8 :])
    pds.publish(5, repo.sync_frame(5))
    path.logged(2)
    until(lambda: len(hosts.report(pds.hostname).rejected) == 3)
    kept = {frame.reason: frame for frame in hosts.report(pds.hostname).rejected}
    assert kept["frame-header"].frame == b"\xff" * 10
    assert kept["message-too-big"].size > 5_000_000 > len(kept["message-too-big"].frame) == 64 << 10
    assert (kept["car-block-hash"].did, kept["car-block-hash"].seq) == (repo.did, 4)
    frame = kept["car-block-hash"]
    assert hosts.rejected_frame(pds.hostname, frame.number) == frame
    assert until(lambda: hosts.known(pds.hostname).cursor.position == 5)

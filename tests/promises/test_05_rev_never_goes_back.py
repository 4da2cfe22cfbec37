"""Promise 5: An account's `rev` never goes back, in whatever order workers finish."""

from __future__ import annotations

import random
from functools import partial

import pytest

from relay.atproto.frames import Commit, Sync
from relay.hosts.host import Host
from tests.support.event_path import DropCounter, EventPath, revs
from tests.support.pds import FakePds
from tests.support.repo import post
from tests.support.wait import until


def test_a_host_that_repeats_and_shuffles_cannot_take_a_rev_back(
    path: EventPath, pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accounts whose commits cost unlike much, so that workers finish in an order of their own; each is sent twice."""
    monkeypatch.setattr("relay.ingest.penalties.FREE_CHARGES", 1000)
    chance = random.Random(5)
    host, repos = path.host(pds.url), [path.repo(pds.url, curve) for curve in ("k256", "p256", "k256")]
    sent = []
    for number in range(16):
        for repo in repos:
            event = post(repo, f"3k{number:03}" + "x" * chance.choice((1, 400)))
            sent.append((number, event))
    # Up to four places from where they belong, and once more far too late.
    sent = sorted(sent, key=lambda each: each[0] + chance.random() * 4) + chance.sample(sent, len(sent))
    for seq, (_, event) in enumerate(sent, 1):
        path.put(host, event.frame(seq))
    until(lambda: host.cursor.position == len(sent), timeout=15)
    events = path.events()
    for repo in repos:
        out = [event.rev for event in events if isinstance(event, Commit | Sync) and event.did == repo.did]
        assert out == sorted(set(out)) and out[-1] == repo.rev


def settled(host: Host) -> bool:
    return not host.cursor.outstanding


def test_two_hosts_that_fight_over_an_account_cannot_take_its_rev_back(
    path: EventPath, pds: FakePds, other_pds: FakePds, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document names one host, then the other, and both send all they have, also what the other has sent."""
    monkeypatch.setattr("relay.identity.resolver.REFRESHES_PER_DID", 1000)
    drops.watch("rev-old", "wrong-host")
    path.restart()
    first, second, repo = path.host(pds.url), path.host(other_pds.url), path.repo(pds.url)
    events = [post(repo, f"3kaa{number:02}") for number in range(20)]
    newest = ""
    for turn, event in enumerate(events, 1):
        holder, url = (first, pds.url) if turn % 2 else (second, other_pds.url)
        path.move(repo, url)
        for sender in (first, second):
            for again in events[max(0, turn - 5) : turn]:
                path.put(sender, again.frame(max(sender.cursor.position, 0) + 1))
                until(partial(settled, sender))
        path.stream.projector.flush()
        row, state = path.stored(repo.did)
        assert state.rev == event.fields["rev"] > newest and row.host_id in (first.id, second.id)
        newest = state.rev
        assert first.account_count + second.account_count == 1, holder
    assert revs(path, 20) == [event.fields["rev"] for event in events]
    assert drops.since("rev-old") > 0

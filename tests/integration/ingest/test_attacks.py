"""Accounts and hosts that do harm, and a directory that is away: nothing passes unproven, nothing is lost for it."""

from __future__ import annotations

import json
from typing import Any

import gevent
import pytest

from relay.identity.resolver import REFRESHES_PER_DID
from relay.store import accounts
from tests.integration.ingest.test_event_path import POST, post, revs
from tests.support.event_path import DropCounter, EventPath
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.repo import RepoBuilder, SigningKey, create, did_document
from tests.support.strangers import RawServer, reply
from tests.support.wait import until


def test_a_directory_that_is_away_holds_new_accounts_and_lets_nothing_past(
    path: EventPath, pds: FakePds, plc: FakePlc, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.identity.directory.FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("relay.identity.negatives.UNANSWERED_SECONDS", 0.05)
    monkeypatch.setattr("relay.ingest.waits.FIRST_RETRY_SECONDS", 0.1)
    drops.watch("did-unavailable", "signature-invalid")
    path.restart()
    host, known, forger, stranger = path.host(pds.url), *(path.repo(pds.url) for _ in range(3))
    path.put(host, post(known, "3kaaa").frame(1))
    path.logged(1)
    plc.failure_rate = 1.0
    forged = forger.commit(create(f"{POST}/3kaaa", {}), sign_with=SigningKey.create(seed=99))
    path.put(host, forged.frame(2))
    for seq in range(3, 6):
        path.put(host, post(stranger, f"3kaa{seq}").frame(seq))
    path.put(host, post(known, "3kaab").frame(6))
    path.logged(2)
    gevent.sleep(0.5)
    assert {event.did for event in path.events()} == {known.did}
    assert host.cursor.position == 1 and drops.since("did-unavailable") == 0
    plc.failure_rate = 0.0
    until(lambda: path.stream.firehose.last_seq == 5, timeout=15)
    assert [event.did for event in path.events()].count(stranger.did) == 3
    until(lambda: host.cursor.position == 6)
    assert drops.since("signature-invalid") == 1


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
                until(lambda sender=sender: not sender.cursor.outstanding)
        path.stream.projector.flush()
        row, state = path.db.read(accounts.many_by_did, [repo.did])[repo.did]
        assert state.rev == event.fields["rev"] > newest and row.host_id in (first.id, second.id)
        newest = state.rev
        assert first.account_count + second.account_count == 1, holder
    assert revs(path, 20) == [event.fields["rev"] for event in events]
    assert drops.since("rev-old") > 0


def test_bad_signatures_do_not_make_the_relay_ask_the_directory_for_ever(
    path: EventPath, pds: FakePds, plc: FakePlc, drops: DropCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.ingest.rejections.FREE_CHARGES", 1000)
    drops.watch("signature-invalid")
    host, repo = path.host(pds.url), path.repo(pds.url)
    wrong = SigningKey.create(seed=99)
    for seq in range(1, 61):
        path.put(host, repo.commit(create(f"{POST}/3k{seq:03}", {}), sign_with=wrong).frame(seq))
    until(lambda: drops.since("signature-invalid") == 60)
    assert plc.asked[repo.did] <= 1 + REFRESHES_PER_DID
    assert path.stream.firehose.last_seq == 0


@pytest.mark.parametrize(
    ("spelling", "passes"),
    [
        ("http://LOCALHOST:{port}", True),
        ("http://localhost.:{port}/", True),
        ("http://localhost:{port}/xrpc", True),
        ("http://localhost", False),
        ("https://localhost:{port}", True),
        ("http://user@localhost:{port}", False),
    ],
)
def test_a_service_endpoint_is_the_host_or_it_is_not(
    path: EventPath, pds: FakePds, drops: DropCounter, spelling: str, passes: bool
) -> None:
    """The other party's spelling of a host neither shuts out its account nor lets another host speak for it."""
    drops.watch("wrong-host")
    host, repo = path.host(pds.url), path.repo(pds.url)
    path.move(repo, spelling.format(port=pds.hostname.rpartition(":")[2]))
    path.put(host, post(repo, "3kaaa").frame(1))
    until(lambda: host.cursor.position == 1)
    assert (path.stream.firehose.last_seq, drops.since("wrong-host")) == ((1, 0) if passes else (0, 1))


def test_an_account_may_be_a_did_web(path: EventPath, pds: FakePds) -> None:
    def answer(sock: Any) -> None:
        sock.sendall(reply(json.dumps(did_document(did, key, pds.url)).encode()))

    key = SigningKey.create(seed=5)
    with RawServer(answer) as server:
        did = f"did:web:localhost%3A{server.port}"
        host, repo = path.host(pds.url), RepoBuilder(did, key)
        for seq in (1, 2):
            path.put(host, post(repo, f"3kaa{seq}").frame(seq))
        assert [event.did for event in path.logged(2)] == [did, did]
        assert server.connections == 1

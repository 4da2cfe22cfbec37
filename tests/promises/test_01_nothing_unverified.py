"""Promise 1: Nothing unverified is forwarded. What is not known yet waits; it does not pass.

Accounts and hosts that lie, and a directory that is away.
"""

from __future__ import annotations

import json
from typing import Any

import gevent
import pytest

from tests.support.event_path import DropCounter, EventPath
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.repo import POST, RepoBuilder, SigningKey, create, did_document, post
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


@pytest.mark.parametrize(("spelling", "passes"), [("http://pds.example.com/", True), ("http://example.com", False)])
def test_a_service_endpoint_without_tls_names_the_host_that_has_it(
    path: EventPath, drops: DropCounter, spelling: str, passes: bool
) -> None:
    drops.watch("wrong-host")
    host, repo = path.host("https://pds.example.com"), path.repo(spelling)
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

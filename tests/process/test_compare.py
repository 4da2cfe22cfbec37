"""`relay compare` between two of our relays on one fake network: alike, and with faults put in on purpose."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import pytest

from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RELAY, RelayProcess
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, did_document

MINUTES = 0.05
PAUSE_SECONDS = 0.3

pytestmark = pytest.mark.timeout(400)


class Network(NamedTuple):
    """Two hosts with two accounts each, and two relays that follow the first host."""

    hosts: list[FakePds]
    repos: list[list[RepoBuilder]]
    ours: RelayProcess
    theirs: RelayProcess

    def write(self, host: int) -> None:
        """An event of each account of the host."""
        pds, repos = self.hosts[host], self.repos[host]
        for repo in repos:
            seq = len(pds.events) + 1
            event = repo.commit(create(f"app.bsky.feed.post/{seq}", {"number": seq}))
            pds.publish(seq, event.frame(seq))

    def go_on(self, host: int) -> None:
        """Go on writing. Not before the relays know the host: they would wait for the end of its past."""
        while True:
            self.write(host)
            gevent.sleep(PAUSE_SECONDS)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        plc = stack.enter_context(FakePlc())
        hosts = [stack.enter_context(FakePds()) for _ in range(2)]
        repos = []
        for host, pds in enumerate(hosts):
            keys = [SigningKey.create("k256", seed=10 * host + number) for number in range(2)]
            mine = [RepoBuilder(account_did(10 * host + number), key) for number, key in enumerate(keys)]
            plc.documents.update({repo.did: did_document(repo.did, repo.key, pds.url) for repo in mine})
            repos.append(mine)
        relays = []
        for name in ("ours", "theirs"):
            relay = RelayProcess(tmp_path / name, {"RELAY_PLC_HOST": plc.url})
            relay.start()
            stack.callback(relay.close)
            relay.crawl(hosts[0].url)
            relays.append(relay)
        network = Network(hosts, repos, *relays)
        network.write(0)
        for relay in relays:
            wait_known(relay, repos[0])
        writing = gevent.spawn(network.go_on, 0)
        stack.callback(writing.kill)
        yield network


def wait_known(relay: RelayProcess, repos: list[RepoBuilder]) -> None:
    relay.wait_until(lambda: all(relay.xrpc("getRepoStatus", f"did={repo.did}").status == 200 for repo in repos))


def compare(network: Network, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(RELAY), "compare", network.theirs.url, "--minutes", str(MINUTES),
         "--url", network.ours.url, "--password", network.ours.password, *options],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def view(network: Network, code: int, *options: str) -> dict[str, Any]:
    run = compare(network, "--json", *options)
    assert run.returncode == code, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert isinstance(found, dict)
    return found


def test_two_relays_alike_lack_nothing(two: Network) -> None:
    found = view(two, 0)
    assert found["matched"] > 5
    for side in ("ours", "theirs"):
        assert (found[side]["lacks"], found[side]["hosts_lacking"], found[side]["unreadable"]) == (0, [], 0)
    firsts = [found[side]["first"] for side in ("ours", "theirs")]
    assert sum(first["events"] for first in firsts) > 0
    assert all(first["p50_ms"] <= first["p99_ms"] for first in firsts if first["events"])


def test_a_host_and_an_account_that_ours_lacks_are_found_with_their_reasons(two: Network) -> None:
    two.theirs.crawl(two.hosts[1].url)
    two.write(1)
    wait_known(two.theirs, two.repos[1])
    writing = gevent.spawn(two.go_on, 1)
    two.ours.admin("repo/takeDown", {"did": two.repos[0][0].did})
    found = view(two, 1, "--late", "5")
    causes = {(cause["host"], cause["kind"], cause["reason"]) for cause in found["ours"]["causes"]}
    # On a busy machine other events may come too late as well.
    assert causes >= {
        (two.hosts[1].hostname, "#commit", "host-unknown"),
        ("unknown", "#commit", "not-served"),
    }
    assert found["ours"]["lacks"] == sum(cause["events"] for cause in found["ours"]["causes"])
    assert found["ours"]["hosts_lacking"] == [two.hosts[1].hostname]
    assert found["matched"] > 0
    shown = compare(two, "--late", "1")
    assert shown.returncode == 1
    assert f"relay hosts add {two.hosts[1].hostname}" in shown.stdout
    assert "host-unknown" in shown.stdout and "What ours lacks" in shown.stdout
    writing.kill()


def test_a_relay_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    run = subprocess.run(
        [str(RELAY), "compare", "http://127.0.0.1:1", "--minutes", "0.1", "--url", "http://127.0.0.1:1"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 3
    assert "does not answer" in run.stderr

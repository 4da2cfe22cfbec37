"""A relay is lost for good and its edge takes its place: no event lost, none sent twice, no seq used twice."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.atproto import frames
from relay.edge import upstream_hosts
from relay.eventlog.high_water import RESERVE
from tests.support.edge import edge_of
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RELAY, RelayProcess
from tests.support.through import ResumingConsumer, Writer

pytestmark = pytest.mark.slow


class Pair:
    """A host, a relay, an edge behind it, and a consumer of each."""

    def __init__(self, folder: Path, plc: FakePlc, pds: FakePds, url: str) -> None:
        self.writer = Writer(plc, pds)
        self.relay = RelayProcess(folder / "relay", {"RELAY_PLC_HOST": plc.url})
        self.relay.start()
        self.relay.crawl(pds.url)
        self.write_and_wait(40)
        self.edge = edge_of(self.relay.url, folder, RELAY_PLC_HOST=plc.url)
        self.edge.start()
        self.at_relay, self.at_edge = ResumingConsumer(self.relay.firehose), ResumingConsumer(self.edge.firehose)
        self.database = url

    def write_and_wait(self, count: int) -> None:
        self.writer.write(count)
        self.relay.wait_metric("relay_log_last_seq", self.writer.total)

    def wait_for_hosts(self) -> None:
        """Until the edge has noted where the relay stands; the relay has to have events meanwhile."""
        path = self.edge.folder / "persist" / upstream_hosts.NAME

        def noted() -> bool:
            self.writer.write(1)
            return path.exists()

        self.edge.wait_until(noted, 60)

    def promote(self) -> str:
        self.edge.settings |= {
            "RELAY_MODE": "relay",
            "RELAY_ALLOW_INSECURE_HOSTS": "true",
            "DATABASE_URL": self.database,
        }
        done = subprocess.run(
            [RELAY, "edge", "promote"],
            env={**os.environ, **self.edge.settings},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        for consumer in (self.at_relay, self.at_edge):
            consumer.stop()
        self.edge.close()
        self.relay.close()


@pytest.fixture
def pair(tmp_path: Path, database_url: str) -> Iterator[Pair]:
    with FakePlc() as plc, FakePds() as pds:
        made = Pair(tmp_path, plc, pds, database_url)
        yield made
        made.close()


def last_seq(consumer: ResumingConsumer) -> int:
    return max(event.seq for event in (*consumer.events, *consumer.others))


def test_an_edge_takes_the_place_of_its_relay(pair: Pair) -> None:
    writer, edge = pair.writer, pair.edge
    taken = writer.repos[0].did
    pair.relay.admin("repo/takeDown", {"did": taken})
    pair.wait_for_hosts()
    edge.wait_until(lambda: any(event.did == taken for event in pair.at_edge.others), 60)
    # The edge is behind when the relay goes: consumers of the relay have more.
    edge.kill()
    writer.write(24)
    others = [repo.did for repo in writer.repos[1:]]
    edge.wait_until(lambda: all(pair.at_relay.revs(did) == writer.written[did] for did in others), 60)
    pair.relay.kill()
    ahead = last_seq(pair.at_relay)
    assert last_seq(pair.at_edge) < ahead
    pair.at_relay.url = edge.firehose
    at_relay = len(pair.at_relay.events)

    with pytest.raises(AssertionError, match="run `relay edge promote` first"):
        RelayProcess.start(_as_relay(edge, pair))
    said = pair.promote()
    assert "1 taken down" in said and "1 hosts go on where the lost relay was" in said
    edge.start(60)
    edge.wait_connected(1, 60)
    writer.write(24)
    edge.wait_until(lambda: all(pair.at_edge.revs(did) == writer.written[did] for did in others), 60)
    seqs = [event.seq for event in pair.at_edge.events]
    assert seqs == sorted(set(seqs)) and seqs[-1] > ahead + RESERVE // 2
    # Who was ahead gets all that is new; what only the lost relay had given out comes again, by new numbers.
    edge.wait_until(lambda: all(pair.at_relay.revs(did)[-1:] == writer.written[did][-1:] for did in others), 60)
    for did in others:
        new = [event.rev for event in pair.at_relay.events[at_relay:] if event.did == did]
        assert new == writer.written[did][-len(new) :] and len(new) >= 3
    assert all(event.seq > ahead for event in pair.at_relay.events[at_relay:])

    edge.wait_until(lambda: _listed(edge) == {did: writer.written[did][-1] for did in others}, 60)
    replayed = ResumingConsumer(edge.firehose)
    edge.wait_until(lambda: all(replayed.revs(did) == writer.written[did] for did in others), 60)
    assert replayed.revs(taken) == []
    # A takedown of what the edge had logged, and after one more crash.
    edge.admin("repo/takeDown", {"did": others[0]})
    edge.kill()
    edge.start(60)
    again = ResumingConsumer(edge.firehose)
    edge.wait_until(lambda: all(again.revs(did) == writer.written[did] for did in others[1:]), 60)
    assert again.revs(others[0]) == []
    for consumer in (replayed, again):
        consumer.stop()


def _as_relay(edge: RelayProcess, pair: Pair) -> RelayProcess:
    """The edge's log with a relay started on it, as if that were all."""
    other = RelayProcess(edge.folder, {**edge.settings, "RELAY_MODE": "relay", "DATABASE_URL": pair.database})
    other.log = edge.folder / "wrong.log"
    return other


def _listed(relay: RelayProcess) -> dict[str, str]:
    """DID -> rev by listRepos, a few at a time."""
    found: dict[str, str] = {}
    cursor = ""
    while True:
        page: dict[str, Any] = relay.xrpc("listRepos", f"limit=3&cursor={cursor}").json
        found |= {repo["did"]: repo["rev"] for repo in page["repos"]}
        cursor = page.get("cursor", "")
        if not cursor:
            return found


def test_the_frames_are_those_of_the_edge(pair: Pair) -> None:
    """With the edge's own database, and without its upstream's hosts."""
    (pair.edge.folder / "persist" / upstream_hosts.NAME).unlink(missing_ok=True)
    pair.edge.wait_until(lambda: len(pair.at_edge.events) >= pair.writer.total)
    assert pair.edge.stop() == 0
    pair.relay.kill()
    before = [event.frame for event in pair.at_edge.events]
    pair.database = pair.edge.settings["DATABASE_URL"]
    (pair.edge.folder / "persist" / upstream_hosts.NAME).unlink(missing_ok=True)
    assert "add them with `relay pull-hosts`" in pair.promote()
    pair.edge.start(60)
    replayed = ResumingConsumer(pair.edge.firehose)
    pair.edge.wait_until(lambda: len(replayed.events) >= len(before))
    assert [event.frame for event in replayed.events] == before
    assert isinstance(frames.decode(before[0]), frames.Commit)
    replayed.stop()
    # No edge starts on it any more.
    pair.edge.stop()
    pair.edge.settings["RELAY_MODE"] = "edge"
    with pytest.raises(AssertionError, match="log-relay"):
        pair.edge.start()

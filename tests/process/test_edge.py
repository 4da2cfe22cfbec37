"""An edge as a process behind a real relay: the same bytes with the same seqs, through kills, restarts and resets."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from relay.atproto import frames
from tests.support.edge import Consumer, edge_of
from tests.support.http import call
from tests.support.pds import FakePds, websocket_frame
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.repo import account_did, frame, timestamp
from tests.support.through import Writer
from tests.support.websocket import connect

pytestmark = pytest.mark.slow


class Chain:
    """A host, a relay, an edge behind it, and a consumer of each."""

    def __init__(self, folder: Path, plc: FakePlc, pds: FakePds) -> None:
        self.writer = Writer(plc, pds)
        self.relay = RelayProcess(folder / "relay", {"RELAY_PLC_HOST": plc.url})
        self.relay.start()
        self.relay.crawl(pds.url)
        self.edge = edge_of(self.relay.url, folder)
        self.edge.start()
        self.at_relay, self.at_edge = Consumer(self.relay.firehose), Consumer(self.edge.firehose)

    def write(self, count: int) -> None:
        self.writer.write(count)

    def wait_same(self) -> None:
        """Wait until both consumers have all that was written; assert that they have the same."""
        for consumer in (self.at_relay, self.at_edge):
            self.edge.wait_until(lambda: len(consumer.frames) >= self.writer.total, 30)  # noqa: B023
        assert self.at_edge.frames == self.at_relay.frames
        assert len(self.at_edge.frames) == self.writer.total

    def close(self) -> None:
        self.at_relay.stop()
        self.at_edge.stop()
        self.edge.close()
        self.relay.close()


def health(edge: RelayProcess) -> tuple[int, str]:
    answer = call(f"{edge.url}/_health")
    return answer.status, answer.json.get("msg", "")


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with FakePlc() as plc, FakePds() as pds:
        made = Chain(tmp_path, plc, pds)
        yield made
        made.close()


def test_consumers_of_both_see_the_same_bytes(chain: Chain) -> None:
    chain.write(100)
    chain.wait_same()
    assert chain.edge.metric("relay_log_last_seq") == chain.relay.metric("relay_log_last_seq") == chain.at_edge.seqs[-1]
    assert chain.edge.metric("relay_log_segments") == 1
    # From the middle, out of the edge's own log after a restart.
    middle = chain.at_relay.seqs[50]
    assert chain.edge.stop() == 0
    chain.edge.start()
    with connect(f"{chain.edge.firehose}?cursor={middle}") as stream:
        assert [stream.recv(60) for _ in range(49)] == chain.at_relay.frames[51:]


def test_a_killed_edge_loses_and_repeats_nothing(chain: Chain) -> None:
    # From the first event on the host is known: the past of a new one may be passed over.
    chain.write(1)
    chain.wait_same()
    writing = gevent.spawn(chain.write, 900)
    for seed in range(3):
        gevent.sleep(random.Random(seed).uniform(0.3, 0.8))
        chain.edge.kill()
        chain.edge.start()
    writing.get(timeout=120)
    chain.wait_same()
    replayed = Consumer(chain.edge.firehose)
    chain.edge.wait_until(lambda: len(replayed.frames) >= chain.writer.total)
    replayed.stop()
    assert replayed.frames == chain.at_relay.frames


def test_a_killed_upstream_is_found_again(chain: Chain) -> None:
    chain.write(50)
    chain.wait_same()
    writing = gevent.spawn(chain.write, 300)
    gevent.sleep(0.3)
    chain.relay.kill()
    assert health(chain.edge) == (200, ""), "a short break is no news"
    chain.relay.start()
    writing.get(timeout=120)
    chain.wait_same()


def test_an_upstream_whose_log_is_gone_never_makes_seqs_go_back(chain: Chain) -> None:
    chain.write(60)
    chain.wait_same()
    last = chain.at_edge.seqs[-1]
    chain.relay.stop()
    shutil.rmtree(chain.relay.folder / "persist")
    (chain.relay.folder / "relay.sqlite").unlink()
    chain.relay.start()
    chain.edge.wait_until(lambda: "behind this edge's log: future-cursor" in health(chain.edge)[1], 30)
    chain.edge.wait_until(lambda: call(chain.edge.metrics_health).status == 500, 10)
    assert chain.at_edge.seqs[-1] == last
    # The operator's remedy: a first seq above all that was given out.
    chain.relay.stop()
    shutil.rmtree(chain.relay.folder / "persist")
    (chain.relay.folder / "relay.sqlite").unlink()
    chain.relay.settings["RELAY_INITIAL_SEQ_NUMBER"] = "1000"
    chain.relay.start()
    chain.relay.crawl(chain.writer.pds.url)
    chain.write(20)
    chain.edge.wait_until(lambda: len(chain.at_edge.seqs) >= 80, 30)
    assert chain.at_edge.seqs == sorted(set(chain.at_edge.seqs)) and chain.at_edge.seqs[-1] >= 1000
    chain.edge.wait_until(lambda: health(chain.edge) == (200, ""))


def test_a_takedown_hides_the_past_at_the_edge_too(chain: Chain) -> None:
    chain.write(40)
    chain.wait_same()
    did = chain.writer.repos[0].did
    chain.relay.admin("repo/takeDown", {"did": did})
    chain.edge.wait_until(lambda: len(chain.at_edge.frames) == 41)
    for restart in (False, True):
        if restart:
            chain.edge.kill()
            chain.edge.start()
        at_relay, at_edge = Consumer(chain.relay.firehose), Consumer(chain.edge.firehose)
        chain.edge.wait_until(lambda: min(len(at_edge.frames), len(at_relay.frames)) >= 36)  # noqa: B023
        at_relay.stop()
        at_edge.stop()
        assert at_edge.frames == at_relay.frames and len(at_edge.frames) == 36
        dids = [frames.decode(one).did for one in at_edge.frames]  # type: ignore[union-attr]
        assert dids.count(did) == 1


def test_what_an_edge_does_not_know_it_says_where_to_ask(chain: Chain) -> None:
    answer = call(f"{chain.edge.url}/xrpc/com.atproto.sync.listHosts?limit=7")
    assert (answer.status, answer.headers["Location"]) == (
        307,
        f"{chain.relay.url}/xrpc/com.atproto.sync.listHosts?limit=7",
    )
    assert call(f"{chain.edge.url}/xrpc/com.atproto.sync.requestCrawl", {"hostname": "a.example.com"}).status == 307
    assert call(f"{chain.edge.url}/admin/pds/list").status == 401
    chain.edge.wait_until(lambda: [one["id"] for one in chain.edge.admin("consumers/list")] == [1])
    with pytest.raises(AssertionError, match="this is an edge: ask"):
        chain.edge.admin("pds/list")
    assert chain.edge.metric("relay_edge_connected") == 1
    gevent.sleep(10.5)
    # An upstream may be quiet. What a busy machine does to an edge's health is over soon; this would not be.
    chain.edge.wait_until(lambda: health(chain.edge) == (200, ""))
    assert call(f"{chain.edge.url}/_readyz").status == 200
    # Neither kind of relay touches the other's data.
    chain.edge.stop()
    chain.edge.settings["RELAY_MODE"] = "relay"
    with pytest.raises(AssertionError, match="RELAY_MODE=edge"):
        chain.edge.start()


def identity(seq: int, size: int = 0) -> bytes:
    fields = {"seq": seq, "did": account_did(1), "time": timestamp(1_700_000_000_000_000), "handle": "h" * size}
    return frame("#identity", fields)


def test_notices_and_frames_of_other_kinds(tmp_path: Path) -> None:
    """What a relay of the same code does not send, from a fake one."""
    with FakePds() as upstream:
        upstream.server_header = "another (atproto-relay)"
        for seq in (1_000_001, 1_000_002):
            upstream.publish(seq, identity(seq))
        edge = edge_of(upstream.url, tmp_path, RELAY_EDGE_BACKFILL="false")
        edge.start()
        consumer = Consumer(edge.firehose)
        edge.wait_until(lambda: upstream.cursors == [None])
        upstream.publish(1_000_003, identity(1_000_003, size=4_999_900))
        upstream.publish(0, frame("#info", {"name": "OutdatedCursor"}))
        upstream.publish(0, frame("#labels", {"seq": 1_000_004}))
        upstream.publish(0, frame("#identity", {"seq": 1_000_005, "time": "x"}))
        upstream.publish(1_000_003, identity(1_000_003))
        upstream.publish(1_000_900, identity(1_000_900))
        edge.wait_until(lambda: consumer.seqs == [1_000_003, 1_000_900])
        assert edge.metric("relay_edge_gaps_total") == 1
        for reason in ("unknown", "unreadable", "repeated"):
            assert edge.metric("relay_edge_passed_over_total", reason=reason) == 1, reason
        upstream.events = [event for event in upstream.events if event[0]]
        upstream.on_stream = lambda sock: sock.sendall(websocket_frame(b"\xff"))
        upstream.hang_up()
        edge.wait_until(lambda: len(upstream.cursors) >= 3)
        upstream.on_stream = None
        upstream.publish(1_000_901, identity(1_000_901))
        edge.wait_until(lambda: consumer.seqs[-1] == 1_000_901)
        assert set(upstream.cursors[1:]) == {"1000900"}
        consumer.stop()
        edge.close()


def test_an_edge_needs_an_upstream(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="RELAY_EDGE_UPSTREAM"):
        edge_of("", tmp_path).start()

"""Three nodes, three NATS servers and PostgreSQL under load, and what can happen to them, in random order: no event is
lost, none comes twice, no seq is used twice. `make cluster-test ROUNDS=100` does more of it.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import gevent
import pytest

from relay.eventlog.high_water import RESERVE
from relay.eventlog.inspect import events
from tests.support.cluster import Cluster, RoamingConsumer
from tests.support.dash import DashAdmin
from tests.support.http import call
from tests.support.nats import NatsServers, nats_servers
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.postgres import Databases
from tests.support.proxy import Proxies
from tests.support.relay_process import RELAY, RelayProcess
from tests.support.through import Writer
from tests.support.tools import tool

ROUNDS = int(os.environ.get("CLUSTER_ROUNDS", "3"))
EVENTS_PER_SECOND = float(os.environ.get("CLUSTER_EVENTS", "30"))
# What a test waits for, on a machine that has other things to do.
PATIENCE = 120.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 + 120 * ROUNDS)]
KINDS = ("kill", "stop", "cut-nats", "cut-database", "cut-servers", "kill-server", "full-disk", "hand-over")


class Stage:
    """All of it. Every connection of a node goes through a proxy of its own."""

    def __init__(self, folder: Path, nats: NatsServers, database: str, plc: FakePlc, pds: FakePds) -> None:
        self.nats = nats
        parts = urlsplit(database)
        assert parts.port is not None
        # Of each node: to the servers, then to the database.
        self.ways = [Proxies([*(server.port for server in nats.servers), parts.port]) for _ in range(3)]
        self.cluster = Cluster(
            folder,
            [[f"nats://127.0.0.1:{port}" for port in ways.ports[:3]] for ways in self.ways],
            [database.replace(f":{parts.port}/", f":{ways.ports[3]}/") for ways in self.ways],
            plc.url,
        )
        self.writer = Writer(plc, pds)
        urls = [node.url for node in self.cluster.nodes]
        self.consumer = RoamingConsumer(urls)
        self.at_each = [RoamingConsumer([url]) for url in urls]
        self._load: gevent.Greenlet[[], None] | None = None

    def start(self, pds: FakePds) -> None:
        """Bring the nodes up, and write from then on."""
        for number in range(3):
            self.cluster.start(number)
        first = self.cluster.wait_active()
        self.cluster.nodes[first].crawl(pds.url)
        self.cluster.nodes[first].lift_limits(pds.hostname)
        self.go_on()

    def go_on(self) -> None:
        """Write, until there is a pause."""
        self._load = gevent.spawn(self._write)

    def _write(self) -> None:
        while True:
            self.writer.write(1)
            gevent.sleep(1 / EVENTS_PER_SECOND)

    def wait_flowing(self) -> None:
        """Until events that are written from now on come out."""
        written = self.writer.total
        self.cluster.wait_until(lambda: len(self.consumer.seqs) > written, PATIENCE)

    def play(self, kind: str, chance: random.Random) -> None:
        """One thing happens to the active node, or to what it needs, and ends again."""
        cluster = self.cluster
        active = cluster.wait_active(timeout=PATIENCE)
        node = cluster.nodes[active]
        assert node.child is not None
        if kind == "kill":
            cluster.kill(active)
            cluster.wait_active(other_than=active, timeout=PATIENCE)
            cluster.start(active)
        elif kind == "stop":
            node.child.process.send_signal(signal.SIGSTOP)
            cluster.wait_until(lambda: self._other_active(active), PATIENCE)
            node.child.process.send_signal(signal.SIGCONT)
            cluster.wait_until(lambda: cluster.role(active) == "standby", PATIENCE)
        elif kind == "cut-nats":
            self.ways[active].cut(0, 1, 2)
            cluster.wait_until(lambda: self._other_active(active), PATIENCE)
            self.ways[active].heal(0, 1, 2)
            cluster.wait_until(lambda: cluster.role(active) == "standby", PATIENCE)
        elif kind == "cut-database":
            self.ways[active].cut(3)
            gevent.sleep(chance.uniform(1.0, 6.0))
            self.ways[active].heal(3)
        elif kind == "cut-servers":
            number = chance.randrange(3)
            self.nats.routes.cut(number)
            gevent.sleep(chance.uniform(1.0, 8.0))
            self.nats.routes.heal(number)
        elif kind == "kill-server":
            server = chance.choice(self.nats.servers)
            server.kill()
            gevent.sleep(chance.uniform(0.0, 8.0))
            server.start()
        elif kind == "full-disk":
            # To the process it is as if there was no room for another byte.
            resource.prlimit(node.child.process.pid, resource.RLIMIT_FSIZE, (1, 1))
            cluster.wait_until(lambda: self._other_active(active), PATIENCE)
        else:
            node.admin("cluster/handOver", {})
            cluster.wait_until(lambda: self._other_active(active), PATIENCE)

    def _other_active(self, active: int) -> bool:
        return any(self.cluster.role(number) == "active" for number in range(3) if number != active)

    def gap(self, since: float) -> float:
        """The longest time after `since` in which no node had an event for anyone."""
        times = sorted(
            {
                seq: came for one in reversed(self.at_each) for seq, came in zip(one.seqs, one.times, strict=False)
            }.values()
        )
        times = [since, *(came for came in times if came > since)]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)

    def check(self) -> None:
        """All that was written came out once, in order, at every node; the logs have the same records."""
        self.pause()
        for consumer in (self.consumer, *self.at_each):
            self.cluster.wait_until(lambda: consumer.revs == self.writer.written, PATIENCE)  # noqa: B023
            assert consumer.seqs == sorted(set(consumer.seqs)) and not consumer.others
        assert {tuple(one.seqs) for one in (self.consumer, *self.at_each)} == {tuple(self.consumer.seqs)}

    def pause(self) -> None:
        """Write no more."""
        if self._load is not None:
            self._load.kill()

    def close(self) -> None:
        self.pause()
        for consumer in (self.consumer, *self.at_each):
            consumer.stop()
        self.cluster.close()
        for ways in self.ways:
            ways.close()


@pytest.fixture
def stage(tmp_path: Path, postgres_cluster: Databases) -> Iterator[Stage]:
    if tool("nats-server") is None or find_spec("nats") is None:
        pytest.skip("nats-server or nats-py is not installed: `make test` does that")
    database = postgres_cluster.create()
    with nats_servers(tmp_path / "nats", 3) as nats, FakePlc() as plc, FakePds() as pds:
        made = Stage(tmp_path, nats, database, plc, pds)
        try:
            made.start(pds)
            yield made
        finally:
            made.close()
    postgres_cluster.give_back(database)


def test_what_a_node_says_and_does(stage: Stage) -> None:
    """To a load balancer, to an operator, and to whoever asks the wrong one."""
    cluster = stage.cluster
    active = cluster.wait_active()
    cluster.wait_until(lambda: sorted(map(cluster.role, range(3))) == ["active", "standby", "standby"])
    cluster.wait_until(lambda: {node.admin("cluster")["active"] for node in cluster.nodes} == {f"node{active}"})
    for number, node in enumerate(cluster.nodes):
        role = "active" if number == active else "standby"
        answer = call(f"{node.url}/_readyz")
        assert (answer.status, answer.json) == (200, {"status": "ok", "role": role})
        assert call(f"{node.url}/_readyz?role=active").status == (200 if role == "active" else 503)
        assert call(f"{node.url}/_health").status == 200
        assert node.metric("relay_cluster_active") == (role == "active")
        node.wait_metric("relay_cluster_connected", 1)
        shown = node.admin("cluster")
        assert (shown["node"], shown["role"], shown["active"]) == (f"node{number}", role, f"node{active}")
        assert shown["term"] > 0 and shown["problem"] is None
    asked = cluster.nodes[active]
    assert asked.xrpc("listHosts").status == 200
    said = relay_command(asked, "cluster", "status")
    assert "active" in said.stdout and f"node{active}" in said.stdout, said
    people = DashAdmin(asked.url)
    people.log_in(asked.password)
    assert f"node node{active} is active" in people.page("/dash/")
    other = cluster.nodes[(active + 1) % 3]
    answer = other.xrpc("listHosts")
    assert (answer.status, answer.json["error"]) == (503, "NotActive")
    assert call(f"{other.url}/admin/pds/list").status == 503
    assert call(f"{other.url}/admin/cluster").status == 401
    said = relay_command(other, "cluster", "hand-over")
    assert said.returncode == 1 and f"ask node{active}" in said.stderr, said
    stage.wait_flowing()
    began = time.monotonic()
    assert relay_command(asked, "cluster", "hand-over").returncode == 0
    cluster.wait_until(lambda: stage._other_active(active), PATIENCE)
    stage.wait_flowing()
    print(f"handed over: {stage.gap(began):.1f} s without an event")
    cluster.wait_until(lambda: cluster.role(active) == "standby", PATIENCE)
    # One whose log is gone begins with the stream, and takes nothing before it has everything.
    cluster.kill(active)
    shutil.rmtree(asked.folder / "persist")
    cluster.start(active)
    stage.check()
    assert list(events(asked.folder / "persist")) == list(events(other.folder / "persist"))


def test_a_stream_that_has_lost_messages(stage: Stage, tmp_path: Path) -> None:
    """The servers come back as they were some time before, as after a crash: the nodes have the rest."""

    def stop_servers() -> None:
        for server in stage.nats.servers:
            server.kill()

    def start_servers() -> None:
        for server in stage.nats.servers:
            server.start()

    stage.wait_flowing()
    stop_servers()
    shutil.copytree(tmp_path / "nats", tmp_path / "older")
    start_servers()
    stage.wait_flowing()
    # All of it on every node, so that whoever goes on has it: what the active one alone had would come twice.
    stage.pause()
    stage.cluster.wait_until(lambda: all(one.revs == stage.writer.written for one in stage.at_each), PATIENCE)
    stop_servers()
    for server in ("n0", "n1", "n2"):
        shutil.rmtree(tmp_path / "nats" / server)
        shutil.copytree(tmp_path / "older" / server, tmp_path / "nats" / server)
    start_servers()
    stage.go_on()
    stage.wait_flowing()
    assert stage.consumer.seqs[-1] > RESERVE, "in doubt of what others have given out"
    stage.check()


def relay_command(node: RelayProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RELAY, *words], env={**os.environ, **node.settings}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"RELAY_MODE": "edge", "RELAY_EDGE_UPSTREAM": "https://a.test"}, "an edge has no part in a cluster"),
        ({"DATABASE_URL": "sqlite:///nowhere"}, "the nodes share a PostgreSQL database"),
        ({"RELAY_CLUSTER": "http://127.0.0.1:1"}, "begins with nats:// or tls://"),
        ({"RELAY_CLUSTER_NODE": "x" * 65}, "a name has at most 64 bytes"),
    ],
)
def test_what_a_cluster_cannot_work_with(tmp_path: Path, changed: dict[str, str], says: str) -> None:
    settings = {"RELAY_CLUSTER": "nats://127.0.0.1:1", "DATABASE_URL": "postgres://127.0.0.1:1/none"}
    node = RelayProcess(tmp_path, settings | changed)
    with pytest.raises(AssertionError, match=says):
        node.start()
    assert node.child is not None and node.child.process.returncode == 2
    node.close()


def test_nothing_of_it_is_loaded_without_the_setting() -> None:
    program = """
import sys
for name in ("nats", "asyncio", "relay.cluster"):
    sys.modules[name] = None
import relay.patched, relay.app
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_rounds_of_whatever_can_happen(stage: Stage, tmp_path: Path) -> None:
    seed = int(os.environ.get("CLUSTER_SEED", time.time()))
    chance = random.Random(seed)
    print(f"seed {seed}")
    stage.wait_flowing()
    gaps: dict[str, list[float]] = {}
    kinds = ["kill", "stop", "cut-nats"][:ROUNDS]
    kinds += [KINDS[(number + chance.randrange(len(KINDS))) % len(KINDS)] for number in range(ROUNDS - len(kinds))]
    for number, kind in enumerate(kinds):
        began = time.monotonic()
        stage.play(kind, chance)
        stage.wait_flowing()
        gaps.setdefault(kind, []).append(stage.gap(began))
        print(f"round {number} {kind}: {gaps[kind][-1]:.1f} s without an event, {time.monotonic() - began:.0f} s")
    stage.check()
    for kind, found in gaps.items():
        found.sort()
        print(f"{kind}: {len(found)} times, p50 {found[len(found) // 2]:.1f} s, longest {found[-1]:.1f} s")
    logs = [list(events(node.folder / "persist")) for node in stage.cluster.nodes]
    assert logs[0] == logs[1] == logs[2]

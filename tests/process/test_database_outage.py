"""The whole relay under load while its database is away: it waits, says so, loses nothing, and goes on by itself.

`OUTAGE_SECONDS` is how long: `OUTAGE_SECONDS=30 pytest tests/process/test_database_outage.py` by hand.
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import gevent
import pytest

from tests.support.http import Answer, call
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.postgres import Cluster
from tests.support.relay_process import RelayProcess
from tests.support.through import ResumingConsumer, Writer, check_whole
from tests.support.wait import PATIENCE

OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "8"))
# What a load balancer or a person waits for an answer, and what an outage may last unseen.
ANSWER_SECONDS = 5.0 * PATIENCE
RED_SECONDS = 15.0
GREEN_SECONDS = 15.0
DRAIN_SECONDS = 30.0

Fault = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def cluster(postgres_cluster: Cluster) -> Iterator[Cluster]:
    """A server of this module's own. The session's is asked for so that both are skipped."""
    own = Cluster()
    yield own
    own.close()


@pytest.fixture
def start_relay(tmp_path: Path) -> Iterator[Callable[[FakePlc, str], RelayProcess]]:
    started: list[RelayProcess] = []

    def start(plc: FakePlc, database_url: str) -> RelayProcess:
        relay = RelayProcess(tmp_path, {"RELAY_PLC_HOST": plc.url, "DATABASE_URL": database_url})
        started.append(relay)
        relay.start()
        return relay

    yield start
    for relay in started:
        relay.close()


@contextmanager
def restarted(cluster: Cluster, how: signal.Signals) -> Iterator[None]:
    """The server is stopped, by an operator (SIGINT) or a crash (SIGQUIT), and started again."""
    cluster.stop(how)
    try:
        yield
    finally:
        cluster.start()


@contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    """The server hangs, as on a disk that does not answer."""
    cluster.freeze()
    try:
        yield
    finally:
        cluster.thaw()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the SQLite file for writing."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def full_disk(relay: RelayProcess) -> Iterator[None]:
    """No file of the relay can grow, neither the SQLite file nor the log."""
    assert relay.child
    pid = relay.child.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def health(relay: RelayProcess) -> Answer:
    return call(f"{relay.url}/_health", timeout=ANSWER_SECONDS)


def check_outage(relay: RelayProcess, plc: FakePlc, outage: AbstractContextManager[None]) -> None:
    """Load all the time: old accounts, and new ones that nobody can know without SQL."""
    with FakePds() as pds:
        writer, consumer = Writer(plc, pds), ResumingConsumer(relay.firehose)
        relay.crawl(pds.url)
        relay.lift_limits(pds.hostname)
        # From the first event on the host is known: the past of a new one may be passed over.
        writer.write(1)
        relay.wait_until(lambda: len(consumer.events) == 1)
        writing = gevent.spawn(write_for_ever, writer)
        relay.wait_until(lambda: len(consumer.events) > 50)
        with outage:
            began = time.monotonic()
            relay.wait_until(lambda: health(relay).status == 500, RED_SECONDS)
            relay.wait_until(
                lambda: call(relay.metrics_health).status == 500 and relay.metric("relay_healthy") == 0, 10
            )
            red_after = time.monotonic() - began
            while time.monotonic() < began + max(OUTAGE_SECONDS, red_after + 1):
                assert health(relay).status == 500
                assert call(f"{relay.url}/_healthz", timeout=ANSWER_SECONDS).status == 200
                assert relay.metric("relay_events_received_total") > 0
                gevent.sleep(0.2)
        ended = time.monotonic()
        relay.wait_until(lambda: health(relay).status == 200, GREEN_SECONDS)
        relay.wait_until(lambda: call(relay.metrics_health).status == 200 and relay.metric("relay_healthy") == 1, 10)
        green_after = time.monotonic() - ended
        gevent.sleep(0.5)
        writing.kill()
        relay.wait_until(lambda: len(consumer.events) >= writer.total, 30)
        consumer.stop()
        check_whole(consumer, writer)
        for did, revs in writer.written.items():
            assert relay.xrpc("getLatestCommit", f"did={did}").json.get("rev") == (revs[-1] if revs else None)
        relay.wait_until(lambda: relay.metric("relay_projection_lag_events") == 0)
        print(f"\n{writer.total} events, red after {red_after:.1f} s, green after {green_after:.1f} s")
    assert relay.stop() == 0


def write_for_ever(writer: Writer) -> None:
    while True:
        writer.write(30)
        writer.sign_up()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_postgres_is_restarted(
    cluster: Cluster, start_relay: Callable[[FakePlc, str], RelayProcess], how: signal.Signals
) -> None:
    with FakePlc() as plc:
        check_outage(start_relay(plc, cluster.create()), plc, restarted(cluster, how))


@pytest.mark.timeout(300)
def test_postgres_hangs(cluster: Cluster, start_relay: Callable[[FakePlc, str], RelayProcess]) -> None:
    with FakePlc() as plc:
        check_outage(start_relay(plc, cluster.create()), plc, frozen(cluster))


@pytest.mark.timeout(300)
def test_sqlite_is_locked(tmp_path: Path, start_relay: Callable[[FakePlc, str], RelayProcess]) -> None:
    with FakePlc() as plc:
        relay = start_relay(plc, f"sqlite://{tmp_path}/relay.sqlite")
        check_outage(relay, plc, locked(tmp_path / "relay.sqlite"))


@pytest.mark.timeout(300)
def test_the_disk_is_full(tmp_path: Path, start_relay: Callable[[FakePlc, str], RelayProcess]) -> None:
    with FakePlc() as plc:
        relay = start_relay(plc, f"sqlite://{tmp_path}/relay.sqlite")
        check_outage(relay, plc, full_disk(relay))


@pytest.mark.timeout(300)
def test_a_hung_database_does_not_hold_up_the_drain(
    cluster: Cluster, start_relay: Callable[[FakePlc, str], RelayProcess]
) -> None:
    """What SQL misses at the stop it gets from the log at the next start."""
    with FakePlc() as plc, FakePds() as pds:
        relay = start_relay(plc, cluster.create())
        writer, consumer = Writer(plc, pds), ResumingConsumer(relay.firehose)
        relay.crawl(pds.url)
        writer.write(100)
        relay.wait_until(lambda: len(consumer.events) >= 100)
        with frozen(cluster):
            writer.write(50)
            relay.wait_until(lambda: len(consumer.events) >= 150)
            began = time.monotonic()
            assert relay.stop() == 0
            print(f"\nstopped after {time.monotonic() - began:.1f} s")
            assert time.monotonic() - began < DRAIN_SECONDS * PATIENCE
        relay.start()
        writer.write(50)
        relay.wait_until(lambda: len(consumer.events) >= writer.total)
        consumer.stop()
        check_whole(consumer, writer)


@pytest.mark.timeout(300)
def test_a_relay_that_is_stopped_on_a_full_disk_goes_on_where_it_was(
    tmp_path: Path, start_relay: Callable[[FakePlc, str], RelayProcess]
) -> None:
    """It ends in time, with a batch that is there in part and events that are in no file; all of them come out once."""
    with FakePlc() as plc, FakePds() as pds:
        relay = start_relay(plc, f"sqlite://{tmp_path}/relay.sqlite")
        writer, consumer = Writer(plc, pds), ResumingConsumer(relay.firehose)
        relay.crawl(pds.url)
        relay.lift_limits(pds.hostname)
        for _ in range(2):
            writer.write(50)
            relay.wait_until(lambda: len(consumer.events) == writer.total)
            assert relay.child
            newest = max(tmp_path.rglob("*.seg"))
            room = newest.stat().st_size + 2000
            resource.prlimit(relay.child.process.pid, resource.RLIMIT_FSIZE, (room, room))
            writer.write(200)
            relay.wait_until(lambda: health(relay).status == 500, RED_SECONDS)
            began = time.monotonic()
            relay.stop()
            assert time.monotonic() - began < DRAIN_SECONDS
            relay.start()
            relay.wait_until(lambda: len(consumer.events) == writer.total, 60)
        consumer.stop()
        check_whole(consumer, writer)
        assert relay.stop() == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("hosts", ["localhost:1", "127.0.0.1:1,127.0.0.1:2"])
def test_a_database_that_is_not_there_is_named_in_one_line(tmp_path: Path, hosts: str) -> None:
    """As it says it itself: libpq gives each server two lines, and a tab."""
    relay = RelayProcess(tmp_path, {"DATABASE_URL": f"postgres://relay:secret@{hosts}/relay"})
    assert relay.begin().process.wait(30) == 1
    said = relay.log.read_text().splitlines()
    assert len(said) == 1 and "cannot start: store-unavailable: " in said[0]
    assert hosts.partition(":")[0] in said[0] and "Connection refused" in said[0]
    assert "\\x0a" not in said[0] and "\t" not in said[0] and "secret" not in said[0]
    relay.close()

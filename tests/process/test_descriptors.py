"""Out of file descriptors: said once, no tracebacks, and what is connected already goes on, log and SQL with it."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.through import ResumingConsumer, Writer, check_whole

pytestmark = pytest.mark.slow


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def limited(pid: int, limit: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    idle = []
    for _ in range(count):
        with suppress(OSError):
            idle.append(socket.create_connection(("127.0.0.1", port), timeout=1))
    yield
    for connection in idle:
        connection.close()


@pytest.mark.timeout(300)
def test_crowds_leave_some_for_log_and_sql(tmp_path: Path, network: tuple[FakePlc, FakePds]) -> None:
    relay = RelayProcess(tmp_path, {"RELAY_PLC_HOST": network[0].url, "RELAY_MAX_CONSUMERS_PER_ADDRESS": "2000"})
    relay.start()
    assert relay.child is not None
    pid, port = relay.child.process.pid, int(relay.url.rpartition(":")[2])
    writer, consumer = Writer(*network), ResumingConsumer(relay.firehose)
    relay.crawl(network[1].url)
    relay.lift_limits(network[1].hostname)
    writer.write(50)
    relay.wait_until(lambda: len(consumer.events) >= 50)
    limit = open_descriptors(pid) + 60
    with limited(pid, limit):
        with idle_connections(port, 200):
            relay.wait_until(lambda: relay.metric("relay_http_refused_total", reason="no-descriptors") > 100)
            # A quarter of so few is left, but for what is open for a moment.
            assert open_descriptors(pid) <= limit - limit // 4 + 8
            writer.write(200)
            relay.wait_until(lambda: len(consumer.events) >= 250)
            relay.wait_until(lambda: relay.metric("relay_projection_lag_events") == 0)
        relay.wait_until(lambda: relay._ready())
    # Not even one for what has to be done at once, and what is open goes on.
    with limited(pid, open_descriptors(pid)), idle_connections(port, 10):
        writer.write(50)
        relay.wait_until(lambda: len(consumer.events) >= 300)
    relay.wait_until(lambda: relay._ready())
    check_whole(consumer, writer)
    text = relay.log.read_text()
    assert text.count("out of file descriptors") == 1
    assert "Traceback" not in text
    consumer.stop()
    relay.close()

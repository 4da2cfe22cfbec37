"""The whole relay while its hub is blocked for seconds: scrapes are answered, and systemd's watchdog is not fed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import subprocess

from tests.support.http import call
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.queues import check_queues
from tests.support.relay_process import RelayProcess
from tests.support.through import ResumingConsumer, Writer, check_whole
from tests.support.wait import PATIENCE

BLOCK_SECONDS = 6.0
WATCHDOG_SECONDS = 1.5


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        yield sock


@pytest.fixture
def relay(tmp_path: Path, network: tuple[FakePlc, FakePds], manager: socket.socket) -> Iterator[RelayProcess]:
    settings = {
        "RELAY_PLC_HOST": network[0].url,
        "BLOCK_SECONDS": str(BLOCK_SECONDS),
        # So that all queues are there, whatever number of cores this machine has.
        "RELAY_VALIDATOR_PROCESSES": "1",
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6)),
    }
    process = RelayProcess(tmp_path, settings, (sys.executable, "-m", "tests.support.blockable"))
    process.start()
    yield process
    process.close()


def block(relay: RelayProcess) -> None:
    assert relay.child
    relay.child.process.send_signal(signal.SIGUSR1)


@pytest.mark.timeout(300)
def test_scrapes_are_answered(relay: RelayProcess, network: tuple[FakePlc, FakePds]) -> None:
    """While events come as fast as they can, beside clients that send half a request or read nothing."""
    writer, consumer = Writer(*network), ResumingConsumer(relay.firehose)
    relay.crawl(network[1].url)
    relay.lift_limits(network[1].hostname)
    # From the first event on the host is known: the past of a new one may be passed over.
    writer.write(1)
    relay.wait_until(lambda: len(consumer.events) == 1)
    writing = gevent.spawn(writer.write, 1_000_000)
    relay.wait_until(lambda: len(consumer.events) > 50)
    stuck = [
        stuck_client(relay, request) for request in (b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 9)
    ]
    scrape = [sys.executable, "-c", f"import urllib.request as u; u.urlopen({relay.metrics_url!r}, timeout=60).read()"]
    scrapes = 0
    # On a busy machine a process may take longer to start than the hub is blocked.
    for _ in range(10):
        block(relay)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            call(f"{relay.url}/_healthz", timeout=1)
        while True:
            # In a process of its own: this one is busy with the load.
            subprocess.run(scrape, check=True)
            if time.monotonic() > began + BLOCK_SECONDS - 0.5:
                break
            scrapes += 1
        if scrapes:
            break
        relay.wait_until(lambda: call(f"{relay.url}/_healthz").status == 200)
    assert scrapes
    relay.wait_until(lambda: lags_over_five_seconds(relay) >= 1)
    writing.kill()
    relay.wait_until(lambda: len(consumer.events) >= writer.total, 60)
    consumer.stop()
    check_whole(consumer, writer)
    check_queues(call(relay.metrics_url).body.decode())
    for client in stuck:
        client.close()


def lags_over_five_seconds(relay: RelayProcess) -> float:
    return relay.metric("relay_hub_lag_seconds_count") - relay.metric("relay_hub_lag_seconds_bucket", le="5.0")


def stuck_client(relay: RelayProcess, request: bytes) -> socket.socket:
    port = int(relay.metrics_url.rsplit(":", 1)[1].split("/")[0])
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    return client


@pytest.mark.timeout(180)
def test_the_watchdog_is_not_fed(relay: RelayProcess, manager: socket.socket) -> None:
    manager.settimeout(10 * PATIENCE)
    said = manager.recv(100)
    while said.startswith(b"EXTEND_TIMEOUT_USEC="):
        said = manager.recv(100)
    assert said == b"READY=1"
    for _ in range(3):
        assert manager.recv(100) == b"WATCHDOG=1"
    block(relay)
    manager.settimeout(WATCHDOG_SECONDS)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        while time.monotonic() < began + BLOCK_SECONDS - WATCHDOG_SECONDS:
            manager.recv(100)
    manager.settimeout(BLOCK_SECONDS * PATIENCE)
    assert manager.recv(100) == b"WATCHDOG=1", "the hub runs again"
    assert relay.child
    os.kill(relay.child.process.pid, signal.SIGTERM)
    said = b""
    while said != b"STOPPING=1":
        said = manager.recv(100)
    assert relay.child.process.wait(30 * PATIENCE) == 0

"""Promise 10: SIGTERM drains within 30 s: hosts stop, lanes empty, log and cursors are flushed, consumers get the rest
and a close frame.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import gevent
import pytest

from tests.support import databases
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.through import ResumingConsumer, Writer, check_whole
from tests.support.wait import PATIENCE

EVENTS_A_ROUND = 120
HANDSHAKE = (
    "GET /xrpc/com.atproto.sync.subscribeRepos?cursor=0 HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.timeout(300)
def test_sigterm_drains_and_a_restart_goes_on(relay: RelayProcess, network: tuple[FakePlc, FakePds]) -> None:
    writer, consumer = Writer(*network), ResumingConsumer(relay.firehose)
    relay.crawl(network[1].url)
    writing = gevent.spawn(writer.write, EVENTS_A_ROUND)
    relay.wait_until(lambda: len(consumer.events) > EVENTS_A_ROUND // 3)
    assert relay.child is not None
    relay.child.process.send_signal(signal.SIGTERM)
    assert relay.child.process.wait(30 * PATIENCE) == 0
    writing.join()
    relay.start()
    writer.write(EVENTS_A_ROUND)
    relay.wait_until(lambda: len(consumer.events) >= writer.total)
    consumer.stop()
    check_whole(consumer, writer)
    assert consumer.close_codes[:1] == [1001], "a drained consumer is told that the relay goes away"


@pytest.mark.timeout(180)
def test_a_start_that_has_to_wait_is_ended(tmp_path: Path, database_url: str) -> None:
    """Somebody else has what the relay needs to make its tables, for which it would wait an hour."""
    relay = RelayProcess(tmp_path, {"DATABASE_URL": database_url})
    with databases.in_the_way(database_url) as has_come:
        child = relay.begin()
        relay.wait_until(has_come)
        assert child.stop() == 0
    assert "stopped before the start was through" in relay.log_tail()
    assert "Traceback" not in relay.log_tail()
    relay.start()
    assert relay.stop() == 0
    relay.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mode", [pytest.param("relay", marks=pytest.mark.slow), "edge"])
def test_a_disk_that_does_not_answer_holds_up_nothing(
    tmp_path: Path, network: tuple[FakePlc, FakePds], mode: str
) -> None:
    """A relay has an event under way; an edge has its log to close."""
    plc, pds = network
    stuck = tmp_path / "stuck"
    settings = {"RELAY_PLC_HOST": plc.url, "RELAY_MODE": mode, "RELAY_EDGE_UPSTREAM": "http://127.0.0.1:9"}
    relay = RelayProcess(tmp_path, settings, (sys.executable, "-m", "tests.support.stuck_disk", stuck))
    relay.start()
    try:
        if mode == "relay":
            writer = Writer(plc, pds)
            relay.crawl(pds.url)
            writer.write(1)
            relay.wait_metric("relay_events_logged_total", 1)
        stuck.touch()
        if mode == "relay":
            writer.write(1)
            relay.wait_until(lambda: relay.metric("relay_healthy") == 0)
        assert relay.child is not None
        relay.child.stop(30 * PATIENCE)
        assert "has not answered for" in relay.log_tail()
        assert "Traceback" not in relay.log_tail()
    finally:
        relay.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nobody_holds_up_the_end(tmp_path: Path, network: tuple[FakePlc, FakePds]) -> None:
    """A directory that answers nothing, a consumer that reads nothing, a request that never ends, and two signals."""
    plc, pds = network
    relay = RelayProcess(tmp_path, {"RELAY_PLC_HOST": plc.url})
    relay.start()
    try:
        hold_up(relay, plc, pds)
    finally:
        relay.close()


def hold_up(relay: RelayProcess, plc: FakePlc, pds: FakePds) -> None:
    writer = Writer(plc, pds)
    relay.crawl(pds.url)
    writer.write(40)
    relay.wait_metric("relay_events_logged_total", writer.total)
    address = urlsplit(relay.url)
    assert address.hostname and address.port
    with (
        socket.create_connection((address.hostname, address.port)) as deaf,
        socket.create_connection((address.hostname, address.port)) as endless,
    ):
        deaf.sendall(HANDSHAKE.encode())
        endless.sendall(b"GET /xrpc/_health HTTP/1.1\r\nX-Header: ")
        plc.latency = 600
        writer.sign_up()
        writing = gevent.spawn(writer.write, 200)
        gevent.sleep(0.5)
        assert relay.child is not None
        began = time.monotonic()
        relay.child.process.send_signal(signal.SIGTERM)
        gevent.sleep(0.2)
        relay.child.process.send_signal(signal.SIGTERM)
        assert relay.child.process.wait(35 * PATIENCE) == 0
        assert time.monotonic() - began < 30 * PATIENCE < plc.latency
        writing.join()
    # What waited was not settled: it comes again.
    plc.latency = 0
    relay.start()
    consumer = ResumingConsumer(relay.firehose)
    relay.wait_until(lambda: len(consumer.events) >= writer.total, 40)
    consumer.stop()
    check_whole(consumer, writer)

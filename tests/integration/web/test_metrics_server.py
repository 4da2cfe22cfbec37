"""The metrics port: a scrape is answered whatever the relay's hub does, and a stuck scraper holds only itself."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from relay.kit.values import Bind
from relay.web import metrics_server
from relay.web.metrics_server import MAX_CONNECTIONS, MetricsServer
from tests.support.http import call
from tests.support.wait import PATIENCE


@pytest.fixture
def problems() -> list[str]:
    """What is wrong with the relay; the last one is told."""
    return []


@pytest.fixture
def server(problems: list[str]) -> Iterator[MetricsServer]:
    server = MetricsServer(Bind("127.0.0.1", 0), lambda: problems[-1] if problems else None)
    server.start()
    yield server
    server.stop()


def test_every_instrument_is_shown(server: MetricsServer) -> None:
    answer = call(f"http://127.0.0.1:{server.port}/metrics")
    assert answer.status == 200
    assert b"relay_consumers " in answer.body and b"relay_events_received_total" in answer.body


def test_an_answer_to_head_has_no_body(server: MetricsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        sock.sendall(
            b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\nHEAD /_health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        received = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    heads = received.split(b"\r\n\r\n")
    assert len(heads) == 3 and not heads[2] and all(head.startswith(b"HTTP/1.1 ") for head in heads[:2])


def test_health_is_told_beside_the_metrics(server: MetricsServer, problems: list[str]) -> None:
    url = f"http://127.0.0.1:{server.port}/_health"
    well = call(url)
    assert (well.status, well.json, well.headers["Content-Type"]) == (200, {"status": "ok"}, "application/json")
    assert (call(url + "?verbose=1").status, call(url, method="HEAD").body) == (200, b"")
    problems.append("the log cannot be written")
    assert (call(url).status, call(url).json) == (500, {"status": "error", "msg": "the log cannot be written"})


@pytest.mark.parametrize("path", ["/", "/metrics/", "/_health/", "/metrics.json", "/favicon.ico", "/xrpc/_health"])
def test_nothing_else_is_there(server: MetricsServer, path: str) -> None:
    answer = call(f"http://127.0.0.1:{server.port}{path}")
    assert (answer.status, answer.json["error"]) == (404, "NotFound")


def test_a_busy_hub_does_not_hold_up_a_scrape(server: MetricsServer) -> None:
    scrape = (
        "import time, urllib.request as u; t = time.monotonic();"
        f"u.urlopen('http://127.0.0.1:{server.port}/metrics', timeout=60).read(); print(time.monotonic() - t)"
    )
    with subprocess.Popen([sys.executable, "-c", scrape], stdout=subprocess.PIPE, text=True) as child:
        busy_until = time.monotonic() + 100
        # Not one switch to the hub in here: `os.waitid` with WNOHANG returns at once.
        while time.monotonic() < busy_until:
            if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
        assert time.monotonic() < busy_until
        assert child.stdout is not None and float(child.stdout.read())


@pytest.mark.parametrize("head", [b"", b"GET /metrics HTTP/1.1\r\n"])
def test_a_crowd_of_connections_does_not_hold_up_a_scrape(server: MetricsServer, head: bytes) -> None:
    """Those that say nothing, or half a request: the oldest go."""
    crowd = []
    try:
        for _ in range(200):
            crowd.append(socket.create_connection(("127.0.0.1", server.port)))
            crowd[-1].sendall(head)
        began = time.monotonic()
        assert call(f"http://127.0.0.1:{server.port}/metrics", timeout=60).status == 200
        assert time.monotonic() - began < 2 * PATIENCE
        text = call(f"http://127.0.0.1:{server.port}/metrics").body.decode()
        size = re.search(r'relay_queue_size{queue="metrics-connections"} (\S+)', text)
        assert size and float(size[1]) <= MAX_CONNECTIONS
    finally:
        for connection in crowd:
            connection.close()


def test_a_flood_of_scrapes_is_paced(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{server.port}/_health"
    began = time.monotonic()
    for _ in range(metrics_server.REQUESTS_BURST + 30):
        assert call(url).status == 200
    assert time.monotonic() - began > 0.7


def test_clients_that_drip_are_cut_off(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte after the other, or a body that nobody asked for: neither holds its place for long."""
    monkeypatch.setattr(metrics_server.MetricsHandler, "head_seconds", 0.3)
    monkeypatch.setattr(metrics_server, "CONNECTION_SECONDS", 1.0)
    with_body = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    for head in (b"", b"GET /metrics HTTP/1.1\r\n", with_body):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head)
            began = time.monotonic()
            with contextlib.suppress(OSError):
                while time.monotonic() < began + 10:
                    client.sendall(b"x")
                    client.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        while client.recv(65536):
                            pass
                        break
                    client.setblocking(True)
                    time.sleep(0.05)
            assert time.monotonic() - began < 2 * PATIENCE, head


def test_a_taken_port_is_an_error_at_the_start(server: MetricsServer) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsServer(Bind("127.0.0.1", server.port), lambda: None).start()


def test_stop_closes_the_port() -> None:
    server = MetricsServer(Bind("127.0.0.1", 0), lambda: None)
    server.start()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)

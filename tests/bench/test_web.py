"""What a consumer costs through the whole of the API server: memory, CPU idle, CPU for each event delivered."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest

from relay.store.open import open_database
from tests.support.wait import until
from tests.support.web import Web

EVENT_BYTES = 5000
EVENTS_PER_COMMIT = 16
COMMITS = 300

# Upgrades N connections, and reads them all until the relay closes them.
READER = r"""
import selectors, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
request = (
    b"GET /xrpc/com.atproto.sync.subscribeRepos HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
chosen, buffer = selectors.DefaultSelector(), bytearray(1 << 20)
for _ in range(count):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(request)
    chosen.register(connection, selectors.EVENT_READ)
while count:
    for key, _ in chosen.select():
        if not key.fileobj.recv_into(buffer):
            chosen.unregister(key.fileobj)
            key.fileobj.close()
            count -= 1
"""


def rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4.0


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_fan_out(tmp_path: Path, count: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    db = open_database(f"sqlite://{tmp_path}/relay.sqlite", max_connections=4)
    web = Web(db, tmp_path, 64 << 20, max_consumers=count, max_consumers_per_address=count)
    web.start()
    before = rss()
    with subprocess.Popen([sys.executable, "-c", READER, str(web.server.port), str(count)]):
        consumers = until(
            lambda: list(web.services.consumers) if len(list(web.services.consumers)) == count else [], 60
        )
        gevent.sleep(1)
        memory = (rss() - before) / count
        idle = time.process_time()
        gevent.sleep(3)
        idle = (time.process_time() - idle) / 3
        cpu = time.process_time()
        for _ in range(COMMITS if count < 1000 else COMMITS // 10):
            web.publish(EVENTS_PER_COMMIT, size=EVENT_BYTES)
            until(lambda: min(consumer.position for consumer in consumers) == web.tail.head, 60)
        delivered = sum(consumer.events_consumed for consumer in consumers)
        cpu = time.process_time() - cpu
        web.stop()
    db.close()
    print(
        f"\n{count} consumers: {memory:.1f} KiB each, idle {idle:.1%} of a core,"
        f" {cpu / delivered * 1e6:.2f} us of CPU a delivery, logging included"
    )

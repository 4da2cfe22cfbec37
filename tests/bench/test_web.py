"""What a consumer costs through the whole of the API server: memory, CPU idle, CPU for each event delivered."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest

from relay.atproto.frames import Kind
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import Record
from relay.store.open import open_database
from tests.support.stream import append
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

# Asks for COUNT replays of EVENTS events each, from as many places of the log, and reads until all are there.
REPLAYS = r"""
import selectors, socket, sys, time
port, count, events, size = map(int, sys.argv[1:5])
chosen, buffer, wanted, total = selectors.DefaultSelector(), bytearray(1 << 20), {}, 0
began = time.perf_counter()
for number in range(count):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall((
        f"GET /xrpc/com.atproto.sync.subscribeRepos?cursor={number * events} HTTP/1.1\r\nHost: relay\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
    chosen.register(connection, selectors.EVENT_READ)
    wanted[connection] = events * size
while wanted:
    for key, _ in chosen.select():
        count = key.fileobj.recv_into(buffer)
        total += count
        wanted[key.fileobj] -= count
        if not count or wanted[key.fileobj] <= 0:
            chosen.unregister(key.fileobj)
            key.fileobj.close()
            del wanted[key.fileobj]
print(total // size / (time.perf_counter() - began))
"""
REPLAYED = 100_000
REPLAYED_BYTES = 3000


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


@pytest.mark.parametrize("count", [1, 50])
def test_replay(tmp_path: Path, count: int) -> None:
    """A log of 100,000 events to one consumer, or a fiftieth of it to each of fifty, who read at the same time."""
    log, frame, now = SegmentLog(tmp_path / "persist"), os.urandom(REPLAYED_BYTES), time.time_ns() // 1000
    for start in range(1, REPLAYED, 250):
        seqs = range(start, start + 250)
        append(log, [Record(seq, now, seq % 1000 + 1, 1, seq, Kind.COMMIT, 0, 0, frame) for seq in seqs])
    log.close()
    db = open_database(f"sqlite://{tmp_path}/relay.sqlite", max_connections=4)
    web = Web(db, tmp_path, 1 << 20, max_consumers=count, max_consumers_per_address=count)
    web.start()
    each = REPLAYED // count
    arguments = [str(web.server.port), str(count), str(each), str(REPLAYED_BYTES + 4)]
    cpu = time.process_time()
    with subprocess.Popen([sys.executable, "-c", REPLAYS, *arguments], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        until(lambda: reader.poll() is not None, 60)
        rate = float(reader.stdout.read())
    cpu = time.process_time() - cpu
    web.stop()
    db.close()
    print(f"\n{count} replays: {rate:,.0f} events/s of 3 KB in all, {cpu / REPLAYED * 1e6:.2f} us of CPU an event")

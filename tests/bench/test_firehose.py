"""What consumers cost: replay to one feed, and fan-out to many over real sockets, read by a process of their own."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest
from gevent.server import StreamServer

from relay.atproto.frames import Kind
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import Record
from tests.support.stream import Room, append
from tests.support.submission import Submission

FRAME = os.urandom(5000)

# Opens N connections, tells when they are all open, and then reads them all until the end.
READER = """
import selectors, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
chosen, total = selectors.DefaultSelector(), 0
buffer = bytearray(1 << 20)
for _ in range(count):
    connection = socket.create_connection(("127.0.0.1", port))
    chosen.register(connection, selectors.EVENT_READ)
print("open", flush=True)
while count:
    for key, _ in chosen.select():
        if size := key.fileobj.recv_into(buffer):
            total += size
        else:
            chosen.unregister(key.fileobj)
            count -= 1
print(total, flush=True)
"""


def raise_file_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("size", [500, 5000])
def test_replay_from_disk(tmp_path: Path, size: int) -> None:
    count = 400_000_000 // (size + 500)
    count = min(count, 200_000)
    segments = SegmentLog(tmp_path / "persist")
    frame = FRAME[:size]
    for start in range(1, count + 1, 256):
        batch = [
            Record(seq, 1, seq % 1000 + 1, 1, seq, Kind.COMMIT, 0, 0, frame)
            for seq in range(start, min(start + 256, count + 1))
        ]
        append(segments, batch)
    segments.close()
    room = Room(tmp_path, f"sqlite://{tmp_path}/relay.sqlite")
    feed = room.stream.firehose.attach(0)
    started, cpu = time.perf_counter(), time.process_time()
    while feed.position < count:
        feed.next(1.0)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(
        f"\nreplay of {count} events of {size} bytes: {count / elapsed:,.0f} events/s, {cpu / count * 1e6:.2f} us CPU"
    )
    room.stop()


def test_group_commit(tmp_path: Path) -> None:
    room = Room(tmp_path, f"sqlite://{tmp_path}/relay.sqlite")
    room.start()
    count = 20_000
    started = time.perf_counter()
    for seq in range(1, count + 1):
        room.stream.sequencer.submit(Submission(Kind.COMMIT, 1, 0, 0, 0, FRAME[:20], FRAME[20:], None, None, None))
        if seq % 16 == 0:
            gevent.sleep(0)
    room.wait_for(count)
    elapsed = time.perf_counter() - started
    latencies = []
    for seq in range(count + 1, count + 101):
        gevent.sleep(0.02)
        asked = time.perf_counter()
        done = gevent.event.Event()
        room.stream.sequencer.submit(Submission(Kind.COMMIT, 1, 0, 0, 0, b"", b"", None, None, done.set))
        done.wait()
        latencies.append(time.perf_counter() - asked)
        assert room.stream.firehose.last_seq == seq
    latency = sorted(latencies)[50] * 1e3
    print(f"\n{count / elapsed:,.0f} events/s of 5 KB, {latency:.2f} ms from submission to publication when idle")
    room.stop()


@pytest.mark.parametrize(("consumers", "events"), [(1, 50_000), (10, 20_000), (100, 10_000), (1000, 2_000)])
def test_fan_out(tmp_path: Path, consumers: int, events: int) -> None:
    raise_file_limit()
    room = Room(tmp_path, f"sqlite://{tmp_path}/relay.sqlite")
    room.start()
    arrived: list[socket.socket] = []
    closing = gevent.event.Event()

    def serve(connection: socket.socket, _address: object) -> None:
        feed = room.stream.firehose.attach(None)
        arrived.append(connection)
        while feed.position < events:
            if (data := feed.next(1.0)) is not None:
                connection.sendall(data)
        closing.wait()

    server = StreamServer(("127.0.0.1", 0), serve, backlog=1024)
    server.start()
    before = rss()
    command = [sys.executable, "-c", READER, str(server.server_port), str(consumers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout
        reader.stdout.readline()
        room.wait_until(lambda: len(arrived) == consumers)
        connected = rss()
        started, cpu = time.perf_counter(), time.process_time()
        for seq in range(1, events + 1):
            room.stream.sequencer.submit(Submission(Kind.COMMIT, 1, 0, 0, 0, FRAME[:20], FRAME[20:], None, None, None))
            if seq % 16 == 0:
                gevent.sleep(0)
        room.wait_for(events)
        closing.set()
        total = int(reader.stdout.readline())
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    deliveries = consumers * events
    assert total >= deliveries * len(FRAME)
    print(
        f"\n{consumers} consumers: {deliveries / elapsed:,.0f} deliveries/s, {cpu / deliveries * 1e6:.2f} us CPU each,"
        f" {(connected - before) / consumers / 1024:.1f} KiB a consumer"
    )
    server.stop()
    room.stop()

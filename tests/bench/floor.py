"""What no relay in Python can do without: `python -m tests.bench.floor`, beside `tests.bench.network` at the same rate.

A program on gevent that receives the events of a fleet, checks a signature over each, appends them to a file that is
synced, and sends them to consumers: no decoding, no tree, no account, no SQL. Once with a greenlet for each host, woken
for each event, and once with all hosts read together. What it costs is the floor under what the relay costs.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from itertools import cycle  # noqa: E402

import gevent  # noqa: E402
from gevent import socket  # noqa: E402
from gevent.server import StreamServer  # noqa: E402
from gevent.threadpool import ThreadPool  # noqa: E402

from relay.atproto.crypto import PublicKey  # noqa: E402
from relay.net.gathering import INTERVAL_SECONDS  # noqa: E402
from tests.bench.network.counting import connect  # noqa: E402
from tests.bench.network.measure import Fleet  # noqa: E402
from tests.bench.network.processes import tree_usage  # noqa: E402
from tests.bench.network.traffic import Shape  # noqa: E402
from tests.support.child import Child  # noqa: E402
from tests.support.relay_process import ROOT  # noqa: E402
from tests.support.repo import SigningKey  # noqa: E402
from tests.support.stream import payloads, whole_frames  # noqa: E402

WAYS = ("a greenlet for each host", "hosts read together")
SYNC_SECONDS = 0.01
KEYS = 2_000


class Floor:
    """The program: `take` for what a host sent, `write` for all that came since the last time."""

    def __init__(self, consumers: list[socket.socket]) -> None:
        self._consumers = consumers
        self._keys = cycle([_signed(number) for number in range(KEYS)])
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._thread = ThreadPool(1)
        self._came: list[bytes] = []
        self.events = 0

    def take(self, buffer: bytearray, data: bytes) -> None:
        """Take the whole WebSocket frames out of what a host has sent, and check a signature for each."""
        buffer += data
        came = bytes(buffer[: whole_frames(buffer)])
        del buffer[: len(came)]
        self._came.append(came)
        for _ in payloads(came):
            key, message, signature = next(self._keys)
            assert key.verify(message, signature)
            self.events += 1

    def write(self) -> None:
        """Sync, and then send, what has come."""
        if not self._came:
            return
        together, self._came = b"".join(self._came), []
        self._thread.apply(self._sync, (together,))
        for consumer in self._consumers:
            consumer.sendall(together)

    def _sync(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fdatasync(self._file.fileno())


def _signed(number: int) -> tuple[PublicKey, bytes, bytes]:
    """A key, a message of a commit's size, and its signature; every other one of either curve."""
    key, message = SigningKey.create(("k256", "p256")[number % 2], seed=number), os.urandom(200)
    return PublicKey.from_compressed(key.curve, key.public), message, key.sign(message)


def run(way: str, consumers: int, port: int, hosts: list[str]) -> None:
    """The program's process: until its standard input ends. Says how many events it took, once a second."""
    floor = Floor([socket.create_connection(("127.0.0.1", port)) for _ in range(consumers)])
    streams = [connect(host)[0] for host in hosts]
    if way == WAYS[0]:
        for stream in streams:
            gevent.spawn(_read, floor, stream)
        gevent.spawn(_write, floor, SYNC_SECONDS)
    else:
        gevent.spawn(_read_together, floor, streams)
        gevent.spawn(_write, floor, INTERVAL_SECONDS)
    gc.collect()
    gc.freeze()
    gevent.spawn(_tell, floor)
    gevent.get_hub().threadpool.apply(sys.stdin.readline)


def _read(floor: Floor, stream: socket.socket) -> None:
    stream.settimeout(60)
    buffer = bytearray()
    while data := stream.recv(65_536):
        floor.take(buffer, data)


def _read_together(floor: Floor, streams: list[socket.socket]) -> None:
    ready = monkey.get_original("select", "epoll")()
    of = {stream.fileno(): (stream, bytearray()) for stream in streams}
    for number, (stream, _) in of.items():
        stream.setblocking(False)
        ready.register(number, 1)
    while True:
        for number, _ in ready.poll(0, len(of)):
            stream, buffer = of[number]
            floor.take(buffer, stream.recv(65_536))
        gevent.sleep(INTERVAL_SECONDS)


def _write(floor: Floor, every: float) -> None:
    while True:
        gevent.sleep(every)
        floor.write()


def _tell(floor: Floor) -> None:
    while True:
        print(json.dumps({"events": floor.events}), flush=True)
        gevent.sleep(1.0)


def _drain(client: socket.socket, _address: object) -> None:
    while client.recv(1 << 20):
        pass


def measure(shape: Shape, rate: float, consumers: int, way: str) -> float:
    """CPU of all the program's threads, in ms an event. Raises AssertionError when an event does not come."""
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(shape))
        draining = StreamServer(("127.0.0.1", 0), _drain)
        draining.start()
        stack.callback(draining.stop, timeout=0)
        command = [sys.executable, "-m", "tests.bench.floor", "--run", way, str(draining.server_port)]
        program = Child([*command, "--consumers", str(consumers), *fleet.hosts], cwd=ROOT)
        stack.callback(program.close)
        fleet.wait_subscribed()
        fleet.send_first()
        _wait(program, fleet.first)
        before, seconds = tree_usage(program.process.pid), fleet.measured / rate
        fleet.send_all(time.monotonic(), seconds)
        _wait(program, fleet.first + fleet.measured, 60 + seconds)
        return (tree_usage(program.process.pid) - before).cpu_seconds / fleet.measured * 1000


def _wait(program: Child, events: int, timeout: float = 60) -> None:
    program.wait_until(lambda: bool(program.messages) and program.messages[-1]["events"] >= events, timeout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.floor", description=__doc__.split("\n\n")[0])
    parser.add_argument("--hosts", type=int, default=400)
    parser.add_argument("--accounts", type=int, default=2_000)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--consumers", type=int, default=3)
    parser.add_argument("--run", nargs=2, metavar=("WAY", "PORT"), help=argparse.SUPPRESS)
    parser.add_argument("streams", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run[0], options.consumers, int(options.run[1]), options.streams)
        return
    shape = Shape(options.hosts, options.accounts, options.events, seed=1, commits_only=False)
    for way in WAYS:
        print(f"{way:28} {measure(shape, options.rate, options.consumers, way):.3f} ms of CPU an event", flush=True)


if __name__ == "__main__":
    main()

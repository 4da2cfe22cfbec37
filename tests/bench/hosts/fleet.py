"""The upstream side in a process of its own: thousands of hosts with TLS, and some that can be told to misbehave.

Run by the harness: `python -m tests.bench.hosts.fleet FOLDER TRAFFIC HOSTS ACCOUNTS EVENTS`. Writes the hosts and the
identities of their accounts into the relay's database, prints `{"ready": true}`, then takes one JSON command a line on
stdin: `{"rate": R}` sends R of the prebuilt commits a second from now on, each stamped right before it is written;
`{"misbehave": true}` turns the five bad hosts bad. Gives way to the relay on a busy core. Ends when stdin closes.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent.socket import socket  # noqa: E402

from relay.store import hosts as host_table  # noqa: E402
from relay.store import identities  # noqa: E402
from relay.store.database import Transaction  # noqa: E402
from relay.store.identities import IdentityRow  # noqa: E402
from relay.store.open import open_database  # noqa: E402
from tests.bench.hosts.traffic import Owner, Shape, frames_of, order_of, owners_of, stamped  # noqa: E402
from tests.support.certificate import make_certificate, server_context  # noqa: E402
from tests.support.pds import FakePds, websocket_frame  # noqa: E402
from tests.support.repo import account_did, frame  # noqa: E402

BAD = ("floods", "trickles", "garbage", "silent", "endless TLS")
ROOMY = 1_000_000


class Streams:
    """The open stream of each host, by its rank."""

    def __init__(self, hosts: list[FakePds]) -> None:
        self._open: dict[int, socket] = {}
        for rank, host in enumerate(hosts):
            host.on_stream = partial(self._hold, rank, host)

    def _hold(self, rank: int, host: FakePds, sock: socket) -> None:
        self._open[rank] = sock
        host._read(sock)
        del self._open[rank]

    def send(self, rank: int, frame: bytes) -> None:
        """Write one frame, if the host has a stream."""
        if rank in self._open:
            self._open[rank].sendall(stamped(frame))


def store(tx: Transaction, hosts: list[FakePds], owners: list[list[Owner]]) -> None:
    """What a relay knows that has crawled these hosts before, so that the bench loads no directory."""
    now = time.time()
    for rank, host in enumerate(hosts):
        own = owners[rank] if rank < len(owners) else []
        limit = ROOMY if own else 100
        host_table.insert(tx, host.hostname, no_ssl=False, account_limit=limit, trusted=False)
        rows = [IdentityRow(one.did, host.url, "k256", one.public_key, "user.test", now) for one in own]
        identities.upsert_many(tx, rows, now)


def send(streams: Streams, frames: list[list[bytes]], order: list[int], rate: float) -> None:
    """Send `rate` frames a second, until there are no more."""
    next_of = [iter(own) for own in frames]
    sent, began = 0, time.monotonic()
    while sent < len(order):
        due = int((time.monotonic() - began) * rate)
        for rank in order[sent:due]:
            streams.send(rank, next(next_of[rank]))
        sent = max(sent, due)
        gevent.sleep(0.002)


def flood(sock: socket) -> None:
    seq = 0
    while True:
        payload = {"did": account_did(1), "time": "2026-01-01T00:00:00.000Z", "active": True}
        sock.sendall(b"".join(websocket_frame(frame("#account", {**payload, "seq": seq + n})) for n in range(1, 51)))
        seq += 50
        gevent.sleep(0.01)


def trickle(sock: socket) -> None:
    sock.sendall(b"\x82\x7f" + (4_000_000).to_bytes(8, "big"))
    while True:
        sock.sendall(b"x")
        gevent.sleep(1)


def garbage(sock: socket) -> None:
    sock.sendall(websocket_frame(bytes(random.Random(1).randbytes(100_000))))


def silent(sock: socket) -> None:
    while sock.recv(1000):
        pass


def endless_handshake(sock: socket) -> None:
    """Looks like a TLS record that never ends."""
    sock.sendall(b"\x16\x03\x03\x40\x00")
    while True:
        sock.sendall(b"\x02")
        gevent.sleep(0.05)


def misbehave(bad: list[FakePds]) -> None:
    """Cut the bad hosts' connections; what they do to the next ones is their name."""
    bad[0].on_stream, bad[1].on_stream, bad[2].on_stream, bad[3].on_stream = flood, trickle, garbage, silent
    bad[4].on_accept = endless_handshake
    bad[4].drop_tls()
    for host in bad:
        host.hang_up()


def main(folder: Path, traffic: Path, shape: Shape) -> None:
    os.nice(10)
    context = server_context(make_certificate(folder, "localhost"))
    hosts = [FakePds(tls=context) for _ in range(shape.hosts)]
    bad = [FakePds(tls=context) for _ in BAD]
    streams = Streams(hosts)
    for host in (*hosts, *bad):
        host.__enter__()
    database = open_database(f"sqlite://{folder}/relay.sqlite", max_connections=1)
    database.write(store, [*hosts, *bad], owners_of(traffic))
    database.close()
    frames = [frames_of(traffic, rank) for rank in range(shape.hosts)]
    order = order_of(shape)
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": True}), flush=True)
    while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
        command = json.loads(line)
        if "rate" in command:
            gevent.spawn(send, streams, frames, order, command["rate"])
        else:
            misbehave(bad)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Shape(*map(int, sys.argv[3:])))

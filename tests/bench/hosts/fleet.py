"""The upstream side in a process of its own: thousands of hosts with TLS, and some that can be told to misbehave.

Run by the harness: `python -m tests.bench.hosts.fleet FOLDER HOSTS ACCOUNTS`. Writes the hosts and the identities of
their accounts into the relay's database, prints `{"ready": true}`, then takes one JSON command a line on stdin:
`{"rate": R}` sends R signed commits a second from now on, more of them from the first hosts than from the last;
`{"misbehave": true}` turns the five bad hosts bad. A commit's rev says when it was sent. Ends when stdin closes.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent.socket import socket  # noqa: E402

from relay.store import hosts as host_table  # noqa: E402
from relay.store import identities  # noqa: E402
from relay.store.database import Database, Transaction  # noqa: E402
from relay.store.identities import IdentityRow  # noqa: E402
from tests.support.certificate import make_certificate, server_context  # noqa: E402
from tests.support.pds import FakePds, websocket_frame  # noqa: E402
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, frame, tid  # noqa: E402

BAD = ("floods", "trickles", "garbage", "silent", "endless TLS")
ROOMY = 1_000_000


class Account:
    """An account that posts a record at a time; its repo is built when it first does."""

    def __init__(self, number: int) -> None:
        self.did = account_did(number)
        self.key = SigningKey.create("k256", number)
        self.repo: RepoBuilder | None = None

    def commit(self, seq: int) -> bytes:
        now = time.time_ns() // 1000
        self.repo = self.repo or RepoBuilder(self.did, self.key)
        write = create(f"app.bsky.feed.like/{tid(now)}", {"$type": "app.bsky.feed.like", "seq": seq})
        return self.repo.commit(write, at_us=now).frame(seq)


def store(tx: Transaction, hosts: list[FakePds], accounts: dict[str, list[Account]]) -> None:
    """What a relay knows that has crawled these hosts before, so that the bench loads no directory."""
    now = time.time()
    for host in hosts:
        limit = ROOMY if host.hostname in accounts else 100
        host_table.insert(tx, host.hostname, no_ssl=False, account_limit=limit, trusted=False)
        identities.upsert_many(
            tx,
            [
                IdentityRow(account.did, host.url, "k256", account.key.public, "user.test", now)
                for account in accounts.get(host.hostname, ())
            ],
        )


def send(hosts: list[FakePds], accounts: dict[str, list[Account]], rate: float) -> None:
    """Publish `rate` commits a second for ever, hosts by 1/rank, the accounts of a host in turn."""
    chance = random.Random(1)
    weights = [1 / rank for rank in range(1, len(hosts) + 1)]
    turns = dict.fromkeys(accounts, 0)
    sent, began = 0, time.monotonic()
    while True:
        due = int((time.monotonic() - began) * rate)
        for host in chance.choices(hosts, weights, k=max(0, due - sent)):
            turn = turns[host.hostname] = turns[host.hostname] + 1
            own = accounts[host.hostname]
            host.publish(turn, own[turn % len(own)].commit(turn))
        sent = due
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
    endless = bad[4]._server
    endless.wrap_socket = None
    bad[4].on_accept = endless_handshake
    endless._handle = bad[4]._serve
    for host in bad:
        host.hang_up()


def main(folder: Path, host_count: int, account_count: int) -> None:
    context = server_context(make_certificate(folder, "localhost"))
    hosts = [FakePds(tls=context) for _ in range(host_count)]
    bad = [FakePds(tls=context) for _ in BAD]
    for host in (*hosts, *bad):
        host.__enter__()
    total = sum(1 / rank for rank in range(1, host_count + 1))
    accounts, number = {}, 0
    for rank, host in enumerate(hosts, 1):
        count = max(1, round(account_count / rank / total))
        accounts[host.hostname] = [Account(number + one) for one in range(1, count + 1)]
        number += count
    database = Database.open(f"sqlite://{folder}/relay.sqlite", max_connections=1)
    database.write(store, [*hosts, *bad], accounts)
    database.close()
    print(json.dumps({"ready": True, "accounts": number}), flush=True)
    while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
        command = json.loads(line)
        if "rate" in command:
            gevent.spawn(send, hosts, accounts, command["rate"])
        else:
            misbehave(bad)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

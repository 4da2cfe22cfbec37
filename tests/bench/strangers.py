"""What strangers at the API's port cost everybody else, and the relay's memory.

    python -m tests.bench.strangers [--seconds 5] [--rounds 2] [--as-proxy] [NAME…]

For each attack: the waits of honest requests for `/_healthz` on new connections and of an honest consumer for events,
without it and during it in turn, how much of a core the relay used, and its resident memory at its peak. The attackers
have one address, and everyone else another; with `--as-proxy` all come from a proxy that does not say whose requests
it passes on, so that none of them has a bound of its own. The relay, the attackers and the measuring are a process
each; on few cores they share them, which the figures of "before" do not show.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402

from tests.support.http import call  # noqa: E402
from tests.support.pds import FakePds  # noqa: E402
from tests.support.plc import FakePlc  # noqa: E402
from tests.support.relay_process import PASSWORD, RelayProcess  # noqa: E402
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, did_document, tid  # noqa: E402
from tests.support.websocket import connect  # noqa: E402

HOST = b"Host: relay\r\n"
ASK = b"GET /_healthz HTTP/1.1\r\n" + HOST + b"\r\n"
CRAWL = b"POST /xrpc/com.atproto.sync.requestCrawl HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
UPGRADE = (
    b"GET /xrpc/com.atproto.sync.subscribeRepos HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
PASSWORD_FIELD = b"Authorization: Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()) + b"\r\n"
LIST_HOSTS = b"GET /admin/pds/list HTTP/1.1\r\n" + HOST + PASSWORD_FIELD + b"\r\n"
LIST_REPOS = b"GET /xrpc/com.atproto.sync.listRepos?limit=1&cursor=%d HTTP/1.1\r\n" + HOST + b"\r\n"
HOSTS, ACCOUNTS = 2_000, 100_000
PROXY, STRANGER = "127.0.0.1", "127.0.0.2"

# By the number in the list of what has to hold: connections, what each begins with, and what it then sends for ever.
ATTACKS: dict[str, tuple[int, bytes, bytes, float]] = {
    "1 pings": (50, UPGRADE, b"\x89\x80\0\0\0\0" * 1000, 0.0),
    "2 pipelining": (10, b"", ASK * 200, 0.0),
    "2 endless chunks": (10, CRAWL + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000, 0.0),
    "4 slow bodies": (150, CRAWL + b"Content-Length: 60000\r\n\r\n", b"{", 0.5),
    "6 endless heads": (200, b"GET / HTTP/1.1\r\n" + HOST, b"x: " + b"a" * 65_000 + b"\r\n", 0.0),
    "7 hosts": (1, b"", LIST_HOSTS, 0.3),
    "7 repos": (8, b"", LIST_REPOS % 200, 0.05),
    "connections": (50, ASK.replace(HOST, HOST + b"Connection: close\r\n"), b"", 0.05),
}


def attack(name: str, port: int, source: str) -> None:
    """Run by a process of its own: keep the connections busy, and open new ones where they are closed."""
    count, head, block, pause = ATTACKS[name]

    def read(sock: socket.socket) -> None:
        with suppress(OSError):
            while sock.recv(1 << 16):
                pass

    def keep_on() -> None:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), source_address=(source, 0)) as sock:
                sock.sendall(head)
                reading = gevent.spawn(read, sock)
                while block and not reading.ready():
                    sock.sendall(block)
                    gevent.sleep(pause)
                reading.join()
            gevent.sleep(0.5 if block else pause)

    gevent.joinall([gevent.spawn(keep_on) for _ in range(count)])


def ask(url: str, seconds: float) -> None:
    """Run by a process of its own: print how many milliseconds requests took, as JSON."""
    waits = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        call(f"{url}/_healthz", timeout=60)
        waits.append((time.monotonic() - began) * 1000)
        time.sleep(0.025)
    print(json.dumps(waits))


def fill(database: Path) -> None:
    """Hosts that are not connected, and a long run of accounts without a repo."""
    now = "2026-01-01 00:00:00.000000+00:00"
    with sqlite3.connect(database) as sql:
        columns = "created_at, updated_at, hostname, no_ssl, account_limit, trusted, status, last_seq, account_count"
        sql.executemany(
            f"INSERT INTO host ({columns}) VALUES (?, ?, ?, 0, 100000, 0, 'banned', 1, 500)",
            [(now, now, f"pds{number}.example.com") for number in range(HOSTS)],
        )
        sql.executemany(
            "INSERT INTO account (did, host_id, status, upstream_status) VALUES (?, 1, 'active', 'active')",
            [(f"did:web:a{number}.example.com",) for number in range(ACCOUNTS)],
        )


class Measured:
    """Waits in milliseconds, of requests and of events."""

    def __init__(self, relay: RelayProcess, pds: FakePds, repo: RepoBuilder) -> None:
        self.healthz: list[float] = []
        self.events: list[float] = []
        self._relay, self._pds, self._repo = relay, pds, repo
        self._sent: dict[int, float] = {}
        self._seq = 1
        self._stream = connect(relay.firehose, max_size=None, compression=None)
        gevent.spawn(self._follow)

    def _follow(self) -> None:
        # The relay goes away at the end.
        with suppress(ConnectionClosed):
            for seq, _ in enumerate(self._stream, 1):
                self.events.append((time.monotonic() - self._sent[seq]) * 1000)

    def publish(self) -> None:
        """One commit of the account."""
        commit = self._repo.commit(create(f"app.bsky.feed.post/{tid(self._seq)}", {"text": "hello"}))
        self._pds.publish(self._seq, commit.frame(self._seq))
        self._sent[self._seq] = time.monotonic()
        self._seq += 1

    def run(self, seconds: float) -> None:
        """Ask forty times a second and publish as often, for that long."""
        command = [sys.executable, "-m", "tests.bench.strangers", "--ask", str(seconds), self._relay.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
            assert asking.stdout is not None
            while asking.poll() is None:
                self.publish()
                gevent.sleep(0.025)
            self.healthz += json.load(asking.stdout)
        gevent.sleep(0.5)


class Phase:
    """What was measured without an attack, or during it, in all its rounds."""

    def __init__(self, measured: Measured, pid: int) -> None:
        self.healthz: list[float] = []
        self.events: list[float] = []
        self.peak = 0.0
        self._measured = measured
        self._pid = pid
        self._cpu = self._seconds = 0.0

    def run(self, seconds: float) -> None:
        """Measure once more for that long."""
        measured, stop = self._measured, threading.Event()
        measured.healthz, measured.events = self.healthz, self.events
        watching = threading.Thread(target=self._watch, args=(stop,))
        watching.start()
        began, cpu = time.monotonic(), cpu_seconds(self._pid)
        measured.run(seconds)
        self._cpu += cpu_seconds(self._pid) - cpu
        self._seconds += time.monotonic() - began
        stop.set()
        watching.join()

    def line(self) -> str:
        """The figures, as the table's head names them."""
        waits = f"{told(self.healthz)} {told(self.events)}"
        return f"{waits} {self._cpu / self._seconds:6.2f} {self.peak:6.0f}"

    def _watch(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.peak = max(self.peak, memory(self._pid))
            stop.wait(0.1)


def at(share: float, waits: list[float]) -> float:
    """That quantile."""
    return sorted(waits)[min(len(waits) - 1, int(share * len(waits)))] if waits else float("nan")


def told(waits: list[float]) -> str:
    return f"{at(0.5, waits):7.1f} {at(0.99, waits):7.1f}"


def memory(pid: int) -> float:
    """Resident MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS"))


def cpu_seconds(pid: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.strangers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--as-proxy", action="store_true")
    parser.add_argument("--attack", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ask", type=float, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ATTACKS))
    options = parser.parse_args()
    if options.attack:
        attack(options.names[0], options.attack, PROXY if options.as_proxy else STRANGER)
    elif options.ask:
        ask(options.names[0], options.ask)
    elif unknown := set(options.names) - ATTACKS.keys():
        parser.error(f"no attack is called {', '.join(sorted(unknown))}")
    else:
        measure(options.names or list(ATTACKS), options.seconds, options.rounds, as_proxy=options.as_proxy)


def measure(names: list[str], seconds: float, rounds: int, *, as_proxy: bool) -> None:
    """Print a table of the attacks of these names."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-strangers-")))
        plc, pds = stack.enter_context(FakePlc()), stack.enter_context(FakePds())
        repo = RepoBuilder(account_did(1), SigningKey.create())
        plc.documents[repo.did] = did_document(repo.did, repo.key, pds.url)
        # Nobody on loopback is a proxy, unless all are.
        proxies = PROXY if as_proxy else "192.0.2.1"
        settings = {"RELAY_VALIDATOR_PROCESSES": "0", "RELAY_TRUSTED_PROXIES": proxies}
        relay = RelayProcess(folder, {"RELAY_PLC_HOST": plc.url, **settings})
        relay.start()
        relay.child.stop()  # type: ignore[union-attr]
        fill(folder / "relay.sqlite")
        relay.start()
        stack.callback(relay.close)
        relay.crawl(pds.url)
        rates = dict.fromkeys(("per_second", "per_hour", "per_day"), 10**9)
        relay.admin("pds/changeLimits", {"host": pds.url, "repo_limit": 10**6, **rates})
        measured = Measured(relay, pds, repo)
        measured.publish()
        relay.wait_metric("relay_log_last_seq", 1)
        pid = relay.child.process.pid  # type: ignore[union-attr]
        print(f"{'':25}{'healthz p50, p99':>15} {'events p50, p99':>15} {'cores':>6} {'MiB':>6}   waits in ms")
        for name in names:
            before, during = Phase(measured, pid), Phase(measured, pid)
            command = [sys.executable, "-m", "tests.bench.strangers", "--attack", relay.url.rpartition(":")[2], name]
            command += ["--as-proxy"] * as_proxy
            for _ in range(rounds):
                before.run(seconds)
                with subprocess.Popen(command) as attacker:
                    gevent.sleep(1.5)
                    during.run(seconds)
                    attacker.kill()
                gevent.sleep(2)
            print(f"{name + ', before':24} {before.line()}\n{name + ', during':24} {during.line()}", flush=True)
            times = [
                at(0.99, during.healthz) / at(0.99, before.healthz),
                at(0.99, during.events) / at(0.99, before.events),
            ]
            print(f"{'':24} {'x':>7} {times[0]:7.2f} {'x':>7} {times[1]:7.2f}", flush=True)


if __name__ == "__main__":
    main()

"""The whole relay with thousands of TLS hosts: `python -m tests.bench.hosts --help`.

Measures how long connecting to all of them takes, the memory then and after a run, and the latency that the relay adds,
from the making of a commit to its arrival at a consumer; and how far five bad hosts move that for all others.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.bench.hosts.fleet import BAD
from tests.bench.network.processes import tree_usage
from tests.support.child import Child
from tests.support.relay_process import ROOT, RelayProcess

TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"


class Consumer(threading.Thread):
    """Notes each commit's latency: its rev is the time at which it was made."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.latencies: list[float] = []
        self._socket = connect(url, compression=None, max_size=None)

    def run(self) -> None:
        try:
            for message in self._socket:
                at = message.find(b"crev\x6d")
                if at > 0:
                    self.latencies.append(time.time() - _seconds(message[at + 5 : at + 18].decode()))
        except ConnectionClosed:
            return

    def take(self) -> list[float]:
        taken, self.latencies = self.latencies, []
        return taken


def _seconds(rev: str) -> float:
    number = 0
    for letter in rev:
        number = number << 5 | TID_ALPHABET.index(letter)
    return (number >> 10) / 1e6


def summary(latencies: list[float]) -> str:
    if len(latencies) < 2:
        return "no events"
    cuts = statistics.quantiles(latencies, n=100)
    return f"{len(latencies)} events, p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hosts", description=__doc__.split("\n\n")[1])
    parser.add_argument("--hosts", type=int, default=3000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=700)
    parser.add_argument("--seconds", type=float, default=600, help="of the steady run; half of it again with bad hosts")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="relay-bench-hosts-"))
    command = [sys.executable, "-m", "tests.bench.hosts.fleet", folder, options.hosts, options.accounts]
    fleet = Child([str(part) for part in command], cwd=ROOT)
    try:
        fleet.wait_until(lambda: bool(fleet.messages), timeout=300)
        # Only now, since thousands of hosts may listen on any port.
        settings = {"SSL_CERT_FILE": str(folder / "certificate.pem"), "RELAY_PLC_HOST": "http://127.0.0.1:9"}
        relay = RelayProcess(folder, settings)
        try:
            run(options, relay, fleet)
        finally:
            relay.close()
    finally:
        fleet.close()
        shutil.rmtree(folder)


def run(options: argparse.Namespace, relay: RelayProcess, fleet: Child) -> None:
    began = time.monotonic()
    relay.start()
    print(f"API up after {time.monotonic() - began:.1f} s")
    wanted = options.hosts + len(BAD)
    while relay.metric("relay_hosts_connected") < wanted and time.monotonic() - began < 120:
        time.sleep(0.25)
    connected = relay.metric("relay_hosts_connected")
    print(f"{connected:.0f} of {wanted} hosts after {time.monotonic() - began:.1f} s, {memory(relay)}", flush=True)
    consumer = Consumer(relay.firehose)
    consumer.start()
    fleet.send({"rate": options.rate})
    time.sleep(options.seconds / 2)
    consumer.take()
    print(f"after {options.seconds / 2:.0f} s: {memory(relay)}", flush=True)
    time.sleep(options.seconds / 2)
    alone = consumer.take()
    print(f"second half of the run: {summary(alone)}; {memory(relay)}", flush=True)
    fleet.send({"misbehave": True})
    time.sleep(5)
    consumer.take()
    time.sleep(options.seconds / 2)
    beside = consumer.take()
    print(f"beside hosts that {', '.join(BAD)}: {summary(beside)}; {memory(relay)}")
    for name in ("relay_events_dropped_total", "relay_host_throttled_seconds_total", "relay_dials_total"):
        print(f"{name} {relay.metric(name):.0f}")


def memory(relay: RelayProcess) -> str:
    assert relay.child
    usage = tree_usage(relay.child.process.pid)
    return f"RSS {usage.rss_bytes / 2**20:.0f} MiB, CPU {usage.cpu_seconds:.0f} s"


if __name__ == "__main__":
    main()

"""The whole relay with thousands of TLS hosts: `python -m tests.bench.hosts --help`.

Measures how long connecting to all of them takes, the memory then and while it runs (with its slope), what the relay
does while no host sends anything, and the latency that the relay adds, from the write of a commit to a host's socket to
its arrival at a consumer, with the relay's own stage times beside it; and how far five bad hosts move that for all
others.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from websockets.exceptions import ConnectionClosed

from tests.bench.hosts.fleet import BAD
from tests.bench.hosts.traffic import Shape, load_or_build, sent_at
from tests.bench.network.processes import Usage, tree_usage
from tests.support.child import Child
from tests.support.http import call
from tests.support.relay_process import ROOT, RelayProcess
from tests.support.websocket import connect

CACHE = ROOT / ".cache" / "bench"
MEMORY_SECONDS = 5.0
FIRST_PINGS_SECONDS = 35.0
STAGES = ("queued", "parked", "judged", "logged")
BUCKET = re.compile(r'^relay_event_stage_seconds_bucket{le="([^"]+)",stage="(\w+)"} ([0-9.e+]+)$', re.MULTILINE)


class Consumer(threading.Thread):
    """Notes of each commit how long it was on its way."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.latencies: list[float] = []
        self._socket = connect(url, compression=None, max_size=None)

    def run(self) -> None:
        try:
            for message in self._socket:
                assert isinstance(message, bytes)
                now, sent = time.time(), sent_at(message)
                if sent is not None:
                    self.latencies.append(now - sent)
        except ConnectionClosed:
            return

    def take(self) -> list[float]:
        taken, self.latencies = self.latencies, []
        return taken


class Meter:
    """What a relay used and did since it was last asked."""

    def __init__(self, relay: RelayProcess, consumer: Consumer) -> None:
        self._relay = relay
        self._consumer = consumer
        self._stages = stage_counts(relay)
        self._memory: list[tuple[float, float]] = []
        self._used = usage(relay)

    def watch(self, seconds: float) -> None:
        """Look at the memory for so long."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            self._memory.append((now / 3600, usage(self._relay).rss_bytes / 2**20))
            time.sleep(min(MEMORY_SECONDS, until - now))

    def report(self, words: str) -> None:
        before, after, used = self._stages, stage_counts(self._relay), usage(self._relay)
        stages = [
            f"{stage} {quantile(before.get(stage, {}), after[stage], 0.99) * 1e3:.1f}"
            for stage in STAGES
            if stage in after
        ]
        print(f"{words}:")
        print(f"  on the way   {summary(self._consumer.take())}")
        print(f"  p99 in ms, of the relay's stages: {', '.join(stages)}")
        print(f"  RSS {used.rss_bytes / 2**20:.0f} MiB, slope {slope(self._memory):+.1f} MiB/h", end=", ")
        print(f"CPU {(used - self._used).cpu_seconds:.0f} s")
        held = {state: self._relay.metric("relay_allocator_bytes", state=state) / 2**20 for state in ("used", "free")}
        print(f"  malloc holds {held['used']:.0f} MiB in use and {held['free']:.0f} MiB free", end=", ")
        print(f"{self._relay.metric('relay_greenlets'):.0f} greenlets", flush=True)
        self._stages, self._used, self._memory = after, used, []


def usage(relay: RelayProcess) -> Usage:
    assert relay.child
    return tree_usage(relay.child.process.pid)


def slope(points: list[tuple[float, float]]) -> float:
    return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 1 else 0.0


def stage_counts(relay: RelayProcess) -> dict[str, dict[float, float]]:
    """For each stage, how many events took no longer than each bucket's bound."""
    counts: dict[str, dict[float, float]] = {}
    for bound, stage, count in BUCKET.findall(call(relay.metrics_url).body.decode()):
        counts.setdefault(stage, {})[float(bound)] = float(count)
    return counts


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """Seconds, as Prometheus' histogram_quantile tells them."""
    counts = [(bound, count - before.get(bound, 0.0)) for bound, count in after.items()]
    wanted, low, below = share * counts[-1][1], 0.0, 0.0
    for bound, count in counts:
        if count >= wanted:
            return low + (bound - low) * (wanted - below) / (count - below or 1) if bound != math.inf else low
        low, below = bound, count
    return low


def summary(latencies: list[float]) -> str:
    if len(latencies) < 2:
        return "no events"
    cuts = statistics.quantiles(latencies, n=1000)
    p50, p99, p999 = (f"{cuts[at] * 1e3:.1f} ms" for at in (499, 989, 998))
    return f"{len(latencies)} events, p50 {p50}, p99 {p99}, p99.9 {p999}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hosts", description=__doc__.split("\n\n")[1])
    parser.add_argument("--hosts", type=int, default=3000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=700)
    parser.add_argument("--seconds", type=float, default=600, help="of the steady run; half of it again with bad hosts")
    parser.add_argument(
        "--idle", type=float, default=0, help="seconds without an event first; with --seconds 0, only these"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the relay")
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    shape = Shape(options.hosts, options.accounts, int(options.rate * (1.5 * options.seconds + 10)))
    traffic = load_or_build(shape, CACHE)
    folder = Path(tempfile.mkdtemp(prefix="relay-bench-hosts-"))
    command = [sys.executable, "-m", "tests.bench.hosts.fleet", folder, traffic, *shape]
    fleet = Child([str(part) for part in command], cwd=ROOT)
    try:
        fleet.wait_until(lambda: bool(fleet.messages), timeout=300)
        # Only now, since thousands of hosts may listen on any port.
        settings = {"SSL_CERT_FILE": str(folder / "certificate.pem"), "RELAY_PLC_HOST": "http://127.0.0.1:9"}
        settings |= dict(pair.split("=", 1) for pair in options.set)
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
    print(f"{connected:.0f} of {wanted} hosts after {time.monotonic() - began:.1f} s", end=", ")
    print(f"RSS {usage(relay).rss_bytes / 2**20:.0f} MiB", flush=True)
    if options.idle:
        watch_idle(relay, options.idle)
    if not options.seconds:
        return
    consumer = Consumer(relay.firehose)
    consumer.start()
    meter = Meter(relay, consumer)
    fleet.send({"rate": options.rate})
    for half in ("first", "second"):
        meter.watch(options.seconds / 2)
        meter.report(f"{half} {options.seconds / 2:.0f} s")
    fleet.send({"misbehave": True})
    meter.watch(options.seconds / 2)
    meter.report(f"beside hosts that {', '.join(BAD)}")
    for name in ("relay_events_dropped_total", "relay_host_throttled_seconds_total", "relay_dials_total"):
        print(f"{name} {relay.metric(name):.0f}")


def watch_idle(relay: RelayProcess, seconds: float) -> None:
    """Once every host was pinged for the first time: what pings cost is part of it."""
    time.sleep(FIRST_PINGS_SECONDS)
    before = usage(relay)
    time.sleep(seconds)
    used = usage(relay) - before
    print(f"idle for {seconds:.0f} s: {1000 * used.cpu_seconds / seconds:.1f} ms of CPU a second", end=", ")
    print(f"RSS {used.rss_bytes / 2**20:.1f} MiB", flush=True)


if __name__ == "__main__":
    main()

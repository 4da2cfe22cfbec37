"""The whole relay under a fake network: `python -m tests.bench.network --help`.

Starts a fleet of hosts and M consumers in processes of their own, and the relay on an empty data folder, or takes one
that runs already by its URL. Every host sends each account's first event (so that identities are known), then the
measured run begins: as fast as the relay takes it, or at a rate. Prints a table and, with --json, the same as JSON.
Exits with 1 when an event is missing, repeated or out of order.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.network.processes import Usage, tree_usage
from tests.bench.network.traffic import Shape, index_of, load_or_build
from tests.support.child import Child
from tests.support.relay_process import RELAY, ROOT, RelayProcess

CACHE = ROOT / ".cache" / "bench"
MODULE = "tests.bench.network"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[1])
    load = parser.add_argument_group("load")
    load.add_argument("--hosts", type=int, default=20)
    load.add_argument("--accounts", type=int, default=200)
    load.add_argument("--events", type=int, default=15_000, help="events of the measured run")
    load.add_argument("--consumers", type=int, default=10)
    load.add_argument("--rate", type=float, default=0, help="events a second; 0: as fast as the relay takes them")
    load.add_argument("--seed", type=int, default=1)
    relay = parser.add_argument_group("relay")
    relay.add_argument("--command", help="start this relay instead of ours, with the same settings in its environment")
    relay.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for the started relay"
    )
    relay.add_argument("--profile", type=Path, help="sample the started relay's Python stacks into this file")
    relay.add_argument(
        "--url", help="use the relay that runs at this http address; its data must not know the accounts"
    )
    relay.add_argument("--password", default="", help="admin password of the relay at --url")
    relay.add_argument("--pid", type=int, help="process of the relay at --url, for its CPU and memory")
    relay.add_argument("--plc-port", type=int, default=0, help="fixed port of the fake PLC directory, for --url")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    return parser.parse_args()


def relay_for(options: argparse.Namespace, folder: Path, plc: str) -> RelayProcess:
    """The relay under test. One that is started here has limits that no host of the fleet reaches."""
    settings = {
        "RELAY_PLC_HOST": plc,
        "RELAY_DEFAULT_ACCOUNT_LIMIT": "10000000",
        "RELAY_NEW_HOSTS_PER_DAY_LIMIT": "100000",
        "LOG_LEVEL": "warn",
        **dict(pair.split("=", 1) for pair in options.set),
    }
    command: list[str | Path] = [RELAY, "serve"]
    if options.command:
        command = list(shlex.split(options.command))
    elif options.profile:
        command = [sys.executable, "-m", f"{MODULE}.profiled", options.profile.resolve(), "serve"]
    relay = RelayProcess(folder, settings, command)
    if options.url:
        relay.url, relay.password = options.url.rstrip("/"), options.password
    else:
        relay.start()
    return relay


def wait_seen(consumers: Child, field: str, count: int, patience: float) -> bool:
    """Wait until `field` of the consumers' progress is `count`; False when nothing has come for `patience` seconds."""
    seen = 0
    while seen < count:
        try:
            consumers.wait_until(lambda: latest(consumers, field) > seen, patience)  # noqa: B023
        except AssertionError:
            return False
        seen = latest(consumers, field)
    return True


def latest(consumers: Child, field: str) -> int:
    return int(next((message[field] for message in reversed(consumers.messages) if field in message), 0))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    shape = Shape(options.hosts, options.accounts, options.events, options.seed)
    traffic = load_or_build(shape, CACHE)
    index = index_of(traffic)
    first = sum(len(host.accounts) for host in index)
    measured = sum(len(host.events) for host in index) - first
    fleet = Child([sys.executable, "-m", f"{MODULE}.fleet", traffic, str(options.plc_port)], cwd=ROOT)
    children, relay = [fleet], None
    try:
        fleet.wait_for('"plc"', 300)
        addresses = fleet.messages[0]
        relay = relay_for(options, folder, addresses["plc"])
        pid = options.pid or (relay.child.process.pid if relay.child else 0)
        for host in addresses["hosts"]:
            relay.admin("pds/requestCrawl", {"hostname": host})
        relay.wait_connected(len(index), timeout=60 + len(index) / 20)
        command = [sys.executable, "-m", f"{MODULE}.consumers", traffic, relay.url, str(options.consumers)]
        consumers = Child(command, cwd=ROOT)
        children.append(consumers)
        consumers.wait_for('"connected"', 120)

        fleet.send({"send": "first"})
        assert wait_seen(consumers, "seen", first, 60), f"first events are missing:\n{relay.log_tail()}"
        start, seconds = time.monotonic() + 0.5, measured / options.rate if options.rate else 0.0
        consumers.send({"start": start, "seconds": seconds})
        time.sleep(max(0.0, start - time.monotonic() - (0.1 if seconds else 0.0)))
        before = tree_usage(pid)
        fleet.send({"send": "all", "start": start, "seconds": seconds})
        complete = wait_seen(consumers, "slowest", measured, 30)
        after = tree_usage(pid)
        consumers.send({"report": True})
        consumers.wait_for('"report"', 60)
        found = next(message["report"] for message in consumers.messages if "report" in message)
        return result(shape, options, found, complete, start, after - before)
    finally:
        if relay and relay.child and relay.child.running:
            relay.stop()
        for child in children:
            child.close()


def result(
    shape: Shape, options: argparse.Namespace, found: dict[str, Any], complete: bool, start: float, used: Usage
) -> dict[str, Any]:
    elapsed = found["last_at"] - start
    events = found["deliveries"] / options.consumers
    return {
        **shape._asdict(),
        "consumers": options.consumers,
        "rate": options.rate or "as fast as it goes",
        "complete": complete,
        **{key: value for key, value in found.items() if key not in ("first_at", "last_at", "latency_s")},
        "seconds": round(elapsed, 2),
        "events_per_second": round(events / elapsed),
        "deliveries_per_second": round(found["deliveries"] / elapsed),
        "cpu_seconds_per_1000_events": round(used.cpu_seconds / events * 1000, 4),
        "events_per_cpu_second": round(events / used.cpu_seconds) if used.cpu_seconds else None,
        "cpu_share_of_a_core": round(used.cpu_seconds / elapsed, 2),
        "rss_mib": round(used.rss_bytes / 2**20, 1),
        "rss_peak_mib": round(used.peak_bytes / 2**20, 1),
        **{f"latency_{name}_ms": value and round(value * 1000, 1) for name, value in found["latency_s"].items()},
    }


def main() -> int:
    options = arguments()
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="relay-", dir=CACHE))
    try:
        outcome = run(options, folder)
    finally:
        shutil.rmtree(folder)
    for name, value in outcome.items():
        print(f"{name.replace('_', ' '):32} {value}")
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2) + "\n")
    wrong = ("missing", "unexpected_or_repeated", "out_of_order", "seq_not_rising", "connections_lost")
    return 0 if outcome["complete"] and not any(outcome[name] for name in wrong) else 1


if __name__ == "__main__":
    sys.exit(main())

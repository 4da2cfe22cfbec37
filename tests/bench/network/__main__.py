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
from pathlib import Path
from typing import Any

from tests.bench.network.measure import CACHE, MODULE, WRONG, Fleet, measure
from tests.bench.network.processes import tree_usage
from tests.bench.network.traffic import Shape
from tests.support.relay_process import RELAY, RelayProcess


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


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    relay = None
    with Fleet(Shape(options.hosts, options.accounts, options.events, options.seed), options.plc_port) as fleet:
        try:
            relay = relay_for(options, folder, fleet.plc)
            pid = options.pid or (relay.child.process.pid if relay.child else 0)
            for host in fleet.hosts:
                relay.admin("pds/requestCrawl", {"hostname": host})
            relay.wait_connected(len(fleet.hosts), timeout=60 + len(fleet.hosts) / 20)
            return measure(fleet, relay.url, lambda: tree_usage(pid), consumers=options.consumers, rate=options.rate)
        finally:
            if relay and relay.child and relay.child.running:
                relay.stop()


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
    return 0 if outcome["complete"] and not any(outcome[name] for name in WRONG) else 1


if __name__ == "__main__":
    sys.exit(main())

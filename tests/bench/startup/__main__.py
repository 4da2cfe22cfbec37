"""How fast the relay is back after some downtime: `python -m tests.bench.startup --help`.

The relay takes each active account's first event, stops, and its tables are filled up to a million accounts. Meanwhile
the hosts collect the events of the downtime. Then it starts, and three times count: until the API answers, until all
hosts are connected, and until a consumer that checks everything has had all that waited. The goals of the project are
2 s, 60 s and, for 10 minutes at 700 events/s, 90 s; less downtime is scaled up to that. A second consumer begins at the
head, as most do: it must have each event of the catching up soon after it was logged.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tests.bench.network.measure import CACHE, MODULE, WRONG, Audience, Fleet
from tests.bench.network.traffic import Shape, index_of
from tests.bench.peers.contestant import Contestant
from tests.bench.startup.filler import fill, fill_identities
from tests.bench.startup.head import Watch
from tests.support.postgres import Cluster
from tests.support.relay_process import RELAY, RelayProcess

RATE = 700
FULL_DOWNTIME = 600
EVENTS_PER_ACCOUNT = 4
TEMPLATES = 32
PATIENCE = 60.0
LIVE_SECONDS = 5.0
# Each sample is a scrape of the relay's metrics, which five times a second would be a twelfth of its CPU.
SAMPLE_SECONDS = 1.0
SETTLED_SECONDS = 3.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.startup", description=__doc__.split("\n\n")[1])
    parser.add_argument("--hosts", type=int, default=3_000)
    parser.add_argument("--accounts", type=int, default=1_000_000, help="accounts in SQL")
    parser.add_argument("--downtime", type=float, default=60, help=f"seconds, at {RATE} events/s; 600 for the goal")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for the relay")
    parser.add_argument("--profile", type=Path, help="sample the relay's Python stacks of the start into this file")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    return parser.parse_args()


class Subject(Contestant):
    """A relay that knows the active accounts' identities, as after a day: to ask a directory for them takes minutes."""

    def prepare(self, fleet: Fleet) -> None:
        super().prepare(fleet)
        hosts = zip(fleet.hosts, index_of(fleet.traffic[0]), strict=True)
        fill_identities(self.database, ((account, url) for url, host in hosts for account in host.accounts))


def run(options: argparse.Namespace, folder: Path, cluster: Cluster | None) -> dict[str, Any]:
    events = round(options.downtime * RATE)
    shape = Shape(options.hosts, events // EVENTS_PER_ACCOUNT, events, seed=5, records=100, templates=TEMPLATES)
    settings = dict(pair.split("=", 1) for pair in options.set)
    began = time.monotonic()
    with Fleet(shape) as fleet:
        _tell(f"{fleet.measured} events of {fleet.first} accounts are there", began)
        relay = Subject([RELAY, "serve"], settings, folder, fleet.plc, cluster)
        try:
            relay.start_with(fleet)
            fleet.send_first()
            relay.process.wait_until(lambda: _logged(relay.process) >= fleet.first, 60 + fleet.first / 100)
            relay.stop()
            _tell("the relay has had the first of each account", began)
            fill(relay.database, options.accounts - fleet.first, len(fleet.hosts))
            fleet.send_all(time.monotonic(), 0)
            if options.profile:
                relay.process.command = [sys.executable, "-m", f"{MODULE}.profiled", options.profile.resolve(), "serve"]
            figures = start(relay, fleet)
            relay.stop()
            return {**vars(options), "events": fleet.measured, **figures}
        finally:
            relay.close()


def start(relay: Contestant, fleet: Fleet) -> dict[str, Any]:
    with (
        Audience(fleet.traffic, relay.url, 1, early=True) as head,
        Audience(fleet.traffic, f"{relay.url}?cursor=0", 1, early=True) as everything,
    ):
        load = os.getloadavg()[0]
        began = time.monotonic()
        relay.process.start()
        api = time.monotonic() - began
        watch = Watch()
        connected: float | None = None
        at_connect = relay.usage()
        complete = False
        while not complete and watch.idle_seconds < PATIENCE:
            time.sleep(SAMPLE_SECONDS)
            watch.sample(_logged(relay.process), head.seen())
            if connected is None and relay.process.metric("relay_hosts_connected") >= len(fleet.hosts):
                connected, at_connect = time.monotonic() - began, relay.usage()
            complete = connected is not None and everything.seen() >= fleet.first + fleet.measured
        while watch.idle_seconds < SETTLED_SECONDS:
            time.sleep(SAMPLE_SECONDS)
            watch.sample(_logged(relay.process), head.seen())
        found, live = everything.report(), head.report()
    caught_up = found["last_at"] - began
    used = relay.usage()
    behind = watch.behind_seconds()
    return {
        "complete": complete,
        **{name: found[name] for name in WRONG},
        "head_consumers_lost": live["connections_lost"],
        "head_out_of_order": live["out_of_order"] + live["seq_not_rising"] + live["unexpected_or_repeated"],
        "head_behind_seconds_at_most": round(behind, 1),
        "head_is_live": complete and not live["connections_lost"] and behind <= LIVE_SECONDS,
        "api_up_seconds": round(api, 2),
        "all_connected_seconds": connected and round(connected, 1),
        "rss_mib_when_connected": round(at_connect.rss_bytes / 2**20),
        "caught_up_seconds": round(caught_up, 1),
        "events_per_second": round(fleet.measured / caught_up),
        "caught_up_seconds_after_10_minutes": round(api + (caught_up - api) * FULL_DOWNTIME * RATE / fleet.measured),
        "cpu_seconds": round(used.cpu_seconds, 1),
        "cpu_seconds_per_1000_events": round(used.cpu_seconds / fleet.measured * 1000, 3),
        "rss_mib": round(used.rss_bytes / 2**20),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
    }


def _logged(relay: RelayProcess) -> float:
    return relay.metric("relay_events_logged_total")


def _tell(what: str, began: float) -> None:
    print(f"{what} after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def main() -> int:
    options = arguments()
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="startup-", dir=CACHE))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        cluster = stack.enter_context(closing(Cluster())) if options.database == "postgres" else None
        outcome = run(options, folder, cluster)
    for name, value in outcome.items():
        print(f"{name.replace('_', ' '):36} {value}")
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2, default=str) + "\n")
    wrong = any(outcome[name] for name in (*WRONG, "head_out_of_order"))
    return 0 if outcome["complete"] and outcome["head_is_live"] and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())

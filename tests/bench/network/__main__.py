"""The whole relay under a fake network: `python -m tests.bench.network --help`.

Starts a fleet of hosts and M consumers in processes of their own, and the relay on an empty data folder, or takes one
that runs already by its URL. Every host sends each account's first event (so that identities are known), then the
measured run begins: as fast as the relay takes it, or at a rate. Prints a table and, with --json, the same as JSON.
Exits with 1 when an event is missing, repeated or out of order.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.network.harness import (
    CACHE,
    MODULE,
    WRONG,
    add_relay_options,
    crawl,
    relay_for,
    report,
    start_consumers,
    start_fleet,
    stop,
    wait_seen,
    work_folder,
)
from tests.bench.network.processes import Usage, tree_usage
from tests.bench.network.traffic import Shape, index_of, load_or_build
from tests.support.child import Child
from tests.support.relay_process import RelayProcess


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[1])
    load = parser.add_argument_group("load")
    load.add_argument("--hosts", type=int, default=20)
    load.add_argument("--accounts", type=int, default=200)
    load.add_argument("--events", type=int, default=15_000, help="events of the measured run")
    load.add_argument("--consumers", type=int, default=10)
    load.add_argument("--rate", type=float, default=0, help="events a second; 0: as fast as the relay takes them")
    load.add_argument("--seed", type=int, default=1)
    add_relay_options(parser)
    parser.add_argument("--json", type=Path, help="write the result here as well")
    return parser.parse_args()


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    shape = Shape(options.hosts, options.accounts, options.events, options.seed)
    traffic = load_or_build(shape, CACHE)
    index = index_of(traffic)
    first = sum(len(host.accounts) for host in index)
    measured = sum(len(host.events) for host in index) - first
    fleet = start_fleet([traffic], plc_port=options.plc_port)
    relay: RelayProcess | None = None
    consumers: Child | None = None
    try:
        relay = relay_for(options, folder, fleet.messages[0]["plc"])
        pid = options.pid or (relay.child.process.pid if relay.child else 0)
        crawl(relay, fleet)
        consumers = start_consumers(relay, options.consumers, [traffic])

        fleet.send({"send": "first"})
        assert wait_seen(consumers, "seen", first, 60), f"first events are missing:\n{relay.log_tail()}"
        start, seconds = time.monotonic() + 0.5, measured / options.rate if options.rate else 0.0
        consumers.send({"start": start, "seconds": seconds})
        time.sleep(max(0.0, start - time.monotonic() - (0.1 if seconds else 0.0)))
        before = tree_usage(pid)
        fleet.send({"send": "all", "start": start, "seconds": seconds})
        complete = wait_seen(consumers, "slowest", measured, 30)
        after = tree_usage(pid)
        return result(shape, options, report(consumers), complete, start, after - before)
    finally:
        stop(relay, fleet, consumers)


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
        **{
            key: value
            for key, value in found.items()
            if key not in ("first_at", "last_at", "unmeasured_at", "latency_s")
        },
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
    with work_folder() as folder:
        outcome = run(options, folder)
    for name, value in outcome.items():
        print(f"{name.replace('_', ' '):32} {value}")
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2) + "\n")
    return 0 if outcome["complete"] and not any(outcome[name] for name in WRONG) else 1


if __name__ == "__main__":
    sys.exit(main())

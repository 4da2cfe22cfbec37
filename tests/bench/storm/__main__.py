"""New accounts by the thousand beside known ones: `python -m tests.bench.storm --help`.

The whole relay, and a PLC directory that takes half a second for an answer and fails one time in twenty. Accounts on
some hosts are known and commit at a steady rate; then every account of other hosts, all new, sends its first events at
once. No event may be missing, repeated or out of order in its account, and known accounts must not wait: printed is
how late their commits came before the storm and during it, and what the storm cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.network.harness import (
    CACHE,
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
from tests.bench.network.processes import tree_usage
from tests.bench.network.traffic import Shape, index_of, load_or_build
from tests.support.child import Child
from tests.support.relay_process import RelayProcess


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.storm", description=__doc__.split("\n\n")[1])
    load = parser.add_argument_group("load")
    load.add_argument("--new", type=int, default=2_000, help="new accounts, all at once")
    load.add_argument("--new-hosts", type=int, default=10)
    load.add_argument("--known", type=int, default=200)
    load.add_argument("--known-hosts", type=int, default=20)
    load.add_argument("--rate", type=float, default=300, help="commits a second of the known accounts")
    load.add_argument("--calm", type=float, default=8.0, help="seconds that the known accounts have for themselves")
    load.add_argument("--storm", type=float, default=20.0, help="seconds that they go on when the storm is there")
    load.add_argument("--plc-latency", type=float, default=0.5)
    load.add_argument("--plc-failures", type=float, default=0.05)
    load.add_argument("--goal", type=float, default=100.0, help="ms that known accounts may take at p99 in the storm")
    add_relay_options(parser)
    parser.add_argument("--json", type=Path, help="write the result here as well")
    return parser.parse_args()


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    seconds = options.calm + options.storm
    known = Shape(options.known_hosts, options.known, round(options.rate * seconds), 1, commits_only=True)
    # A first event and one more on average, so that order within a new account shows; small repos are built sooner.
    new = Shape(options.new_hosts, options.new, options.new, 2, records=100, commits_only=True)
    traffic = [load_or_build(shape, CACHE) for shape in (known, new)]
    total = sum(len(host.events) for one in traffic for host in index_of(one))
    fleet = start_fleet(traffic, plc_latency=options.plc_latency, plc_failures=options.plc_failures)
    relay: RelayProcess | None = None
    consumers: Child | None = None
    try:
        relay = relay_for(options, folder, fleet.messages[0]["plc"])
        assert relay.child
        crawl(relay, fleet)
        consumers = start_consumers(relay, 1, traffic)
        fleet.send({"send": "first", "traffic": 0})
        assert wait_seen(consumers, "seen", sum(len(host.accounts) for host in index_of(traffic[0])), 60)

        start = time.monotonic() + 0.5
        consumers.send({"start": start, "seconds": seconds})
        fleet.send({"send": "all", "traffic": 0, "start": start, "seconds": seconds})
        time.sleep(max(0.0, start - time.monotonic()))
        pid = relay.child.process.pid
        usage = [tree_usage(pid)]
        time.sleep(max(0.0, start + options.calm - time.monotonic()))
        usage.append(tree_usage(pid))
        storm_at = time.monotonic()
        fleet.send({"send": "all", "traffic": 1, "start": 0.0, "seconds": 0.0})
        complete = wait_seen(consumers, "seen", total, 60)
        usage.append(tree_usage(pid))
        fleet.send({"count": True})
        fleet.wait_for('"plc_requests"')
        found = report(consumers, each=True)
        calm, storm = (later.cpu_seconds - earlier.cpu_seconds for earlier, later in pairwise(usage))
        took = time.monotonic() - storm_at
        return {
            "known_accounts": options.known,
            "rate": options.rate,
            "new_accounts": options.new,
            "complete": complete,
            **{name: found[name] for name in ("checked_events", *WRONG)},
            "plc_requests": fleet.messages[-1]["plc_requests"],
            "storm_seconds": round(found["unmeasured_at"] - storm_at, 2),
            **lateness("calm", found["each"], start, storm_at),
            **lateness("storm", found["each"], storm_at, found["unmeasured_at"]),
            "cpu_share_calm": round(calm / options.calm, 3),
            "cpu_ms_per_new_account": round((storm - calm / options.calm * took) / options.new * 1000, 2),
            "rss_peak_mib": round(usage[-1].peak_bytes / 2**20, 1),
        }
    finally:
        stop(relay, fleet, consumers)


def lateness(name: str, each: list[tuple[float, float]], start: float, end: float) -> dict[str, float | int]:
    """How late the events came that were due between two moments."""
    latencies = [latency * 1000 for due, latency in each if start <= due < end]
    cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [float("nan")] * 99
    return {
        f"{name}_events": len(latencies),
        f"{name}_p50_ms": round(cuts[49], 1),
        f"{name}_p99_ms": round(cuts[98], 1),
        f"{name}_max_ms": round(max(latencies, default=float("nan")), 1),
    }


def main() -> int:
    options = arguments()
    with work_folder() as folder:
        outcome = run(options, folder)
    for name, value in outcome.items():
        print(f"{name.replace('_', ' '):32} {value}")
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2) + "\n")
    right = outcome["complete"] and not any(outcome[name] for name in WRONG)
    return 0 if right and outcome["storm_p99_ms"] <= options.goal else 1


if __name__ == "__main__":
    sys.exit(main())

"""New accounts by the thousand beside known ones: `python -m tests.bench.storm --help`.

The whole relay, and a PLC directory that takes half a second for an answer and fails one time in twenty. Accounts on
some hosts are known and commit at a steady rate; then every account of other hosts, all new, sends its first events at
once. No event may be missing, repeated or out of order in its account, and known accounts must not wait: printed is
how late their commits came before the storm and during it, and what the storm cost.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.network.measure import WRONG, Audience, Fleet
from tests.bench.network.subject import Subject, add_relay_options, relay_under_test, tell
from tests.bench.network.traffic import Shape


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


def fleet_for(options: argparse.Namespace) -> Fleet:
    events = round(options.rate * (options.calm + options.storm))
    return Fleet(
        # An #identity of a known account waits for the directory, as it should: that would hide all other waiting.
        Shape(options.known_hosts, options.known, events, 1, commits_only=True),
        options.plc_port,
        # A first event and one more on average, so that order within a new account shows; small repos are built sooner.
        beside=Shape(options.new_hosts, options.new, options.new, 2, records=100, commits_only=True),
        plc_latency=options.plc_latency,
        plc_failures=options.plc_failures,
    )


def run(options: argparse.Namespace, fleet: Fleet, relay: Subject) -> dict[str, Any]:
    with Audience(fleet.traffic, relay.url, 1) as audience:
        fleet.send_first()
        assert audience.wait("seen", fleet.first, 60), "first events are missing"
        start, seconds = time.monotonic() + 0.5, options.calm + options.storm
        audience.expect(start, seconds)
        fleet.send_all(start, seconds)
        time.sleep(max(0.0, start - time.monotonic()))
        usage = [relay.usage()]
        time.sleep(max(0.0, start + options.calm - time.monotonic()))
        usage.append(relay.usage())
        asked, storm_at = fleet.plc_requests(), time.monotonic()
        fleet.send_beside()
        complete = audience.wait("seen", fleet.first + fleet.measured + fleet.beside, 60)
        usage.append(relay.usage())
        took = time.monotonic() - storm_at
        found = audience.report(each=True)
    calm, storm = (later.cpu_seconds - earlier.cpu_seconds for earlier, later in pairwise(usage))
    return {
        "known_accounts": options.known,
        "rate": options.rate,
        "new_accounts": options.new,
        "complete": complete,
        **{name: found[name] for name in ("checked_events", *WRONG)},
        "plc_requests_in_storm": fleet.plc_requests() - asked,
        "storm_seconds": round(found["unmeasured_at"] - storm_at, 2),
        **lateness("calm", found["each"], start, storm_at),
        **lateness("storm", found["each"], storm_at, found["unmeasured_at"]),
        "cpu_share_calm": round(calm / options.calm, 3),
        "cpu_ms_per_new_account": round((storm - calm / options.calm * took) / options.new * 1000, 2),
        "rss_peak_mib": round(usage[-1].peak_bytes / 2**20, 1),
    }


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
    with fleet_for(options) as fleet, relay_under_test(options, fleet) as relay:
        outcome = run(options, fleet, relay)
    tell(outcome, options.json)
    right = outcome["complete"] and not any(outcome[name] for name in WRONG)
    return 0 if right and outcome["storm_p99_ms"] <= options.goal else 1


if __name__ == "__main__":
    sys.exit(main())

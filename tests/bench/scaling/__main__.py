"""What each part costs, and what larger machines would give by that: `python -m tests.bench.scaling --help`.

Runs a fake network through the relay and an edge behind it, both with few and with many consumers, and measures the CPU
time of the relay's own process (the hub), of its workers and of the edge. From two numbers of consumers follows what an
event costs and what a delivery does; from those, what cores and network cards allow. Deterministic but for the clock.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.network.measure import CACHE, WRONG, Fleet, measure
from tests.bench.network.processes import Usage, process_usage
from tests.bench.network.traffic import Shape
from tests.bench.peers.contestant import Contestant
from tests.support.relay_process import RELAY, RelayProcess

SHAPE = Shape(hosts=20, accounts=200, events=15_000, seed=1)
CROWD_SHAPE = Shape(hosts=20, accounts=200, events=2_000, seed=2)
FEW, CROWD = 2, 998
# A core is taken to be full before it is: queues grow, and the kernel needs some of it.
FULL_CORE = 0.8


class Costs(NamedTuple):
    """Seconds of CPU. `delivery` is what one consumer more costs the process that sends, for one event."""

    hub: float
    worker: float
    edge: float
    delivery: float
    event_bytes: float


class Run(NamedTuple):
    """CPU seconds an event of each process, in a run with one process at the end."""

    hub: float
    workers: float
    edge: float
    event_bytes: float
    figures: dict[str, Any]


def run(folder: Path, shape: Shape, counting: int, *, edge: bool) -> Run:
    """The network through a relay, and with `edge` through an edge behind it, to the consumers."""
    with Fleet(shape) as fleet:
        relay = Contestant([RELAY, "serve"], {"RELAY_VALIDATOR_PROCESSES": "1"}, folder / "relay", fleet.plc)
        last = RelayProcess(
            folder / "edge",
            {
                "RELAY_MODE": "edge",
                "RELAY_EDGE_UPSTREAM": relay.url,
                "RELAY_MAX_CONSUMERS_PER_ADDRESS": "2000",
                "LOG_LEVEL": "warn",
            },
        )
        samples: list[tuple[Usage, Usage, Usage]] = []

        def sample() -> Usage:
            hub = process_usage(_pid(relay.process))
            samples.append((hub, relay.usage(), process_usage(_pid(last)) if edge else hub))
            return hub

        try:
            relay.start_with(fleet)
            if edge:
                last.start()
                last.wait_metric("relay_edge_connected", 1)
            url = last.url if edge else relay.url
            figures = measure(fleet, url, sample, consumers=FEW, counting=counting)
        finally:
            last.close()
            relay.close()
    before, after = samples[0], samples[-1]
    hub, tree, edge_cpu = (late.cpu_seconds - early.cpu_seconds for early, late in zip(before, after, strict=True))
    events = fleet.measured
    return Run(
        hub / events, (tree - hub) / events, edge_cpu / events, figures["delivered_bytes"] / FEW / events, figures
    )


def _pid(process: RelayProcess) -> int:
    assert process.child
    return process.child.process.pid


def costs(few: Run, crowd: Run, edge: Run) -> Costs:
    """What follows from a run to few consumers, one to many, and one through an edge to few."""
    delivery = (crowd.hub - few.hub) / CROWD
    return Costs(few.hub - FEW * delivery, few.workers, edge.edge - FEW * delivery, delivery, few.event_bytes)


class Machine(NamedTuple):
    cores: int
    gigabits: float


def ceiling(found: Costs, machine: Machine, consumers: int) -> dict[str, float]:
    """Events a second at which each part of a relay on `machine` is full, with so many consumers."""
    hub = FULL_CORE / (found.hub + consumers * found.delivery)
    return {
        "hub": hub,
        "workers": FULL_CORE * max(machine.cores - 2, 1) / found.worker,
        "network": machine.gigabits * 1e9 / 8 / found.event_bytes / consumers,
    }


def consumers_of_an_edge(found: Costs, machine: Machine, rate: float) -> dict[str, float]:
    """How many consumers one edge serves at `rate` events a second, by its core and by its network card."""
    return {
        "core": (FULL_CORE / rate - found.edge) / found.delivery,
        "network": machine.gigabits * 1e9 / 8 / found.event_bytes / rate,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scaling", description=__doc__.split("\n\n")[1])
    parser.add_argument("--json", type=Path, help="write the result here as well")
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="scaling-", dir=CACHE))
    try:
        runs = {
            "few": run(folder / "few", SHAPE, 0, edge=False),
            "crowd": run(folder / "crowd", CROWD_SHAPE, CROWD, edge=False),
            "edge": run(folder / "edge", SHAPE, 0, edge=True),
        }
    finally:
        shutil.rmtree(folder)
    found = costs(runs["few"], runs["crowd"], runs["edge"])
    for name, value in found._asdict().items():
        print(f"{name:12} {value:,.0f} bytes" if name == "event_bytes" else f"{name:12} {value * 1e6:.2f} us of CPU")
    for consumers in (1, 10, 100, 1000):
        parts = ceiling(found, Machine(cores=16, gigabits=10), consumers)
        print(f"16 cores, 10 Gbit/s, {consumers:5} consumers:", {part: round(value) for part, value in parts.items()})
    for rate in (700, 2000):
        for gigabits in (10, 25):
            served = consumers_of_an_edge(found, Machine(cores=4, gigabits=gigabits), rate)
            print(
                f"an edge at {rate} events/s, {gigabits} Gbit/s:",
                {part: round(value) for part, value in served.items()},
            )
    if options.json:
        result = {"costs": found._asdict(), "runs": {name: one._asdict() for name, one in runs.items()}}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    right = all(one.figures["complete"] and not any(one.figures[name] for name in WRONG) for one in runs.values())
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

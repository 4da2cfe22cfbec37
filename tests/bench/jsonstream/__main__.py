"""The JSON stream beside Jetstream, on the same events to the same consumers: see `--help`.

    python -m tests.bench.jsonstream

Takes our relay with its JSON stream, an edge behind a relay, and Jetstream behind a relay through the same traffic, at
the network's rate and as fast as it goes, to two hundred filtered consumers, and prints a table for each load; with
--json all figures. JETSTREAM names the binary of the original Jetstream; without it ours go alone. About six minutes.

What was done to be fair to Jetstream: it runs with its defaults, but for its rate limit of 5,000 messages a second for
each address, as all consumers are of one, and for the check that ends it when nothing comes. An edge and Jetstream do
the same: follow a relay's firehose, verify nothing, keep what they serve on disk, each in a process of its own. CPU is
that of the process that serves the JSON stream; where that is the relay, what it takes beside that with no such
consumer. Consumers count the messages, and what came must be what the events say: a run in which one is missing or
repeated is named. All share the machine: compare ratios and CPU, not deliveries a second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.jsonstream.contenders import Edge, Jetstream, Relay, jetstream_binary
from tests.bench.jsonstream.rounds import Enter, Load, faults, run
from tests.bench.jsonstream.table import EDGE, JETSTREAM, NOBODY, ONE, RELAY, text
from tests.bench.jsonstream.wanted import READERS
from tests.bench.network.measure import CACHE


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.jsonstream", description=__doc__.split("\n\n")[2])
    parser.add_argument("--load", choices=("paced", "fast"), nargs="*", default=("paced", "fast"))
    parser.add_argument("--rate", type=float, default=500, help="events a second where they are paced")
    parser.add_argument("--times", type=int, default=1, help="how often each goes through each load, in turn")
    names = (NOBODY, ONE, RELAY, EDGE, JETSTREAM)
    parser.add_argument("--only", nargs="*", default=[], choices=names, metavar="NAME", help=f"of {names} these alone")
    parser.add_argument("--json", type=Path, help="write all figures here")
    return parser.parse_args()


def contenders() -> dict[str, tuple[Enter, int]]:
    """Each with its number of consumers of the JSON stream."""
    found: dict[str, tuple[Enter, int]] = {
        NOBODY: (Relay, 0),
        ONE: (Relay, 1),
        RELAY: (Relay, READERS),
        EDGE: (Edge, READERS),
    }
    binary, words = jetstream_binary()
    print(words if binary else f"without Jetstream: {words}", file=sys.stderr)
    if binary:
        found[JETSTREAM] = (partial(Jetstream, binary), READERS)
    return found


def go_through(load: Load, name: str, enter: Enter, readers: int) -> dict[str, Any]:
    """The figures of one contender under one load; those of one that did not hold out are `failed` alone."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="json-", dir=CACHE))
    try:
        figures = run(load, enter, readers, folder)
    except AssertionError as error:
        figures = {"failed": str(error).split("\n", 1)[0]}
    finally:
        shutil.rmtree(folder)
    state = faults(figures) or "complete"
    print(f"{load.name} {name}: {state}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return figures


def main() -> int:
    options = arguments()
    CACHE.mkdir(parents=True, exist_ok=True)
    loads = {"paced": Load(f"{options.rate:g} events/s", options.rate), "fast": Load("as fast as it goes", 0)}
    taking_part = {name: part for name, part in contenders().items() if not options.only or name in options.only}
    result: dict[str, Any] = {}
    wrong = False
    for kind in options.load:
        load = loads[kind]
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in taking_part}
        for _ in range(options.times):
            for name, (enter, readers) in taking_part.items():
                runs[name].append(go_through(load, name, enter, readers))
        result[load.name] = runs
        print(f"\n{text(load.name, runs, paced=bool(load.rate))}\n", flush=True)
        for name, times in runs.items():
            for fault in filter(None, map(faults, times)):
                print(f"{load.name}, {name}: {fault}", flush=True)
                wrong = True
        if options.json:
            options.json.write_text(json.dumps(result, indent=2) + "\n")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

"""This relay and indigo's under the same load, in turn: `make bench-peers`, or `python -m tests.bench.peers --help`.

Builds indigo's relay with Go, then takes both through the rounds of `rounds`, A B A B, first on SQLite, then on a
private PostgreSQL, and prints a table of medians and ratios; with --json all figures. About ten minutes. This relay
takes part twice: as it is by default, which on two cores is in-line, and with a worker process.

What was done to be fair to indigo. It gets the hosts as rows in its database, since its admin requestCrawl checks a
host through a guard that refuses every loopback address; this relay gets them in the same way. Hosts are plain ws on
localhost (RELAY_ALLOW_INSECURE_HOSTS), with an account limit at which neither relay's rate limits bite. Every account's
first event comes before what is measured, so that both know all accounts and identities. It starts new hosts live, so
nothing is sent before it has connected to all. CPU is that of all threads and child processes of the relay; the
database server's stands apart. Both run with their defaults and log warnings only: no
GOMAXPROCS is set. A run in which an event is missing, repeated or out of order is marked. Both share the
machine with the hosts and consumers, which take most of one core: compare ratios and CPU time, not events a second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.network.measure import CACHE, WRONG
from tests.bench.peers import indigo
from tests.bench.peers.contestant import Contestant
from tests.bench.peers.rounds import ROUNDS, run
from tests.bench.peers.table import compare, text
from tests.support.postgres import Cluster
from tests.support.relay_process import RELAY, ROOT

DATABASES = ("sqlite", "postgres")
Figures = dict[str, list[dict[str, Any]]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__.split("\n\n")[1])
    parser.add_argument("--indigo", default="latest", metavar="VERSION", help="version or commit to build")
    parser.add_argument("--database", choices=DATABASES, nargs="*", default=DATABASES)
    parser.add_argument("--round", choices=ROUNDS, nargs="*", default=list(ROUNDS))
    parser.add_argument("--times", type=int, default=2, help="how often each relay goes through each round")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for this relay beside its defaults"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    return parser.parse_args()


class Entry(NamedTuple):
    """A relay that takes part: how it is started, and its settings beside those that all have."""

    command: Sequence[str | Path]
    settings: dict[str, str]


def take_turns(
    contestants: dict[str, Entry], rounds: list[str], times: int, cluster: Cluster | None
) -> dict[str, Figures]:
    """All figures by relay and round; the relays take turns within each round."""
    found: dict[str, Figures] = {name: defaultdict(list) for name in contestants}
    for which in rounds:
        for _ in range(times if ROUNDS[which].varies else 1):
            for name, (command, settings) in contestants.items():
                folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=CACHE))
                began = time.monotonic()
                try:
                    figures = run(
                        ROUNDS[which],
                        lambda plc: Contestant(folder, command, plc, cluster, settings),  # noqa: B023
                    )
                finally:
                    shutil.rmtree(folder)
                found[name][which].append(figures)
                wrong = ", ".join(f"{key} {figures[key]}" for key in WRONG if figures[key])
                state = wrong or ("complete" if figures["complete"] else "incomplete")
                print(f"{which} {name}: {state}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def main() -> int:
    options = arguments()
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        binary = indigo.built(ROOT / ".cache" / "peers", options.indigo)
    except FileNotFoundError:
        print("Go is not installed: there is nothing to compare with", file=sys.stderr)
        return 2
    own = dict(pair.split("=", 1) for pair in options.set)
    contestants = {
        "ours": Entry([RELAY, "serve"], own),
        "worker": Entry([RELAY, "serve"], {**own, "RELAY_VALIDATOR_PROCESSES": "1"}),
        "indigo": Entry([binary, "serve"], {}),
    }
    result: dict[str, Any] = {"indigo": indigo.build_of(binary), "set": own}
    print(result["indigo"])
    for database in options.database:
        with ExitStack() as stack:
            cluster = stack.enter_context(closing(Cluster())) if database == "postgres" else None
            found = take_turns(contestants, options.round, options.times, cluster)
        lines = list(compare(found["ours"], found["worker"], found["indigo"]))
        result[database] = {"runs": found, "table": [line._asdict() for line in lines]}
        print(f"\n{text(database, lines)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

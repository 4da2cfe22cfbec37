"""This relay and others under the same load, in turn: `make bench-peers`, or `python -m tests.bench.peers --help`.

Builds indigo's relay with Go and, where RSKY_DIR names a checkout and cargo is installed, rsky's; then takes all
through the rounds of `rounds`, A B C A B C, first on SQLite, then on a private PostgreSQL, and prints a table of
medians and ratios; with --json all figures. More than an hour. This relay takes part twice: verifying in-line, as it
does on two cores while it keeps up, and with a worker process. It runs with the Python that runs this.

What was done to be fair to indigo. It gets the hosts as rows in its database, since its admin requestCrawl checks a
host through a guard that refuses every loopback address; this relay gets them in the same way. Hosts are plain ws on
localhost (RELAY_ALLOW_INSECURE_HOSTS), with an account limit at which neither relay's rate limits bite. In the rounds
named tls they have TLS, with one certificate that the relays are told to trust (SSL_CERT_FILE); indigo refuses loopback
for these hosts as well, so one line of it is replaced before it is built (`indigo`). Every account's first event comes
before what is measured, so that both know all accounts and identities. It starts new hosts live, so nothing is sent
before it has connected to all. CPU is that of all threads and child processes of the relay; the database server's
stands apart. All run with their defaults and log warnings only: no GOMAXPROCS is set. A run in which an event is
missing, repeated or out of order is marked. All share the machine with the hosts and consumers, which take most of one
core: compare ratios and CPU time, not events a second.

And to rsky: `rsky` says which of its lines are replaced. It is told to drop what it cannot verify, as the others do; by
default it would pass on what does not verify. It verifies less all the same: a commit whose operations it cannot invert
is passed on. And it publishes at once what it syncs to the disk once a second, where the others sync first. Its data is
in an embedded database, so it has no part in PostgreSQL; and it trusts public authorities alone, so it has none in the
rounds with TLS.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.network.measure import CACHE
from tests.bench.peers import indigo, rsky
from tests.bench.peers.contestant import Contestant
from tests.bench.peers.rounds import ROUNDS, run
from tests.bench.peers.table import OURS, WORKER, compare, faults, text
from tests.support.postgres import Cluster
from tests.support.relay_process import RELAY, ROOT

DATABASES = ("sqlite", "postgres")
BUILDS = ROOT / ".cache" / "peers"
INDIGO, RSKY = "indigo", "rsky"
# As they are called on the command line.
RELAYS = {"ours": OURS, "worker": WORKER, "indigo": INDIGO, "rsky": RSKY}
Figures = dict[str, list[dict[str, Any]]]
# The folder for its data, the PLC directory's address, the database server -> a relay that has not been started.
Entry = Callable[[Path, str, Cluster | None], Contestant]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__.split("\n\n")[1])
    parser.add_argument("--relay", choices=RELAYS, nargs="*", default=list(RELAYS), help="who takes part")
    parser.add_argument("--indigo", default="latest", metavar="VERSION", help="version or commit to build")
    parser.add_argument("--database", choices=DATABASES, nargs="*", default=DATABASES)
    parser.add_argument("--round", choices=ROUNDS, nargs="*", default=list(ROUNDS))
    parser.add_argument("--times", type=int, default=2, help="how often each relay goes through each round")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for this relay beside its defaults"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    return parser.parse_args()


def take_turns(
    contestants: dict[str, Entry], rounds: list[str], times: int, cluster: Cluster | None
) -> dict[str, Figures]:
    """All figures by relay and round; the relays take turns within each round."""
    found: dict[str, Figures] = {name: defaultdict(list) for name in contestants}
    for which in rounds:
        for _ in range(times if ROUNDS[which].varies else 1):
            for name, entry in contestants.items():
                began = time.monotonic()
                figures = go_through(which, name, entry, cluster)
                found[name][which].append(figures)
                state = faults(figures) or "complete"
                print(f"{which} {name}: {state}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def go_through(which: str, name: str, entry: Entry, cluster: Cluster | None) -> dict[str, Any]:
    """The figures of one relay in one round; `failed` alone when it did not hold out, or takes no part."""
    if name == RSKY and ROUNDS[which].tls:
        return {"failed": "no part in it: the one that is built here knows hosts without TLS only"}
    folder = Path(tempfile.mkdtemp(prefix=f"{name.strip('+ ')}-", dir=CACHE))
    try:
        return run(ROUNDS[which], lambda plc: entry(folder, plc, cluster))
    except AssertionError as error:
        print(error, file=sys.stderr)
        return {"failed": str(error).split("\n", 1)[0]}
    finally:
        shutil.rmtree(folder)


def relays(wanted: list[str], version: str, settings: dict[str, str]) -> tuple[dict[str, Entry], list[str]]:
    """Those that are wanted and can take part, and what they were built from. `version` is indigo's, `settings` are
    this relay's. Says why others are left out. Raises ValueError when one cannot be built.
    """
    found: dict[str, Entry] = {
        OURS: partial(Contestant, [RELAY, "serve"], {"RELAY_VALIDATOR_PROCESSES": "0", **settings}),
        WORKER: partial(Contestant, [RELAY, "serve"], {**settings, "RELAY_VALIDATOR_PROCESSES": "1"}),
    }
    builds = [_python()]
    if "indigo" in wanted:
        try:
            binary = indigo.built(BUILDS, version)
            builds.append(indigo.build_of(binary))
            found[INDIGO] = partial(Contestant, [binary, "serve"], {})
        except FileNotFoundError:
            print("without indigo: Go is not installed", file=sys.stderr)
    if "rsky" in wanted:
        if missing := rsky.missing():
            print(f"without rsky: {missing}", file=sys.stderr)
        else:
            binary = rsky.built(BUILDS)
            found[RSKY] = partial(rsky.Rsky, binary, {})
            builds.append(rsky.build_of())
    chosen = {RELAYS[name] for name in wanted}
    return {name: entry for name, entry in found.items() if name in chosen}, builds


def _python() -> str:
    """Which Python this is. Whether it was built with PGO it cannot say: Debian's is, without a trace of that."""
    built = f"{platform.python_compiler()}, {sysconfig.get_config_var('OPT')}"
    return f"Python {platform.python_version()} at {Path(sys.executable).resolve()} ({built})"


def main() -> int:
    options = arguments()
    CACHE.mkdir(parents=True, exist_ok=True)
    own = dict(pair.split("=", 1) for pair in options.set)
    try:
        contestants, builds = relays(options.relay, options.indigo, own)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not contestants or ({"indigo", "rsky"} & set(options.relay) and not {INDIGO, RSKY} & contestants.keys()):
        print("there is nothing to compare with", file=sys.stderr)
        return 2
    result: dict[str, Any] = {"builds": builds, "set": own}
    print("; ".join(builds))
    for database in options.database:
        with ExitStack() as stack:
            cluster = stack.enter_context(closing(Cluster())) if database == "postgres" else None
            part = {name: entry for name, entry in contestants.items() if name != RSKY or not cluster}
            found = take_turns(part, options.round, options.times, cluster)
        lines = list(compare(found))
        result[database] = {"runs": found, "table": [line._asdict() for line in lines]}
        print(f"\n{text(database, lines)}", flush=True)
        for name, by_round in found.items():
            for which, runs in by_round.items():
                for fault in filter(None, map(faults, runs)):
                    print(f"{name}, {which}: {fault}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The whole relay under a fake network: `python -m tests.bench.network --help`.

Starts a fleet of hosts and M consumers in processes of their own, and the relay on an empty data folder, or takes one
that runs already by its URL. Every host sends each account's first event (so that identities are known), then the
measured run begins: as fast as the relay takes it, or at a rate. Prints a table and, with --json, the same as JSON.
Exits with 1 when an event is missing, repeated or out of order.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench.network.measure import MODULE, WRONG, Fleet, measure
from tests.bench.network.subject import add_relay_options, relay_under_test, tell
from tests.bench.network.traffic import Shape


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[1])
    load = parser.add_argument_group("load")
    load.add_argument("--hosts", type=int, default=20)
    load.add_argument("--accounts", type=int, default=200)
    load.add_argument("--events", type=int, default=15_000, help="events of the measured run")
    load.add_argument("--consumers", type=int, default=10)
    load.add_argument("--rate", type=float, default=0, help="events a second; 0: as fast as the relay takes them")
    load.add_argument("--tls", action="store_true", help="hosts have TLS; not for a relay at --url")
    load.add_argument("--seed", type=int, default=1)
    load.add_argument("--commits-only", action="store_true", help="no event makes an account wait for its identity")
    add_relay_options(parser)
    parser.add_argument("--json", type=Path, help="write the result here as well")
    options = parser.parse_args()
    if options.tls and options.url:
        parser.error("--tls needs a relay that is started here: it has to trust the certificate, made for each run")
    return options


def main() -> int:
    options = arguments()
    shape = Shape(options.hosts, options.accounts, options.events, options.seed, commits_only=options.commits_only)
    with Fleet(shape, options.plc_port, tls=options.tls) as fleet, relay_under_test(options, fleet) as relay:
        outcome = measure(fleet, relay.url, relay.usage, consumers=options.consumers, rate=options.rate)
    tell(outcome, options.json)
    return 0 if outcome["complete"] and not any(outcome[name] for name in WRONG) else 1


if __name__ == "__main__":
    sys.exit(main())

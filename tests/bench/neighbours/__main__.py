"""What a bad account, host or directory costs its neighbours.

    python -m tests.bench.neighbours [--seconds 6] [NAME…]

Accounts of honest hosts write at a steady rate. For each attacker in turn: how late their events came to a consumer in
as many seconds before it and during it, in milliseconds; at the end, how many never came. The first events of accounts
that are new to the relay may wait for the directory, so they count among the lost alone. Exits with 1 when an event is
lost, or when p99 during an attack is over twice that before it or over 100 ms. All of it shares the machine's cores,
the attackers as well: on a busy machine, or one of two cores, the figures of "before" are what to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402

from tests.bench.neighbours.attackers import ATTACKS  # noqa: E402
from tests.bench.neighbours.scene import (  # noqa: E402
    MODULE,
    SETTLE_SECONDS,
    Process,
    Sent,
    add_options,
    scene,
)
from tests.support.relay_process import RelayProcess  # noqa: E402

TOGGLE = "an account that toggles"
DIRECTORY = "429 of the directory"
GOAL_MS, GOAL_TIMES = 100.0, 2.0
# From when to when.
Window = tuple[float, float]
# Nobody is missed sooner: a lookup that failed is tried again after half a minute.
LOST_AFTER_SECONDS = 60.0


class Bench:
    """One relay, its honest hosts, and a consumer."""

    def __init__(self, relay: RelayProcess, honest: Process, seconds: float) -> None:
        self._relay, self._honest, self._seconds = relay, honest, seconds
        self.windows: dict[str, tuple[Window, Window]] = {}

    def attack(self, name: str) -> None:
        """Measure before and during one attack."""
        with self._attacker(name) as go:
            before = self._window()
            go()
            gevent.sleep(1.0)
            during = self._window()
        self.windows[name] = before, during
        gevent.sleep(SETTLE_SECONDS)

    def _window(self) -> Window:
        began = time.monotonic()
        gevent.sleep(self._seconds)
        return began, began + self._seconds

    @contextmanager
    def _attacker(self, name: str) -> Iterator[Any]:
        if name == TOGGLE:
            yield lambda: self._honest.tell('{"toggle": true}')
            self._honest.tell('{"toggle": false}')
            return
        attacker = Process(f"{MODULE}.attackers", name)
        try:
            needs = attacker.first
            self._honest.tell(json.dumps({"documents": needs["documents"]}))
            for url in needs["hosts"]:
                self._relay.admin("pds/requestCrawl", {"hostname": url})
                if needs["lifted"]:
                    self._relay.lift_limits(url.partition("//")[2])
            gevent.sleep(SETTLE_SECONDS)

            def go() -> None:
                if name == DIRECTORY:
                    self._honest.tell('{"throttled": true}')
                attacker.tell("go")

            yield go
        finally:
            self._honest.tell('{"throttled": false}')
            attacker.close()


def quantiles(latencies: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(latencies)
    at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else 1e9 for share in (0.5, 0.99)]
    return at[0], at[1]


def report(bench: Bench, came: dict[tuple[str, str], float], sent: list[Sent]) -> bool:
    """Print the table; whether every goal is reached."""
    right = True
    print(f"{'ms':32} {'p50 before':>10} {'p99':>7} {'during':>7} {'p99':>7}")
    for name, windows in bench.windows.items():
        figures: list[float] = []
        for begin, end in windows:
            ours = [(did, rev, at) for did, rev, at, new in sent if begin <= at < end and not new]
            # What never came counts as endless.
            figures += quantiles([came.get((did, rev), 1e6) - at for did, rev, at in ours])
        reached = figures[3] <= min(GOAL_MS, GOAL_TIMES * figures[1])
        right = right and reached
        mark = "" if reached else "  over the goal"
        print(f"{name:32} {figures[0]:10.1f} {figures[1]:7.1f} {figures[2]:7.1f} {figures[3]:7.1f}{mark}")
    lost = sum((did, rev) not in came for did, rev, _, _ in sent)
    print(f"honest events: {len(sent)}, lost: {lost}; load {os.getloadavg()[0]:.1f}")
    return right and not lost


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, rate=200)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([TOGGLE, *ATTACKS]))
    options = parser.parse_args()
    if unknown := set(options.names) - {TOGGLE, *ATTACKS}:
        parser.error(f"no attacker is called {', '.join(sorted(unknown))}")
    with scene(options) as (relay, honest, arrivals):
        bench = Bench(relay, honest, options.seconds)
        for name in options.names or [TOGGLE, *ATTACKS]:
            bench.attack(name)
        honest.tell('{"report": true}')
        sent = [tuple(each) for each in honest.answer()]
        arrivals.wait(sent, LOST_AFTER_SECONDS)
        right = report(bench, arrivals.came, sent)
        relay.stop()
        return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

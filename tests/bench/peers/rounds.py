"""The rounds that every relay of the comparison goes through, each on an empty database and log.

Run by `tests.bench.peers`. Each returns plain figures; what counts as better is said in `table`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.bench.network.measure import Counting, Fleet, measure
from tests.bench.network.traffic import Shape
from tests.bench.peers.contestant import Contestant

REPLAYS = 3
Enter = Callable[[str], Contestant]  # the PLC directory's address -> a relay that has not been started


class Round(NamedTuple):
    """One load: `checking` consumers look at every event, `counting` ones beside them at its bytes. `rate` events a
    second, 0 as fast as the relay takes them; `replay`: then restart the relay and read all from its disk; `rests`: for
    so many seconds afterwards nothing comes; `varies`: what it is for differs from one time to the next; `tls`: the
    hosts have it.
    """

    shape: Shape
    checking: int
    counting: int = 0
    rate: float = 0
    replay: bool = False
    rests: float = 0
    varies: bool = True
    tls: bool = False


# The network's rate, at which an event comes alone: from many hosts.
PACED = Shape(hosts=400, accounts=2_000, events=0, seed=3, records=300)
PACED_RATES = (500, 700)

PLAIN = {
    "load": Round(Shape(hosts=20, accounts=200, events=15_000, seed=1), checking=10, replay=True),
    "fan-out": Round(Shape(hosts=20, accounts=200, events=2_000, seed=2), checking=2, counting=998),
    **{f"paced-{rate}": Round(PACED._replace(events=10 * rate), checking=3, rate=rate) for rate in PACED_RATES},
    "paced-hosts": Round(Shape(hosts=3_000, accounts=6_000, events=14_000, seed=5, records=100), checking=3, rate=700),
    "hosts": Round(
        Shape(hosts=3_000, accounts=3_000, events=3_000, seed=4, records=100), checking=2, rests=120, varies=False
    ),
}
ROUNDS = PLAIN | {
    "paced-tls-500": PLAIN["paced-500"]._replace(tls=True),
    "tls-hosts": PLAIN["hosts"]._replace(tls=True),
}


def run(one: Round, enter: Enter) -> dict[str, Any]:
    """Take a relay through a round."""
    with Fleet(one.shape, tls=one.tls) as fleet:
        relay = enter(fleet.plc)
        try:
            relay.start_with(fleet)
            connected = relay.usage()
            figures = measure(
                fleet,
                relay.url,
                relay.usage,
                relay.database_usage,
                consumers=one.checking,
                counting=one.counting,
                rate=one.rate,
            )
            figures["connected_rss_mib"] = round(connected.rss_bytes / 2**20, 1)
            if one.rests:
                figures |= rest(relay, one.rests)
            relay.stop()
            if one.replay:
                figures |= replay(relay, fleet, figures["wire_bytes"])
            return figures
        finally:
            relay.close()


def rest(relay: Contestant, seconds: float) -> dict[str, Any]:
    """What the relay takes while all its hosts are connected and none sends anything."""
    before = relay.usage()
    time.sleep(seconds)
    used = relay.usage() - before
    return {
        "rested_rss_mib": round(used.rss_bytes / 2**20, 1),
        "idle_cpu_ms_a_second": round(used.cpu_seconds / seconds * 1000, 1),
    }


def replay(relay: Contestant, fleet: Fleet, wire_bytes: int) -> dict[str, Any]:
    """Start the relay again, so that nothing of the log is in its memory, and let one consumer read all of it."""
    relay.restart(fleet)
    events = fleet.first + fleet.measured
    best = {"replay_events_per_second": 0, "replayed_share": 0.0}
    for _ in range(REPLAYS):
        before = relay.usage()
        with Counting(f"{relay.url}?cursor=0", 1) as consumer:
            consumer.wait(wire_bytes, 3)
            share = consumer.latest("slowest_bytes") / wire_bytes
            seconds = consumer.latest("last_at") - consumer.latest("first_at")
        cpu = (relay.usage() - before).cpu_seconds
        speed = round(events * share / seconds) if seconds else 0
        if speed > best["replay_events_per_second"]:
            best = {
                "replay_events_per_second": speed,
                "replayed_share": round(share, 3),
                "replay_cpu_seconds_per_1000_events": round(cpu / (events * share) * 1000, 4),
            }
    relay.stop()
    return best

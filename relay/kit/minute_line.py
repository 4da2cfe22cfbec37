"""A line a minute in the log with the figures that matter, so that the journal shows how the relay has been doing.

Run by `app` and by `edge`. It reads the instruments of `metrics` as a scrape does; its caller says what is
wrong, which makes the line a warning. Must not know what moves the figures.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.own_process import process_status

FIRST_SECONDS = 10.0
EVERY_SECONDS = 60.0
REASONS_NAMED = 3
# Queues that fill only when something behind them is too slow; a cache is full when all is well.
QUEUES = frozenset(
    {"edge", "parked", "partitions", "plc-lookups", "projection", "sequencer", "verifier-events", "web-lookups"}
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters at one moment: seconds of clocks that do not go back, events, seconds of syncs."""

    at: float
    cpu: float
    received: float
    logged: float
    sent: float
    dropped: dict[str, float]
    syncs: float
    sync_seconds: float


class MinuteLine:
    """Writes the line from `start` to `stop`. `mode` is "relay" or "edge"; `problem` says what is wrong, or None."""

    def __init__(self, mode: str, problem: Callable[[], str | None]) -> None:
        self._mode = mode
        self._problem = problem
        self._before = take_reading()
        self._loop = Loop("the line a minute", self._say, EVERY_SECONDS)

    def start(self) -> None:
        """Begin; the first line comes soon, and covers the start."""
        self._before = take_reading()
        self._loop.start(after=FIRST_SECONDS)

    def stop(self) -> None:
        """Write no more."""
        self._loop.stop()

    def _say(self) -> None:
        before, self._before = self._before, take_reading()
        problem = self._problem()
        figures = f"{rates(before, self._before)}; {state(self._mode)}; {costs(before, self._before)}"
        if problem is None:
            log.info("%s", figures)
        else:
            log.warning("not healthy: %s; %s", problem, figures)


def rates(before: Reading, now: Reading) -> str:
    """Events per second between two readings, with the reasons that dropped the most."""
    seconds = max(now.at - before.at, 1e-3)
    dropped = {reason: count - before.dropped.get(reason, 0.0) for reason, count in now.dropped.items()}
    named = sorted((reason for reason in dropped if dropped[reason]), key=lambda reason: -dropped[reason])
    reasons = ", ".join(f"{reason} {per_second(dropped[reason] / seconds)}" for reason in named[:REASONS_NAMED])
    return (
        f"events/s: {per_second((now.received - before.received) / seconds)} received, "
        f"{per_second((now.logged - before.logged) / seconds)} logged, "
        f"{per_second(sum(dropped.values()) / seconds)} dropped{f' ({reasons})' if reasons else ''}, "
        f"{per_second((now.sent - before.sent) / seconds)} sent"
    )


def state(mode: str) -> str:
    """Who is connected on both sides, and how far behind the slowest consumer is."""
    lag = metrics.total(metrics.CONSUMERS_WORST_LAG)
    consumers = f"{metrics.total(metrics.CONSUMERS):,.0f} consumers, the slowest {lag:,.0f} behind"
    if mode == "edge":
        upstream = "connected" if metrics.total(metrics.EDGE_CONNECTED) else "not connected"
        return f"{upstream} to the upstream relay; {consumers}"
    known = sum(value for labels, value in metrics.readings(metrics.HOSTS) if labels["status"] != "banned")
    return f"{metrics.total(metrics.HOSTS_CONNECTED):,.0f} of {known:,.0f} hosts connected; {consumers}"


def costs(before: Reading, now: Reading) -> str:
    """What the relay needs for it: the log's disk, the fullest queue, memory, CPU of this process."""
    syncs = now.syncs - before.syncs
    sync = f"a log sync takes {1000 * (now.sync_seconds - before.sync_seconds) / syncs:.1f} ms; " if syncs else ""
    capacities = {labels["queue"]: value for labels, value in metrics.readings(metrics.QUEUE_CAPACITY)}
    filled = [
        (value / capacities[labels["queue"]], labels["queue"])
        for labels, value in metrics.readings(metrics.QUEUE_SIZE)
        if labels["queue"] in QUEUES and capacities.get(labels["queue"])
    ]
    share, queue = max(filled, default=(0.0, ""))
    fullest = f"{queue} is {share:.0%} full; " if share >= 0.01 else ""
    memory = process_status("VmRSS") / 1024
    cpu = (now.cpu - before.cpu) / max(now.at - before.at, 1e-3)
    return f"{sync}{fullest}{memory:,.0f} MiB of memory, {cpu:.0%} of a core"


def take_reading() -> Reading:
    """The counters as they stand."""
    return Reading(
        time.monotonic(),
        time.process_time(),
        metrics.total(metrics.EVENTS_RECEIVED, "_total"),
        metrics.total(metrics.EVENTS_LOGGED, "_total"),
        metrics.total(metrics.EVENTS_SENT, "_total"),
        {labels["reason"]: value for labels, value in metrics.readings(metrics.EVENTS_DROPPED, "_total")},
        metrics.total(metrics.LOG_SYNC_SECONDS, "_count"),
        metrics.total(metrics.LOG_SYNC_SECONDS, "_sum"),
    )


def per_second(rate: float) -> str:
    """A rate as people read it: whole where it is large, and never 0 for what is there."""
    if 0 < rate < 0.1:
        return "under 0.1"
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}"

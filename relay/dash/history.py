"""The last minutes of the relay's own metrics, for rates and latencies on a page without a Prometheus beside it.

Sampled by one greenlet that `app` starts, read by the overview; what is drawn over hours and days goes on to `past`.
Bounded: SAMPLES samples of fixed instruments. Must not know how any of it is shown.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import gevent
from prometheus_client import Counter, Gauge, Histogram

from relay.dash.past import Past
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.own_process import resident_bytes

SAMPLE_SECONDS = 5.0
SAMPLES = 121
"""Ten minutes, both ends included."""

COUNTERS: dict[str, Counter] = {
    "received": metrics.EVENTS_RECEIVED,
    "logged": metrics.EVENTS_LOGGED,
    "dropped": metrics.EVENTS_DROPPED,
    "sent": metrics.EVENTS_SENT,
}
HISTOGRAMS: dict[str, Histogram] = {
    **{stage: metrics.EVENT_STAGE_SECONDS.labels(stage) for stage in ("queued", "parked", "judged", "logged")},
    "log sync": metrics.LOG_SYNC_SECONDS,
    "SQL write": metrics.STORE_SECONDS.labels("write"),
    "hub lag": metrics.HUB_LAG_SECONDS,
}
GAUGES: dict[str, Gauge] = {
    "hosts": metrics.HOSTS_CONNECTED,
    "consumers": metrics.CONSUMERS,
    "lag": metrics.CONSUMERS_WORST_LAG,
    "log-bytes": metrics.LOG_BYTES,
    "behind": metrics.PROJECTION_LAG,
}
# What is kept for a week of the histograms: their 99th percentiles.
HIGHS = {"queued-99": "queued", "logged-99": "logged", "sync-99": "log sync", "hub-99": "hub lag"}
# What a pass under way gets to end, and then the disk for what is kept.
STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Every counter, every histogram's cumulative bucket counts and the CPU used, at one moment, monotonic seconds."""

    at: float
    cpu_seconds: float
    totals: dict[str, float]
    drops: dict[str, float]
    buckets: dict[str, array[float]]


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles in seconds over the whole history, None without observations, and the 99th percentile as it went."""

    name: str
    median: float | None
    high: float | None
    course: list[float]


class History:
    """Samples from `start` to `stop`. `past` is where they go on to."""

    def __init__(self, past: Past | None = None) -> None:
        self.past = past or Past()
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._loop = Loop("sampling metrics", self._sample_and_keep, SAMPLE_SECONDS)
        metrics.show_bound("dash-samples", self._samples.__len__, SAMPLES)

    def start(self) -> None:
        """Begin to sample."""
        self._loop.start()

    def stop(self) -> None:
        """Stop sampling, and keep what was sampled, unless the disk takes longer than some seconds."""
        if self._loop.running:
            self._loop.stop(STOP_SECONDS)
            gevent.with_timeout(STOP_SECONDS, self.past.save, timeout_value=None)

    def sample(self) -> None:
        """Note how everything stands now."""
        drops = {labels["reason"]: value for labels, value in metrics.readings(metrics.EVENTS_DROPPED, "_total")}
        totals = {name: metrics.total(found, "_total") for name, found in COUNTERS.items()}
        buckets = {
            name: array("d", (value for _, value in metrics.readings(found, "_bucket")))
            for name, found in HISTOGRAMS.items()
        }
        self._samples.append(Sample(time.monotonic(), time.process_time(), totals, drops, buckets))
        self.past.note(time.time(), self._figures())

    def rate(self, name: str) -> float | None:
        """The last increase of a counter per second, None while that is not known."""
        if len(self._samples) < 2:
            return None
        return _per_second(self._samples[-2], self._samples[-1], name)

    def rates(self, name: str) -> list[float]:
        """The course of a counter, as increase per second from each sample to the next."""
        return [_per_second(earlier, later, name) for earlier, later in pairwise(self._samples)]

    def drops(self) -> list[tuple[str, float, float]]:
        """(reason, dropped within the history, dropped since the start), most of them lately first; none of zero."""
        if not self._samples:
            return []
        before, now = self._samples[0].drops, self._samples[-1].drops
        rows = [(reason, total - before.get(reason, 0.0), total) for reason, total in now.items() if total]
        return sorted(rows, key=lambda row: (-row[1], -row[2], row[0]))

    def latencies(self) -> list[Latency]:
        """Every histogram's quantiles."""
        return [self._latency(name) for name in HISTOGRAMS]

    def _sample_and_keep(self) -> None:
        self.sample()
        self.past.save_if_due()

    def _figures(self) -> dict[str, float]:
        """What `past` takes of this moment."""
        figures = {name: value for name, gauge in GAUGES.items() for _, value in metrics.readings(gauge, "")}
        figures["memory"] = resident_bytes()
        if len(self._samples) > 1:
            before, now = self._samples[-2], self._samples[-1]
            figures |= {name: _per_second(before, now, name) for name in COUNTERS}
            figures["cpu"] = (now.cpu_seconds - before.cpu_seconds) / max(now.at - before.at, 1e-3)
            for name, histogram in HIGHS.items():
                high = quantile(_bounds(histogram), before.buckets[histogram], now.buckets[histogram], 0.99)
                if high is not None:
                    figures[name] = high
        return figures

    def _latency(self, name: str) -> Latency:
        bounds = _bounds(name)
        seen = [sample.buckets[name] for sample in self._samples]
        if len(seen) < 2:
            return Latency(name, None, None, [])
        course = [quantile(bounds, earlier, later, 0.99) or 0.0 for earlier, later in pairwise(seen)]
        whole = bounds, seen[0], seen[-1]
        return Latency(name, quantile(*whole, 0.5), quantile(*whole, 0.99), course)


def quantile(bounds: Sequence[float], before: Sequence[float], now: Sequence[float], part: float) -> float | None:
    """The value below which `part` of the observations between two readings lie, as Prometheus computes it."""
    counts = [later - earlier for earlier, later in zip(before, now, strict=True)]
    wanted = part * counts[-1]
    if not wanted:
        return None
    lower_bound = lower_count = 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted:
            if bound == float("inf"):
                return lower_bound
            return lower_bound + (bound - lower_bound) * (wanted - lower_count) / (count - lower_count)
        lower_bound, lower_count = bound, count
    return lower_bound


def _per_second(earlier: Sample, later: Sample, name: str) -> float:
    return (later.totals[name] - earlier.totals[name]) / max(later.at - earlier.at, 1e-3)


def _bounds(name: str) -> list[float]:
    return [float(labels["le"]) for labels, _ in metrics.readings(HISTOGRAMS[name], "_bucket")]

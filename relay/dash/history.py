"""The last minutes of the relay's own metrics, for rates and latencies on a page without a Prometheus beside it.

Sampled by one greenlet that `app` starts, read by the overview. Bounded: SAMPLES samples of fixed instruments. Must not
know how any of it is shown.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from relay.kit import metrics
from relay.kit.background import Loop

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


@dataclass(frozen=True, slots=True)
class Sample:
    """Every counter and every histogram's cumulative bucket counts at one moment, monotonic seconds."""

    at: float
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
    """Samples from `start` to `stop`."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._loop = Loop("sampling metrics", self.sample, SAMPLE_SECONDS)
        metrics.show_bound("dash-samples", self._samples.__len__, SAMPLES)

    def start(self) -> None:
        """Begin to sample."""
        self._loop.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._loop.stop()

    def sample(self) -> None:
        """Note how everything stands now."""
        drops = {labels["reason"]: value for labels, value in _readings(metrics.EVENTS_DROPPED, "_total")}
        totals = {name: sum(value for _, value in _readings(found, "_total")) for name, found in COUNTERS.items()}
        buckets = {
            name: array("d", (value for _, value in _readings(found, "_bucket"))) for name, found in HISTOGRAMS.items()
        }
        self._samples.append(Sample(time.monotonic(), totals, drops, buckets))

    @property
    def seconds(self) -> float:
        """How long the history is."""
        return self._samples[-1].at - self._samples[0].at if self._samples else 0.0

    def rates(self, name: str) -> list[float]:
        """The course of a counter, as increase per second from each sample to the next."""
        return [
            (later.totals[name] - earlier.totals[name]) / max(later.at - earlier.at, 1e-3)
            for earlier, later in pairwise(self._samples)
        ]

    def drops(self) -> list[tuple[str, float, float]]:
        """(reason, dropped within the history, dropped since the start), most of late first; none that never were."""
        if not self._samples:
            return []
        before, now = self._samples[0].drops, self._samples[-1].drops
        rows = [(reason, total - before.get(reason, 0.0), total) for reason, total in now.items() if total]
        return sorted(rows, key=lambda row: (-row[1], -row[2], row[0]))

    def latencies(self) -> list[Latency]:
        """Every histogram's quantiles."""
        return [self._latency(name) for name in HISTOGRAMS]

    def _latency(self, name: str) -> Latency:
        bounds = [float(labels["le"]) for labels, _ in _readings(HISTOGRAMS[name], "_bucket")]
        seen = [sample.buckets[name] for sample in self._samples]
        if len(seen) < 2:
            return Latency(name, None, None, [])
        course = [quantile(bounds, earlier, later, 0.99) or 0.0 for earlier, later in pairwise(seen)]
        whole = bounds, seen[0], seen[-1]
        return Latency(name, quantile(*whole, 0.5), quantile(*whole, 0.99), course)


def quantile(bounds: Sequence[float], before: Sequence[float], now: Sequence[float], part: float) -> float | None:
    """The value below which `part` of the observations between two readings lie, as Prometheus reckons it."""
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


def _readings(instrument: MetricWrapperBase, suffix: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for metric in instrument.collect()
        for sample in metric.samples
        if sample.name.endswith(suffix)
    ]

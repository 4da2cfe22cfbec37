"""The last minutes of metrics: rates between samples, quantiles of what was observed between them."""

from __future__ import annotations

import math

import pytest

from relay.dash.history import SAMPLES, History, quantile
from relay.kit import metrics

BOUNDS = (1.0, 2.0, 4.0, math.inf)


@pytest.mark.parametrize(
    ("before", "now", "part", "expected"),
    [
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.5, None),
        ((5, 9, 9, 9), (5, 9, 9, 9), 0.5, None),
        ((0, 0, 0, 0), (10, 10, 10, 10), 0.5, 0.5),
        ((0, 0, 0, 0), (0, 10, 10, 10), 0.5, 1.5),
        ((7, 7, 7, 7), (7, 7, 17, 17), 0.99, 3.98),
        ((0, 0, 0, 0), (0, 0, 0, 10), 0.99, 4.0),
    ],
)
def test_a_quantile_is_of_what_came_since(
    before: tuple[float, ...], now: tuple[float, ...], part: float, expected: float | None
) -> None:
    assert quantile(BOUNDS, before, now, part) == pytest.approx(expected)


def test_rates_drops_and_latencies_are_of_what_happened_between_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("relay.dash.history.time.monotonic", lambda: now)
    seen = History()
    assert (seen.rates("received"), seen.rate("received"), seen.drops()) == ([], None, [])
    metrics.EVENTS_DROPPED.labels("test-before").inc(3)
    seen.sample()
    for step in (10, 30):
        metrics.EVENTS_RECEIVED.labels("commit").inc(step)
        metrics.EVENTS_RECEIVED.labels("sync").inc(step)
        now += 5.0
        seen.sample()
    metrics.EVENTS_DROPPED.labels("test-late").inc(2)
    metrics.HUB_LAG_SECONDS.observe(0.2)
    now += 5.0
    seen.sample()
    assert seen.rates("received") == pytest.approx([4.0, 12.0, 0.0]) and seen.rate("received") == 0.0
    drops = {reason: (late, total) for reason, late, total in seen.drops()}
    assert drops["test-late"] == (2.0, 2.0) and drops["test-before"][0] == 0.0
    assert seen.drops()[0][0] == "test-late"
    lag = next(one for one in seen.latencies() if one.name == "hub lag")
    assert lag.high is not None and 0.1 < lag.high <= 0.25 and lag.course[:2] == [0.0, 0.0]


def test_the_history_is_bounded() -> None:
    seen = History()
    for _ in range(SAMPLES + 5):
        seen.sample()
    assert len(seen.rates("sent")) == SAMPLES - 1

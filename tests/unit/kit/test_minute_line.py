"""The line a minute: its figures are what has moved since the one before, and it stands out when something is wrong."""

from __future__ import annotations

import logging

import pytest

from relay.kit import metrics
from relay.kit.minute_line import MinuteLine, Reading, costs, per_second, rates, state

BEFORE = Reading(100.0, 5.0, 1000, 900, 5000, {"rev-old": 50.0, "poison": 1.0}, 10, 0.5)
NOW = Reading(
    160.0,
    20.0,
    43_000,
    42_780,
    131_000,
    {"rev-old": 170.0, "poison": 1.0, "wrong-host": 53.0, "rev-future": 1.0, "op-path": 30.0},
    110,
    0.9,
)


def test_rates_are_of_the_time_between() -> None:
    assert rates(BEFORE, NOW) == (
        "events/s: 700 received, 698 logged, 3.4 dropped (rev-old 2.0, wrong-host 0.9, op-path 0.5), 2,100 sent"
    )


def test_nothing_dropped_has_no_reasons() -> None:
    assert "0 dropped, 0 sent" in rates(BEFORE, BEFORE)


def test_what_is_there_is_not_shown_as_nothing() -> None:
    assert [per_second(rate) for rate in (0, 0.01, 0.5, 9.94, 1234.5)] == ["0", "under 0.1", "0.5", "9.9", "1,234"]


def test_costs_name_a_queue_that_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    assert costs(BEFORE, NOW).startswith("a log sync takes 4.0 ms; ") and "25% of a core" in costs(BEFORE, NOW)
    assert "full" not in costs(BEFORE, NOW)
    monkeypatch.setattr("relay.kit.minute_line.QUEUES", frozenset({"test-queue"}))
    metrics.show_bound("test-queue", lambda: 30, 100)
    try:
        assert "test-queue is 30% full" in costs(BEFORE, NOW)
    finally:
        for gauge in (metrics.QUEUE_SIZE, metrics.QUEUE_CAPACITY):
            gauge.remove("test-queue")


def test_an_edge_has_no_hosts() -> None:
    assert "upstream relay; " in state("edge") and "hosts" not in state("edge")
    assert "hosts connected; " in state("relay")


@pytest.mark.parametrize(("problem", "level"), [(None, logging.INFO), ("log: disk full", logging.WARNING)])
def test_what_is_wrong_stands_out(caplog: pytest.LogCaptureFixture, problem: str | None, level: int) -> None:
    with caplog.at_level(logging.INFO):
        MinuteLine("relay", lambda: problem)._say()
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage().startswith("events/s: " if problem is None else f"not healthy: {problem}; events/s: ")

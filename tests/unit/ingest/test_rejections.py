"""Every drop is counted; the log is limited per host and reason, and silent about ordinary replay."""

import contextlib
import logging

import pytest
from prometheus_client import REGISTRY

from relay.ingest.rejections import LINES_PER_WINDOW, Rejections
from relay.kit import metrics


def dropped(reason: str) -> float:
    return metrics.EVENTS_DROPPED.labels(reason)._value.get()


def test_drops_are_counted_logged_within_limits_and_observed(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, str]] = []
    rejections = Rejections(lambda hostname, reason: seen.append((hostname, reason)))
    before = dropped("wrong-host")
    with caplog.at_level(logging.WARNING):
        for seq in range(100):
            rejections.note("a.example", "wrong-host", "did:web:x.example", seq)
        rejections.note("b.example", "wrong-host", "did:web:x.example", 1)
    assert dropped("wrong-host") - before == 101
    lines = [record.getMessage() for record in caplog.records]
    assert sum("host=a.example" in line for line in lines) == LINES_PER_WINDOW
    assert sum("host=b.example" in line for line in lines) == 1
    assert len(seen) == 101


def test_replayed_events_are_counted_but_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    before = dropped("rev-old")
    Rejections().note("a.example", "rev-old", "did:web:x.example", 1)
    assert dropped("rev-old") == before + 1 and not caplog.records


def test_the_first_bug_is_a_rise_for_the_alert() -> None:
    with contextlib.suppress(KeyError):
        metrics.EVENTS_DROPPED.remove("internal-error")
    Rejections()
    assert REGISTRY.get_sample_value("relay_events_dropped_total", {"reason": "internal-error"}) == 0

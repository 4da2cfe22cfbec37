"""Every drop is counted; the log is limited per host and reason, and silent about ordinary replay."""

import contextlib
import logging
import time

import pytest
from prometheus_client import REGISTRY

from relay.ingest.rejections import LINES_PER_WINDOW, Rejections
from relay.kit import metrics
from tests.support.hosts import known_host


def dropped(reason: str) -> float:
    return metrics.EVENTS_DROPPED.labels(reason)._value.get()


def test_drops_are_counted_and_logged_within_limits(caplog: pytest.LogCaptureFixture) -> None:
    rejections = Rejections()
    one, other = known_host(id=1, hostname="a.example"), known_host(id=2, hostname="b.example")
    before = dropped("wrong-host")
    with caplog.at_level(logging.WARNING):
        for seq in range(100):
            rejections.note(one, "wrong-host", "did:web:x.example", seq)
        rejections.note(other, "wrong-host", "did:web:x.example", 1)
    assert dropped("wrong-host") - before == 101
    lines = [record.getMessage() for record in caplog.records]
    assert sum("host=a.example" in line for line in lines) == LINES_PER_WINDOW
    assert sum("host=b.example" in line for line in lines) == 1
    assert one.drops.last_day(time.time()) == {"wrong-host": 100}
    assert other.drops.last_day(time.time()) == {"wrong-host": 1}


def test_replayed_events_are_counted_but_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    before = dropped("rev-old")
    host = known_host()
    Rejections().note(host, "rev-old", "did:web:x.example", 1)
    assert host.drops.last_day(time.time()) == {}
    assert dropped("rev-old") == before + 1 and not caplog.records


def test_the_first_bug_is_a_rise_for_the_alert() -> None:
    with contextlib.suppress(KeyError):
        metrics.EVENTS_DROPPED.remove("internal-error")
    Rejections()
    assert REGISTRY.get_sample_value("relay_events_dropped_total", {"reason": "internal-error"}) == 0

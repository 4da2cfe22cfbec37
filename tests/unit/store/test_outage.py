"""One line when the database goes away and one when it is back, however many wait for it."""

from __future__ import annotations

import logging

import pytest

from relay.kit.errors import StoreError
from relay.store.outage import SAID_EVERY_SECONDS, Outage

AWAY = StoreError("store-unavailable", "no answer")


def test_an_outage_is_two_lines_and_one_more_each_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    outage = Outage(lambda: now)
    with caplog.at_level(logging.INFO):
        for _ in range(500):
            outage.note(AWAY)
        now += SAID_EVERY_SECONDS
        outage.note(AWAY)
        now += 5
        outage.end()
        outage.end()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert "no answer" in caplog.text and f"after {SAID_EVERY_SECONDS + 5:.1f} s" in caplog.text


def test_a_database_that_comes_and_goes_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(lambda: 1000.0)
    with caplog.at_level(logging.INFO):
        for _ in range(100):
            outage.note(AWAY)
            outage.end()
    assert len(caplog.records) <= 3


def test_a_refusal_is_not_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    outage.note(StoreError("store-behind", "later"))
    outage.end()
    assert not caplog.records

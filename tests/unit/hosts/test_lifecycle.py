"""The table of transitions: its rules, and that the documentation shows the same one."""

from pathlib import Path

import pytest

from relay.hosts.lifecycle import (
    ATTEMPTS_BEFORE_OFFLINE,
    TRANSITIONS,
    Cause,
    Status,
    after,
    failures_after,
    retry_delay,
    status_of,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "hosts.md"


def test_only_an_unblock_leads_out_of_banned() -> None:
    leaving = {cause for cause in Cause if after(Status.BANNED, cause) not in (None, Status.BANNED)}
    assert leaving == {Cause.UNBLOCKED}


def test_a_crawl_request_wakes_idle_and_offline_hosts() -> None:
    for status in (Status.IDLE, Status.OFFLINE):
        assert after(status, Cause.CRAWL_REQUESTED) is Status.ACTIVE


def test_every_state_but_banned_can_be_banned_and_no_state_is_a_trap() -> None:
    for status in Status:
        assert after(status, Cause.BLOCKED) is Status.BANNED
        ways_out = {after(status, cause) for cause in Cause} - {None, status}
        assert ways_out, status


@pytest.mark.parametrize("stored", ["exhausted", "", "Active", "blocked"])
def test_a_status_of_another_relays_table_is_looked_at_in_some_hours(stored: str) -> None:
    assert status_of(stored) is Status.OFFLINE


def test_each_status_is_what_the_table_says() -> None:
    assert [status_of(status.value) for status in Status] == list(Status)


def test_every_cause_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Cause)


def test_the_documented_table_is_this_table() -> None:
    text = DOCUMENT.read_text()
    heading, _, *rows = text.split("<!-- transitions -->\n")[1].split("<!-- /transitions -->")[0].splitlines()
    states = [cell.strip() for cell in heading.strip("|").split("|")][2:]
    assert states == list(Status)
    documented = {}
    for row in rows:
        cause, _, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        documented[cause] = dict(zip(states, [cell or None for cell in cells], strict=True))
    assert documented == {cause: {status: after(status, cause) for status in Status} for cause in Cause}


def test_delays_double_to_minutes_and_are_spread() -> None:
    assert [retry_delay(failures, 0.5) for failures in (1, 2, 3, 9, 10, 1_000)] == [1, 2, 4, 256, 300, 300]
    assert retry_delay(10, 0.0) == 150
    assert retry_delay(10, 0.999) > 449


def test_a_connection_that_soon_ends_counts_as_a_failure_and_a_steady_one_starts_anew() -> None:
    assert failures_after(3, 0.0) == 4
    assert failures_after(3, 59.0) == 4
    assert failures_after(14, 61.0) == 1


def test_a_short_connection_that_brought_events_is_tried_again_in_seconds() -> None:
    failures = 0
    for _ in range(2 * ATTEMPTS_BEFORE_OFFLINE):
        failures = failures_after(failures, 1.0, brought_events=True)
    assert failures < ATTEMPTS_BEFORE_OFFLINE and retry_delay(failures, 0.5) == 8
    assert failures_after(14, 1.0, brought_events=True) < ATTEMPTS_BEFORE_OFFLINE

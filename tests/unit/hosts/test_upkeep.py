"""What time alone changes about a host."""

import pytest

from relay.hosts.lifecycle import Cause, Status
from relay.hosts.upkeep import due_change
from tests.unit.hosts.builders import NOW, upstream


def test_a_host_in_good_health_stays_as_it_is():
    assert due_change(upstream(), NOW, idle_after=0.0) is None
    assert due_change(upstream(last_event_at=NOW - 5), NOW, idle_after=60.0) is None


@pytest.mark.parametrize(("idle_after", "cause"), [(0.0, None), (500.0, Cause.QUIET), (700.0, None)])
def test_quiet_is_counted_from_the_connection_or_the_last_event(idle_after, cause):
    assert due_change(upstream(), NOW, idle_after) is cause
    assert due_change(upstream(last_event_at=NOW - 10_000), NOW, idle_after) is cause
    assert due_change(upstream(last_event_at=NOW - 100), NOW, idle_after) is None


def test_a_host_that_is_not_connected_is_left_alone():
    assert due_change(upstream(connected=False), NOW, idle_after=1.0) is None


def test_throttled_begins_with_a_wait_and_ends_ten_minutes_after_the_last():
    one = upstream()
    one.note_throttled("second", NOW)
    assert due_change(one, NOW, 0.0) is None
    one.note_throttled("hour", NOW)
    assert due_change(one, NOW + 1, 0.0) is Cause.LIMIT_REACHED
    one.status = Status.THROTTLED
    assert due_change(one, NOW + 599, 0.0) is None
    assert due_change(one, NOW + 601, 0.0) is Cause.LIMIT_CLEARED


def test_a_steady_connection_takes_the_failures_back():
    one = upstream(failures=7)
    one.connected_at = NOW - 30
    due_change(one, NOW, 0.0)
    assert one.row.failures == 7
    due_change(one, NOW + 31, 0.0)
    assert one.row.failures == 0
    assert one.changed


def test_a_connected_host_is_noted_as_seen_now_and_then():
    one = upstream()
    due_change(one, NOW, 0.0)
    assert not one.changed
    due_change(one, NOW + 1, 0.0)
    assert one.changed
    assert one.row.last_connected_at == NOW + 1

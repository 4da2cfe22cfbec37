"""A host's rates, what was dropped of it, and what time alone changes about it."""

import pytest

from relay.hosts.host import Drops
from relay.hosts.lifecycle import Cause, Status
from relay.hosts.rates import TRUSTED_RATES, rates_for
from tests.support.hosts import NOW, known_host

HOUR = 3600.0


def test_the_rates_follow_a_row_that_changes() -> None:
    host = known_host()
    assert host.rates == rates_for(host.account_limit, trusted=False)
    host.row.account_limit += 10_000
    assert host.rates == rates_for(host.account_limit, trusted=False)
    host.row.per_hour = 7
    assert host.rates.hour == 7
    host.row.per_hour, host.row.trusted = None, True
    assert host.rates == TRUSTED_RATES


def test_drops_are_counted_by_reason() -> None:
    drops = Drops()
    for reason in ("signature-invalid", "rev-future", "signature-invalid"):
        drops.note(reason, 1000 * HOUR)
    assert drops.last_day(1000 * HOUR) == {"signature-invalid": 2, "rev-future": 1}
    assert drops.total(1000 * HOUR) == 3
    assert Drops().last_day(1000 * HOUR) == {}


def test_a_day_later_they_are_forgotten() -> None:
    drops = Drops()
    drops.note("rev-future", 1000 * HOUR)
    assert drops.last_day(1023 * HOUR) == {"rev-future": 1}
    assert [drops.total(hour * HOUR) for hour in (1023, 1024)] == [1, 0]
    assert drops.last_day(1024 * HOUR) == {}
    assert drops._hours == {}


def test_a_host_that_drops_for_ever_takes_a_day_of_room() -> None:
    drops = Drops()
    for hour in range(1000):
        drops.note("rev-future", hour * HOUR)
    assert len(drops._hours) <= 24


def test_a_host_in_good_health_stays_as_it_is() -> None:
    assert known_host().due_change(NOW, idle_after=0.0) is None
    assert known_host(last_event_at=NOW - 5).due_change(NOW, idle_after=60.0) is None


@pytest.mark.parametrize(("idle_after", "cause"), [(0.0, None), (500.0, Cause.QUIET), (700.0, None)])
def test_quiet_is_counted_from_the_connection_or_the_last_event(idle_after: float, cause: str) -> None:
    assert known_host().due_change(NOW, idle_after) is cause
    assert known_host(last_event_at=NOW - 10_000).due_change(NOW, idle_after) is cause
    assert known_host(last_event_at=NOW - 100).due_change(NOW, idle_after) is None


def test_a_host_that_is_not_connected_is_left_alone() -> None:
    assert known_host(connected=False).due_change(NOW, idle_after=1.0) is None


def test_throttled_begins_with_a_wait_and_ends_ten_minutes_after_the_last() -> None:
    one = known_host()
    one.note_throttled("second", NOW)
    assert one.due_change(NOW, 0.0) is None
    one.note_throttled("hour", NOW)
    assert one.due_change(NOW + 1, 0.0) is Cause.LIMIT_REACHED
    one.status = Status.THROTTLED
    assert one.due_change(NOW + 599, 0.0) is None
    assert one.due_change(NOW + 601, 0.0) is Cause.LIMIT_CLEARED
    # A clock that was set back by a day.
    assert one.due_change(NOW - 86_400, 0.0) is Cause.LIMIT_CLEARED


def test_a_steady_connection_takes_the_failures_back() -> None:
    one = known_host(failures=7)
    one.connected_at = NOW - 30
    one.due_change(NOW, 0.0)
    assert one.row.failures == 7
    one.due_change(NOW + 31, 0.0)
    assert one.row.failures == 0
    assert one.changed


def test_a_connected_host_is_noted_as_seen_now_and_then() -> None:
    one = known_host()
    one.due_change(NOW, 0.0)
    assert not one.changed
    one.due_change(NOW + 1, 0.0)
    assert one.changed
    assert one.row.last_connected_at == NOW + 1

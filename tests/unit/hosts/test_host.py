"""A host's budget, its rates, what was dropped of it, and what time alone changes about it."""

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.hosts import host as host_module
from relay.hosts.host import MILLISECONDS, TRUSTED_RATES, Budget, Drops, Limiter, Rates, rates_for
from relay.hosts.lifecycle import Cause, Status
from relay.kit.limits import Window
from tests.support.hosts import NOW, known_host

NO_LIMIT = 10**9
HOUR = 3600.0


def test_a_full_budget_blocks_until_room_is_released() -> None:
    budget = Budget()
    budget.take(host_module.MAX_BYTES_IN_FLIGHT)
    assert budget.full and not budget.wait_for_room(0.01)
    waiter = gevent.spawn(budget.wait_for_room, 5)
    gevent.sleep(0)
    assert not waiter.ready()
    budget.release(host_module.MAX_BYTES_IN_FLIGHT)
    assert waiter.get(timeout=1)


def test_the_number_of_events_is_bounded_as_well() -> None:
    budget = Budget()
    for _ in range(host_module.MAX_EVENTS_IN_FLIGHT):
        assert not budget.full
        budget.take(1)
    assert budget.full


def admitted(limit: int, until: int, rates: Rates) -> list[int]:
    """The milliseconds at which a host that sends as fast as it may gets its messages through."""
    times: list[int] = []
    limiter, now = Limiter(), 5_000
    while now < 5_000 + until and len(times) < limit:
        wait, _ = limiter.take(now, rates)
        if wait:
            now += wait
        else:
            times.append(now)
    return times


def test_the_formula_is_the_reference_relays() -> None:
    assert rates_for(100, trusted=False) == (50, 2_600, 21_000)
    assert rates_for(20_000, trusted=False) == (70, 22_500, 220_000)
    assert rates_for(100, trusted=True) == TRUSTED_RATES == (5_000, 50_000_000, 500_000_000)


def test_a_greedy_host_gets_its_rate_and_no_more() -> None:
    times = admitted(10_000, 60_000, Rates(50, NO_LIMIT, NO_LIMIT))
    assert 0.9 * 50 * 60 <= len(times) <= 51 * 60


def test_there_is_no_second_burst_at_the_turn_of_the_second() -> None:
    limiter, rates = Limiter(), Rates(50, NO_LIMIT, NO_LIMIT)
    before = sum(limiter.take(5_990, rates)[0] == 0 for _ in range(100))
    after = sum(limiter.take(6_010, rates)[0] == 0 for _ in range(100))
    assert before == 50
    assert after <= 1


def test_the_tier_that_makes_it_wait_longest_is_named() -> None:
    limiter, rates = Limiter(), Rates(10, 20, NO_LIMIT)
    now = 0
    for _ in range(20):
        while limiter.take(now, rates)[0]:
            now += 100
    wait, tier = limiter.take(now, rates)
    assert tier == "hour"
    assert wait > 1_000_000


def test_a_raised_limit_counts_at_once() -> None:
    limiter = Limiter()
    for _ in range(50):
        assert limiter.take(1_000, Rates(50, NO_LIMIT, NO_LIMIT)) == (0, "")
    assert limiter.take(1_000, Rates(50, NO_LIMIT, NO_LIMIT))[0]
    assert limiter.take(1_000, Rates(60, NO_LIMIT, NO_LIMIT)) == (0, "")


class PlainLimiter:
    """All three windows looked at and counted in for each message."""

    def __init__(self) -> None:
        self._windows = {tier: Window(span) for tier, span in MILLISECONDS.items()}

    def take(self, now: int, rates: Rates) -> tuple[int, str]:
        wait, tier = max((self._windows[tier].wait(now, limit), tier) for tier, limit in rates._asdict().items())
        if wait:
            return wait, tier
        for window in self._windows.values():
            window.add(now)
        return 0, ""

    def last_day(self, now: int) -> float:
        return self._windows["day"].used(now)


PACES = st.sampled_from([0, 1, 7, 150, 990, 60_000, 1_800_000, 3_599_990, 80_000_000])


@given(st.lists(st.tuples(PACES, st.sampled_from([Rates(3, 5, 9), Rates(4, 20, 30), Rates(0, 5, 9)])), max_size=80))
def test_looking_at_the_slower_limits_now_and_then_comes_to_the_same(messages: list[tuple[int, Rates]]) -> None:
    limiter, plain, now = Limiter(), PlainLimiter(), 5_000
    for number, (pause, rates) in enumerate(messages):
        now += pause
        wait, tier = plain.take(now, rates)
        assert limiter.take(now, rates)[0] == wait, tier
        if number % 5 == 0:
            assert limiter.last_day(now) == plain.last_day(now)


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

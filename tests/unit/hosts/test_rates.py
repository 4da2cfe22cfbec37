"""How fast a host sends: it gets its rate and no more, however its messages come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.hosts.rates import MILLISECONDS, TRUSTED_RATES, Limiter, Rates, Window, rates_for

NO_LIMIT = 10**9


def test_a_limit_of_zero_lets_nothing_through_and_does_not_divide_by_it() -> None:
    assert Window(1_000).wait(123, 0) == 1_000


@given(
    st.lists(st.integers(0, 3_000), min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(0, 10**9),
)
def test_a_wait_is_long_enough_and_hardly_longer(gaps: list[int], limit: int, start: int) -> None:
    window, now = Window(1_000), start
    for gap in gaps:
        now += gap
        wait = window.wait(now, limit)
        if wait:
            assert window.used(now) + 1 > limit
            assert wait <= 2_001
            now += wait
        assert window.wait(now, limit) == 0
        window.add(now)
        assert window.used(now) <= limit + 1e-6


@given(st.lists(st.integers(-50, 1_500), min_size=1, max_size=60), st.integers(0, 5), st.integers(0, 10**9))
def test_taking_is_waiting_for_nothing_and_adding(gaps: list[int], limit: int, start: int) -> None:
    """A clock that goes back included."""
    window, other, now = Window(1_000), Window(1_000), start + 100_000
    for gap in gaps:
        now += gap
        wait = other.wait(now, limit)
        if not wait:
            other.add(now)
        assert window.take(now, limit) == wait
        assert window.state == other.state


def test_a_clock_set_back_forgets_nothing() -> None:
    window = Window(1_000)
    for _ in range(5):
        window.add(10_500)
    window.add(9_200)
    assert window.state == (10, 0, 6)


def test_what_a_clock_counted_that_was_far_ahead_does_not_stand_until_then() -> None:
    window = Window(1_000)
    for _ in range(5):
        window.add(1_000_000_500)
    assert window.wait(10_500, 5) > 0 and window.used(10_500) == 5.0
    assert window.used(11_250) == 5 * 0.75 and window.wait(11_250, 5) == 0
    assert window.used(12_000) == 0.0


def test_a_window_survives_its_storage() -> None:
    window = Window(1_000)
    for now in (500, 900, 1_100):
        window.add(now)
    assert Window(1_000, *window.state).used(1_500) == window.used(1_500) == 2.0


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


@pytest.mark.parametrize(
    ("rates", "tier"), [(Rates(3, 90, 90), "second"), (Rates(90, 3, 90), "hour"), (Rates(90, 90, 3), "day")]
)
def test_each_limit_holds_by_itself(rates: Rates, tier: str) -> None:
    limiter = Limiter()
    assert [limiter.take(5_000, rates) for _ in range(3)] == [(0, "")] * 3
    assert limiter.take(5_000, rates)[1] == tier


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

"""What a host may take: how fast it sends, what it has under way, and its share of CPU time, for which it waits only
while others have work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.hosts import budgets
from relay.hosts.budgets import (
    MILLISECONDS,
    QUANTUM,
    TRUSTED_RATES,
    Budget,
    Limiter,
    Rates,
    Share,
    Shares,
    Window,
    rates_for,
)

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


def test_a_full_budget_blocks_until_room_is_released() -> None:
    budget = Budget()
    for _ in range(2):
        budget.take(budgets.MAX_BYTES_IN_FLIGHT)
        assert budget.full and not budget.wait_for_room(0.01)
        waiter = gevent.spawn(budget.wait_for_room, 600)
        gevent.sleep(0)
        assert not waiter.ready()
        budget.release(budgets.MAX_BYTES_IN_FLIGHT)
        assert waiter.get(timeout=60)


def test_the_number_of_events_is_bounded_as_well() -> None:
    budget = Budget()
    for _ in range(budgets.MAX_EVENTS_IN_FLIGHT):
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


@contextmanager
def work_of(share: Share) -> Iterator[None]:
    share.begin()
    yield
    share.end()


def started(share: Share, seconds: float = QUANTUM) -> gevent.Greenlet[..., bool]:
    """A piece of work of `seconds`, as far as it gets now."""
    taking = gevent.spawn(share.take, seconds)
    gevent.sleep(0.01)
    return taking


def test_a_host_alone_gets_everything() -> None:
    share = Share(Shares())
    with gevent.Timeout(60):
        for _ in range(1000):
            share.take(10 * QUANTUM)


def test_a_host_in_debt_waits_while_another_has_work_and_credit() -> None:
    shares = Shares()
    greedy, modest = Share(shares), Share(shares)
    greedy.take(3 * QUANTUM)
    modest.begin()
    waiting = started(greedy)
    assert not waiting.ready()
    modest.end()
    waiting.get(timeout=60)


def test_it_waits_until_the_other_has_used_up_as_much() -> None:
    shares = Shares()
    greedy, modest = Share(shares), Share(shares)
    greedy.take(3.5 * QUANTUM)
    with work_of(modest):
        waiting = started(greedy)
        for _ in range(2):
            modest.charge(1.01 * QUANTUM)
            gevent.sleep(0.01)
            assert not waiting.ready()
        modest.charge(1.01 * QUANTUM)
        waiting.get(timeout=60)


def test_those_that_always_have_work_get_as_much_as_one_another() -> None:
    shares = Shares()
    prices = {Share(shares): price for price in (QUANTUM / 20, QUANTUM / 2, 7 * QUANTUM)}
    taken = dict.fromkeys(prices, 0.0)

    def work(share: Share) -> None:
        while sum(taken.values()) < 300 * QUANTUM:
            share.take(prices[share])
            with work_of(share):
                gevent.sleep(0)
                taken[share] += prices[share]

    gevent.joinall([gevent.spawn(work, share) for share in prices], timeout=60, raise_error=True)
    assert all(75 * QUANTUM < spent < 125 * QUANTUM for spent in taken.values()), taken.values()


def test_what_was_charged_in_advance_is_given_back_and_no_more_than_a_round_is_saved() -> None:
    shares = Shares()
    share, other = Share(shares), Share(shares)
    with work_of(other):
        share.take(5 * QUANTUM)
        waiting = started(share)
        assert not waiting.ready()
        share.charge(-4.5 * QUANTUM)
        waiting.get(timeout=60)
    share.charge(-100 * QUANTUM)
    assert share.credit <= QUANTUM
    shares.round += 100
    assert share.credit <= QUANTUM


def test_those_of_one_host_go_on_in_order_and_only_as_its_credit_allows() -> None:
    shares = Shares()
    share, other = Share(shares), Share(shares)
    done: list[int] = []

    def work(number: int) -> None:
        share.take(0.6 * QUANTUM)
        done.append(number)

    share.take(2 * QUANTUM)
    other.begin()
    working = [gevent.spawn(work, number) for number in range(10)]
    gevent.sleep(0.01)
    assert done == []
    for _ in range(2):
        other.charge(1.01 * QUANTUM)
        gevent.sleep(0.02)
    assert len(done) <= 2
    other.end()
    gevent.joinall(working, timeout=60, raise_error=True)
    assert done == list(range(10))


def test_one_that_comes_as_another_of_its_host_is_called_waits_for_that_one() -> None:
    shares = Shares()
    share, other = Share(shares), Share(shares)
    with work_of(other):
        share.take(2 * QUANTUM)
        waiting = started(share)
        share.charge(-3 * QUANTUM)
        with gevent.Timeout(60):
            assert share.take(QUANTUM / 10), "there is credit, but it is not its turn"
        assert waiting.ready()


def test_work_that_is_held_up_elsewhere_stops_others_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "WAIT_SECONDS", 0.05)
    shares = Shares()
    greedy, stuck = Share(shares), Share(shares)
    greedy.take(3 * QUANTUM)
    with work_of(stuck):
        for _ in range(3):
            started(greedy).get(timeout=60)


def test_one_that_is_killed_while_it_waits_lets_the_next_one_go_on() -> None:
    shares = Shares()
    greedy, modest = Share(shares), Share(shares)
    greedy.take(3 * QUANTUM)
    modest.begin()
    first, second = started(greedy), started(greedy)
    first.kill()
    modest.end()
    second.get(timeout=60)
    assert not shares.waiting and not shares.working

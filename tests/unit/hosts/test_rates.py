"""The sliding windows: never over the limit by more than their approximation, no burst at a full second."""

from hypothesis import given
from hypothesis import strategies as st

from relay.hosts.limits import TRUSTED_RATES, Limiter, Rates, Window, rates_for

NO_LIMIT = 10**9


def admitted(limit: int, until: int, rates: Rates) -> list[int]:
    """The milliseconds at which a host that sends as fast as it may gets its messages through."""
    limiter, now, times = Limiter(), 5_000, []
    while now < 5_000 + until and len(times) < limit:
        wait, _ = limiter.take(now, rates)
        if wait:
            now += wait
        else:
            times.append(now)
    return times


def test_the_formula_is_the_reference_relays():
    assert rates_for(100, trusted=False) == (50, 2_600, 21_000)
    assert rates_for(20_000, trusted=False) == (70, 22_500, 220_000)
    assert rates_for(100, trusted=True) == TRUSTED_RATES == (5_000, 50_000_000, 500_000_000)


def test_a_greedy_host_gets_its_rate_and_no_more():
    times = admitted(10_000, 60_000, Rates(50, NO_LIMIT, NO_LIMIT))
    assert 0.9 * 50 * 60 <= len(times) <= 51 * 60


def test_there_is_no_second_burst_at_the_turn_of_the_second():
    limiter, rates = Limiter(), Rates(50, NO_LIMIT, NO_LIMIT)
    before = sum(limiter.take(5_990, rates)[0] == 0 for _ in range(100))
    after = sum(limiter.take(6_010, rates)[0] == 0 for _ in range(100))
    assert before == 50
    assert after <= 1


def test_the_tier_that_makes_it_wait_longest_is_named():
    limiter, rates = Limiter(), Rates(10, 20, NO_LIMIT)
    now = 0
    for _ in range(20):
        while limiter.take(now, rates)[0]:
            now += 100
    wait, tier = limiter.take(now, rates)
    assert tier == "hour"
    assert wait > 1_000_000


def test_a_raised_limit_counts_at_once():
    limiter = Limiter()
    for _ in range(50):
        assert limiter.take(1_000, Rates(50, NO_LIMIT, NO_LIMIT)) == (0, "")
    assert limiter.take(1_000, Rates(50, NO_LIMIT, NO_LIMIT))[0]
    assert limiter.take(1_000, Rates(60, NO_LIMIT, NO_LIMIT)) == (0, "")


def test_a_limit_of_zero_lets_nothing_through_and_does_not_divide_by_it():
    assert Window(1_000).wait(123, 0) == 1_000


@given(
    st.lists(st.integers(0, 3_000), min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(0, 10**9),
)
def test_a_wait_is_long_enough_and_hardly_longer(gaps, limit, start):
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


def test_a_clock_set_back_forgets_nothing():
    window = Window(1_000)
    for _ in range(5):
        window.add(10_500)
    window.add(9_200)
    assert window.state == (10, 0, 6)


def test_a_window_survives_its_storage():
    window = Window(1_000)
    for now in (500, 900, 1_100):
        window.add(now)
    assert Window(1_000, *window.state).used(1_500) == window.used(1_500) == 2.0

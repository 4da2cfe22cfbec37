"""Paces, allowances, tallies and windows, with the time passed in."""

from __future__ import annotations

import pytest

from relay.kit.limits import Allowance, Pace, Paces, Places, Tally


def test_a_pace_lets_a_burst_through_and_then_spaces_evenly() -> None:
    pace = Pace(per_second=10, burst=3)
    assert [round(pace.reserve(100.0), 6) for _ in range(6)] == [0, 0, 0, 0.1, 0.2, 0.3]
    assert round(pace.reserve(100.35), 6) == 0.05


def test_a_pace_that_rested_does_not_save_up_more_than_its_burst() -> None:
    pace = Pace(per_second=10, burst=2)
    pace.reserve(0.0)
    assert [round(pace.reserve(1000.0), 6) for _ in range(3)] == [0, 0, 0.1]


def test_a_held_pace_gives_no_turn_until_then() -> None:
    pace = Pace(per_second=10, burst=5)
    pace.hold(50.0, 30.0)
    assert pace.reserve(60.0) == pytest.approx(20.0)
    assert pace.reserve(81.0) == 0.0


def test_paces_are_one_for_each_of_a_bounded_number_of_keys() -> None:
    paces: Paces[str] = Paces(per_second=10, burst=1, capacity=2)
    assert [round(paces.reserve("a", 100.0), 6) for _ in range(3)] == [0, 0.1, 0.2]
    assert paces.reserve("b", 100.0) == 0
    assert round(paces.reserve("a", 100.0), 6) == 0.3
    assert paces.reserve("c", 100.0) == 0 and len(paces) == 2
    assert paces.reserve("b", 100.0) == 0


def test_a_held_key_is_remembered_until_it_has_rested() -> None:
    paces: Paces[str] = Paces(per_second=10, burst=2, capacity=10)
    paces.hold("held", 100.0, 30.0)
    assert paces.reserve("other", 110.0) == 0 and paces.reserve("held", 110.0) == pytest.approx(20.0)


def test_an_allowance_gives_a_burst_then_one_an_interval_for_each_key() -> None:
    allowance: Allowance[str] = Allowance(burst=2, interval=60.0, capacity=10)
    assert [allowance.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert allowance.take("b", 0.0)
    assert not allowance.take("a", 59.0)
    assert allowance.take("a", 60.0)
    assert not allowance.take("a", 60.0)


@pytest.mark.parametrize(("burst", "interval"), [(10, 6.0), (30, 0.1), (200, 0.01), (1000, 0.6)])
@pytest.mark.parametrize("now", [0.1, 1234.567, 98765.4321, 4_000_000.7])
def test_a_burst_is_whole_at_any_time(burst: int, interval: float, now: float) -> None:
    allowance: Allowance[str] = Allowance(burst, interval, capacity=10)
    assert sum(allowance.take("a", now) for _ in range(2 * burst)) == burst
    assert not allowance.take("a", now + 0.9 * interval)
    assert allowance.take("a", now + interval)


def test_asking_in_vain_does_not_put_off_the_next_token() -> None:
    allowance: Allowance[str] = Allowance(burst=1, interval=60.0, capacity=10)
    assert allowance.take("a", 0.0)
    assert not any(allowance.take("a", float(second)) for second in range(1, 60))
    assert allowance.take("a", 60.0)


def test_a_token_that_is_given_back_can_be_taken_again() -> None:
    allowance: Allowance[str] = Allowance(burst=2, interval=60.0, capacity=10)
    allowance.give_back("a")
    assert [allowance.take("a", 0.0) for _ in range(3)] == [True, True, False]
    allowance.give_back("a")
    assert [allowance.take("a", 1.0) for _ in range(2)] == [True, False]
    for _ in range(5):
        allowance.give_back("a")
    assert [allowance.take("a", 2.0) for _ in range(3)] == [True, True, False]


def test_an_allowance_remembers_a_bounded_number_of_keys() -> None:
    allowance: Allowance[int] = Allowance(burst=1, interval=60.0, capacity=2)
    assert [allowance.take(key, 0.0) for key in (1, 2, 3)] == [True, True, True]
    assert not allowance.take(3, 0.0)
    assert allowance.take(1, 0.0)


def test_no_key_is_too_odd_to_be_forgotten() -> None:
    allowance: Allowance[str | None] = Allowance(burst=1, interval=60.0, capacity=1)
    for key in (None, "a", None, "b"):
        assert allowance.take(key, 0.0) and len(allowance) == 1


def test_an_allowance_forgets_keys_that_have_all_their_tokens_again() -> None:
    allowance: Allowance[int] = Allowance(burst=2, interval=60.0, capacity=1000)
    for turn in range(500):
        assert allowance.take(turn, now=float(turn))
    assert len(allowance) == 60
    assert allowance.take(499, 499.0) and not allowance.take(499, 499.0) and allowance.has(450, 499.0)


def test_a_key_that_is_refused_is_not_forgotten_for_others() -> None:
    """Asking in vain counts as use."""
    allowance: Allowance[str] = Allowance(burst=1, interval=1000.0, capacity=2)
    assert allowance.take("greedy", 0.0)
    for turn in range(5):
        assert allowance.take(f"other {turn}", 0.0)
        assert not allowance.take("greedy", 0.0)


def test_paces_forget_keys_that_have_rested() -> None:
    paces: Paces[int] = Paces(per_second=1, burst=3, capacity=1000)
    waits = [paces.reserve(turn, now=10.0 + turn) for turn in range(500)]
    assert not any(waits) and len(paces) <= 4
    assert [paces.reserve(500, 510.0) for _ in range(4)] == [0, 0, 0, 1]


def test_a_tally_counts_in_a_window_that_its_counts_do_not_make_longer() -> None:
    """One every 50 s never comes to more than two in a minute."""
    tally: Tally[str] = Tally(span=60.0, capacity=10)
    assert [tally.add("a", 50.0 * turn) for turn in range(6)] == [1, 2, 1, 2, 1, 2]
    assert tally.count("a", 250.0) == 2 and tally.ends_in("a", 250.0) == 10.0
    assert tally.count("a", 260.0) == 0 and tally.ends_in("a", 260.0) == 0.0


def test_a_tally_forgets_what_ended_and_what_is_over_its_bound() -> None:
    tally: Tally[int] = Tally(span=60.0, capacity=3)
    keys = tally.keys()
    for key in range(5):
        tally.add(key, float(key))
    assert list(keys) == [2, 3, 4]
    assert len(tally) == 3 and tally.count(0, 5.0) == 0 and tally.count(4, 5.0) == 1
    tally.add(9, 63.5)
    assert len(tally) == 2
    tally.forget(9)
    assert tally.count(9, 63.5) == 0


def test_asking_a_tally_changes_nothing() -> None:
    """A scrape asks from another thread."""
    tally: Tally[str] = Tally(span=1.0, capacity=3)
    tally.add("a", 0.0)
    assert tally.count("a", 5.0) == 0 and len(tally) == 1


def test_places_are_bounded_in_total_and_for_each_key() -> None:
    places: Places[str] = Places(total=3, per_key=2)
    assert [places.take(key) for key in ("a", "a", "a", None, "b")] == [True, True, False, True, False]
    assert len(places) == 3
    places.give_back("a")
    assert places.take("b") and not places.take("a")
    for key in ("a", "b", None):
        places.give_back(key)
    assert len(places) == 0 and not places._keys


def test_several_turns_are_as_many_single_ones() -> None:
    together, singly = Pace(10, 3), Pace(10, 3)
    for now, turns in ((100.0, 2), (100.05, 4), (100.1, 1), (300.0, 5)):
        waits = [singly.reserve(now) for _ in range(turns)]
        assert round(together.reserve(now, turns), 6) == round(max(waits), 6)

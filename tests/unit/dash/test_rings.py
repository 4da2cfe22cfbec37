"""Rings of figures: what a place holds, gaps, clocks that jump, a fixed size, bytes that are whole or refused."""

from __future__ import annotations

import math
from math import nan

import pytest

from relay.dash.rings import Rings, Series, Shape

SHAPES = (Shape(10, 6), Shape(60, 4))
SERIES = (Series("mean"), Series("peak", peak=True))


def rings() -> Rings:
    return Rings(SHAPES, SERIES)


def shown(found: Rings, now: float, name: str = "mean", step: int = 10) -> list[float | None]:
    return [None if math.isnan(value) else value for value in found.course(step, name, now).values]


def test_a_place_holds_the_mean_or_the_highest_of_what_fell_in_it() -> None:
    found = rings()
    for at, value in ((1000, 1.0), (1003, 3.0), (1009, 8.0), (1010, 5.0)):
        found.add(at, (value, value))
    assert shown(found, 1012)[-2:] == [4.0, 5.0]
    assert shown(found, 1012, "peak")[-2:] == [8.0, 5.0]
    assert shown(found, 1012, "peak", 60)[-1] == 8.0 and shown(found, 1012, "mean", 60)[-1] == 4.25


def test_what_is_not_known_changes_no_place() -> None:
    found = rings()
    for value in (nan, 2.0, nan):
        found.add(1000, (value, value))
    assert shown(found, 1000)[-1] == 2.0 and shown(found, 1000, "peak")[-1] == 2.0


def test_a_pause_is_a_gap_and_a_long_one_is_all_there_is() -> None:
    found = rings()
    for at in (1000, 1010, 1040):
        found.add(at, (1.0, 1.0))
    assert shown(found, 1040) == [None, 1.0, 1.0, None, None, 1.0]
    # What is older than the ring is not shown, although it is still in it.
    assert shown(found, 1060) == [1.0, None, None, 1.0, None, None]
    assert shown(found, 5000) == [None] * 6
    found.add(9000, (2.0, 2.0))
    assert shown(found, 9000) == [None] * 5 + [2.0]


def test_the_axis_ends_now() -> None:
    course = rings().course(10, "mean", 1234.0)
    assert (course.start, course.step, len(course.values)) == (1180, 10, 6)


@pytest.mark.parametrize("back", [10, 30, 1000, 10**9])
def test_a_clock_that_goes_back_forgets_the_future_and_goes_on(back: int) -> None:
    found = rings()
    for at in range(2 * 10**9, 2 * 10**9 + 60, 10):
        found.add(at, (1.0, 1.0))
    now = 2 * 10**9 + 50 - back
    found.add(now, (7.0, 7.0))
    found.add(now + 10, (8.0, 8.0))
    values = shown(found, now + 10)
    assert values[-2:] == [7.0, 8.0] and set(values) <= {None, 1.0, 7.0, 8.0}
    assert shown(found, now + 30)[-2:] == [None, None]


def test_the_size_is_the_same_however_much_is_added() -> None:
    found = rings()
    sizes = {len(found.to_bytes())}
    for at in range(0, 10**7, 37_123):
        found.add(at, (float(at), 0.0))
        sizes.add(len(found.to_bytes()))
    assert len(sizes) == 1 and found.capacity == 20


def test_bytes_give_it_back_and_it_goes_on() -> None:
    first, second, never = rings(), rings(), rings()
    for at in range(1000, 1200, 7):
        first.add(at, (at / 3, -1.0))
        never.add(at, (at / 3, -1.0))
    second.load(first.to_bytes())
    for one in (second, never):
        one.add(1201, (5.0, 5.0))
    assert second.to_bytes() == never.to_bytes()


def test_another_release_with_other_series_keeps_those_that_it_knows() -> None:
    first = rings()
    first.add(1000, (1.0, 2.0))
    other = Rings(SHAPES, (Series("new"), Series("peak", peak=True)))
    other.load(first.to_bytes())
    assert other.course(10, "peak", 1000).values[-1] == 2.0
    assert math.isnan(other.course(10, "new", 1000).values[-1])


def test_what_is_damaged_is_refused_and_changes_nothing() -> None:
    found = rings()
    found.add(1000, (1.0, 2.0))
    data = found.to_bytes()
    damaged = [data[:size] for size in range(len(data))]
    damaged += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))]
    damaged += [b"\0" * len(data), data + b"\0", Rings((Shape(10, 5),), SERIES).to_bytes()]
    for one in damaged:
        with pytest.raises(ValueError, match=r"cut short|resolutions"):
            found.load(one)
    assert found.to_bytes() == data

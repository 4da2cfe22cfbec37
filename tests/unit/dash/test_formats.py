"""How figures are written, at the edges of their units."""

from __future__ import annotations

import time
from typing import Any

import pytest

from relay.dash import formats


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        ("count", 1234567, "1,234,567"),
        ("rate", 0.0, "0"),
        ("rate", 0.04, "0.04"),
        ("rate", 3.14, "3.1"),
        ("rate", 1234.5, "1,234"),
        ("size", 0, "0 B"),
        ("size", 999, "999 B"),
        ("size", 1500, "1.5 KB"),
        ("size", 123_456_789, "123 MB"),
        ("size", 9.9e15, "9900 TB"),
        ("latency", 0.00001, "< 0.1 ms"),
        ("latency", 0.0042, "4.2 ms"),
        ("latency", 0.25, "250 ms"),
        ("latency", 2.5, "2.5 s"),
        ("span", 0, "0 s"),
        ("span", 0.4, "0.4 s"),
        ("span", 119, "119 s"),
        ("span", 120, "2 min"),
        ("span", 200_000, "2 d"),
        ("moment", 0, "1970-01-01 00:00:00 UTC"),
        ("moment", None, formats.NOTHING),
        ("ago", None, "never"),
    ],
)
def test_a_value_is_shown_in_its_form(form: str, value: Any, expected: str) -> None:
    assert formats.FILTERS[form](value) == expected


def test_times_around_now() -> None:
    now = time.time()
    assert formats.ago(now - 30) == "30 s ago" and formats.ago(now + 30) == "0 s ago"
    assert formats.until(now + 30.2) == "in 30 s" and formats.until(now - 5) == "in 0 s"


def test_a_spark_stays_in_its_box() -> None:
    for values in ([], [0.0], [5.0], [0.0, 0.0], [0.0, 1e9, 3.0]):
        points = [tuple(map(float, point.split(","))) for point in formats.spark(values).split()]
        assert len(points) == len(values)
        assert all(0 <= x <= formats.SPARK_WIDTH and 0 <= y <= formats.SPARK_HEIGHT for x, y in points)
    assert formats.spark([0.0, 10.0]) == "0.0,39.0 240.0,1.0"

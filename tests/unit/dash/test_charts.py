"""Charts: round marks, lines in their box, gaps, and a chart that is made once however many look."""

from __future__ import annotations

import re
import time
from math import inf, nan
from pathlib import Path

import pytest

from relay.dash import charts
from relay.dash.charts import HEIGHT, SUBJECTS, Charts, draw
from relay.dash.past import RANGES, SERIES, Past
from tests.support.dash_week import plant_week

NOW = 1_800_000_000.0


def subject(key: str) -> charts.Subject:
    return next(one for one in SUBJECTS if one.key == key)


@pytest.mark.parametrize(
    ("top", "whole", "step"),
    [
        (1.0, False, 0.5),
        (0.01, False, 0.005),
        (7.3, False, 2.0),
        (980.0, False, 500.0),
        (4, True, 1.0),
        (1e12, False, 5e11),
    ],
)
def test_marks_are_round(top: float, whole: bool, step: float) -> None:
    assert charts.round_step(top, whole=whole) == pytest.approx(step)


def test_a_line_has_gaps_and_a_lone_place_is_a_dot() -> None:
    assert charts.path([nan, 1.0, 2.0, nan, 4.0], 4.0) == "M1 750L2 500M4 0L4 0"
    assert charts.path([1.0, 2.0], 4.0, closed=True) == "M0 1000L0 750 1 500 1 1000Z"
    assert charts.path([nan, nan], 4.0) == ""


def test_every_series_is_drawn_once() -> None:
    drawn = [series for one in SUBJECTS for series, _ in one.lines]
    assert sorted(drawn) == sorted(one.name for one in SERIES)


@pytest.mark.parametrize("range_name", RANGES)
def test_a_week_is_drawn_inside_its_box(tmp_path: Path, range_name: str) -> None:
    plant_week(tmp_path, NOW)
    past = Past(tmp_path)
    for one in SUBJECTS:
        chart = draw(past, one, range_name, NOW)
        assert not chart.empty and "highest" in chart.summary
        for line in chart.lines:
            numbers = [int(number) for number in re.findall(r"\d+", line.path)]
            assert max(numbers[::2]) < chart.places and max(numbers[1::2]) <= HEIGHT
            assert len(line.values.split("|")) == chart.places
        assert 4 <= len(chart.values) <= 11 and chart.values[0].words == "0"
        assert len({mark.words for mark in chart.values}) == len(chart.values), one
        assert 5 <= len(chart.times) <= 7
        assert all(0 < float(mark.at) < 100 for mark in chart.times)


def test_without_anything_recorded_there_are_axes_and_words() -> None:
    for one in SUBJECTS:
        chart = draw(Past(), one, "1h", NOW)
        assert chart.empty and chart.values and chart.times and "nothing was recorded" in chart.summary
        assert all(line.path == "" and line.last == "\N{EN DASH}" for line in chart.lines)


def test_what_is_no_number_is_not_drawn() -> None:
    past = Past()
    past.note(NOW, {"received": inf, "logged": 3.0})
    chart = draw(past, subject("events"), "1h", NOW)
    assert chart.lines[0].path == "" and chart.lines[1].path


def test_charts_are_made_once_for_all_who_look(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past()
    shown = Charts(past)
    past.note(time.time(), {"received": 1.0})
    first = shown.of("1h")
    assert shown.of("1h") is first and shown.of("7d") is not first
    past.note(time.time() + 15, {"received": 1.0})
    assert shown.of("1h") is not first

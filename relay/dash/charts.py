"""The charts of the overview: axes with round figures, lines as SVG paths, every value in words for the pointer.

Made from `past`, drawn by the template `charts.html`. A chart is made anew only when there is something new to draw,
however many look at it. Must not know of requests.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from relay.dash.formats import count, latency, rate, share, size
from relay.dash.past import RANGES, Past
from relay.dash.rings import Course
from relay.kit.background import in_turns

HEIGHT = 1000
"""Paths are drawn in a box of one unit per place, this high."""

# Times between two marks of the time axis, and how those are written.
TIME_MARKS = {"1h": (600, "%H:%M"), "24h": (14_400, "%H:%M"), "7d": (86_400, "%a")}
# Marks nearer than this to an end, in percent, would be cut off.
EDGE = 3.0
VALUE_MARKS = 4
# Of more lines than these, none is filled below.
MAX_FILLED = 2


class Unit(NamedTuple):
    """`words` stand beside the title; no axis ends below `least`."""

    words: str
    write: Callable[[float | None], str]
    least: float
    whole: bool = False


PER_SECOND = Unit("per second", rate, 1.0)
SECONDS = Unit("99 % are faster", latency, 0.01)
NUMBER = Unit("", count, 4.0, whole=True)
EVENTS = NUMBER._replace(words="events")
BYTES = Unit("", size, 1e6)
SHARE = Unit("% of a core", share, 0.1)


class Subject(NamedTuple):
    """What a chart shows: each line is a series of `past` and its name."""

    key: str
    title: str
    unit: Unit
    lines: tuple[tuple[str, str], ...]


# Of three places in a row on a wide page, events and latency take two: see dash.css.
SUBJECTS = (
    Subject("events", "Events", PER_SECOND, (("received", "received"), ("logged", "logged"))),
    Subject("dropped", "Events dropped", PER_SECOND, (("dropped", "dropped"),)),
    Subject(
        "latency",
        "Latency",
        SECONDS,
        (("queued-99", "in queue"), ("logged-99", "until durable"), ("sync-99", "disk sync"), ("hub-99", "hub lag")),
    ),
    Subject("sent", "Events sent", PER_SECOND, (("sent", "sent"),)),
    Subject("hosts", "Hosts connected", NUMBER, (("hosts", "connected"),)),
    Subject("consumers", "Consumers", NUMBER, (("consumers", "connected"),)),
    Subject("behind", "Lag", EVENTS, (("lag", "slowest consumer"), ("behind", "database"))),
    Subject("memory", "Memory", BYTES, (("memory", "main process"),)),
    Subject("cpu", "CPU", SHARE, (("cpu", "main process"),)),
    Subject("log", "Log on disk", BYTES, (("log-bytes", "segments"),)),
)


class Mark(NamedTuple):
    """A mark on an axis: `at` in percent, from the left or from the top."""

    at: str
    words: str


@dataclass(frozen=True, slots=True)
class Line:
    """`path` is its line, `area` what lies below it, of the first line at most; `values` has a text per place."""

    name: str
    last: str
    path: str
    area: str
    values: str


@dataclass(frozen=True, slots=True)
class Chart:
    """`summary` is for those who do not see it. `start` and `step` are in Unix seconds."""

    subject: Subject
    start: int
    step: int
    places: int
    lines: list[Line]
    values: list[Mark]
    times: list[Mark]
    summary: str
    empty: bool


class Charts:
    """The charts of `past`, made when they are asked for and something has changed."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._made: dict[str, tuple[int, list[Chart]]] = {}

    def of(self, range_name: str) -> list[Chart]:
        """All charts of one of RANGES, as of the newest place."""
        version = self._past.version
        made = self._made.get(range_name)
        if made is None or made[0] != version:
            now = time.time()
            made = version, [draw(self._past, subject, range_name, now) for subject in in_turns(SUBJECTS)]
            self._made[range_name] = made
        return made[1]


def draw(past: Past, subject: Subject, range_name: str, now: float) -> Chart:
    """One chart, whose time axis ends at `now`."""
    courses = [past.course(range_name, series, now) for series, _ in subject.lines]
    values = [[value if math.isfinite(value) else math.nan for value in course.values] for course in courses]
    known = [value for line in values for value in line if not math.isnan(value)]
    step = round_step(max([*known, subject.unit.least]), whole=subject.unit.whole)
    top = step * math.ceil(max([*known, subject.unit.least]) / step)
    lines = [
        Line(
            name,
            subject.unit.write(last_of(line)),
            path(line, top),
            path(line, top, closed=True) if number == 0 and len(values) <= MAX_FILLED else "",
            "|".join("" if math.isnan(value) else subject.unit.write(value) for value in line),
        )
        for number, ((_, name), line) in enumerate(zip(subject.lines, values, strict=True))
    ]
    marks = [step * number for number in range(round(top / step) + 1)]
    return Chart(
        subject,
        courses[0].start,
        courses[0].step,
        RANGES[range_name].slots,
        lines,
        [Mark(f"{100 * (1 - value / top):.2f}", _round_words(subject.unit, value)) for value in marks],
        list(time_marks(courses[0], range_name)),
        _summary(subject, lines, known),
        not known,
    )


def round_step(top: float, *, whole: bool = False) -> float:
    """The distance of VALUE_MARKS marks or a few more up to `top`: one, two or five times a power of ten."""
    rough = top / VALUE_MARKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return max(1.0, step) if whole else step


def time_marks(course: Course, range_name: str) -> Iterable[Mark]:
    """Round times of UTC."""
    distance, form = TIME_MARKS[range_name]
    width = course.step * (len(course.values) - 1)
    at = -(-course.start // distance) * distance
    while at <= course.start + width:
        percent = 100 * (at - course.start) / width
        if EDGE <= percent <= 100 - EDGE:
            yield Mark(f"{percent:.2f}", time.strftime(form, time.gmtime(at)))
        at += distance


def path(values: Sequence[float], top: float, *, closed: bool = False) -> str:
    """The SVG path of a line with gaps where values are NaN; `closed` along the bottom, for what lies below it."""
    parts = []
    for run in _runs(values):
        points = [f"{place} {HEIGHT * (1 - min(max(values[place] / top, 0.0), 1.0)):.0f}" for place in run]
        if closed:
            parts.append(f"M{run[0]} {HEIGHT}L{' '.join(points)} {run[-1]} {HEIGHT}Z")
        else:
            # A line of no length is drawn as a dot.
            parts.append(f"M{points[0]}L{' '.join(points[1:] or points)}")
    return "".join(parts)


def last_of(values: Sequence[float]) -> float | None:
    """The newest value: of the last place, or the one before, which is whole already."""
    return next((value for value in reversed(values[-2:]) if not math.isnan(value)), None)


def _runs(values: Sequence[float]) -> Iterable[range]:
    begin = None
    for place, value in enumerate([*values, math.nan]):
        if math.isnan(value):
            if begin is not None:
                yield range(begin, place)
            begin = None
        elif begin is None:
            begin = place


def _round_words(unit: Unit, value: float) -> str:
    """How a mark is written: `20 GB`, where the value of a line would be `20.0 GB`."""
    return re.sub(r"\.0\b", "", unit.write(value)) if value else "0"


def _summary(subject: Subject, lines: Sequence[Line], known: Sequence[float]) -> str:
    if not known:
        return f"{subject.title}: nothing was recorded in this time"
    now = ", ".join(f"{line.name} {line.last}" for line in lines)
    return f"{subject.title} {subject.unit.words}: now {now}; highest {subject.unit.write(max(known))}"

"""How figures and times are written on the pages: short, and in a unit that a person reads at a glance.

FILTERS are registered for the templates by `routes`; `charts` writes its axes with them. Pure but for the clock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

NOTHING = "\N{EN DASH}"

_SIZES = ("B", "KB", "MB", "GB", "TB")
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def count(value: float | None) -> str:
    """A whole number, in groups of three digits."""
    return NOTHING if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """A number per second: with a decimal only where it says something."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"


def size(value: float | None) -> str:
    """Bytes, in the unit that leaves up to three digits before the point."""
    if value is None:
        return NOTHING
    power = 0
    while value >= 1000 and power < len(_SIZES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.1f} {_SIZES[power]}" if power and value < 100 else f"{value:.0f} {_SIZES[power]}"


def share(value: float | None) -> str:
    """A part of one, in percent."""
    return NOTHING if value is None else f"{100 * value:.0f} %"


def latency(seconds: float | None) -> str:
    """A short time: milliseconds below a second."""
    if seconds is None:
        return NOTHING
    if seconds >= 1:
        return f"{seconds:.1f} s"
    if seconds >= 0.01:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.0001 else "< 0.1 ms"


def span(seconds: float | None) -> str:
    """A length of time in its largest unit."""
    if seconds is None:
        return NOTHING
    for unit, name in _SPANS:
        if seconds >= unit * (2 if unit > 1 else 1):
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"


def ago(unix_seconds: float | None) -> str:
    """How long ago a moment is; moments ahead are now."""
    return "never" if unix_seconds is None else f"{span(max(0.0, time.time() - unix_seconds))} ago"


def until(unix_seconds: float | None) -> str:
    """How far ahead a moment is; moments that have passed are now."""
    return NOTHING if unix_seconds is None else f"in {span(max(0.0, unix_seconds - time.time()))}"


def moment(unix_seconds: float | None) -> str:
    """A moment in UTC."""
    if unix_seconds is None:
        return NOTHING
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


SPARK_WIDTH, SPARK_HEIGHT = 240, 40


def spark(values: Sequence[float]) -> str:
    """The points of a polyline that draws `values` in a box of SPARK_WIDTH by SPARK_HEIGHT, zero at the bottom."""
    top = max(values, default=0.0) or 1.0
    step = SPARK_WIDTH / max(len(values) - 1, 1)
    room = SPARK_HEIGHT - 2
    return " ".join(f"{index * step:.1f},{1 + room * (1 - value / top):.1f}" for index, value in enumerate(values))


FILTERS = {found.__name__: found for found in (count, rate, size, share, latency, span, ago, until, moment, spark)}

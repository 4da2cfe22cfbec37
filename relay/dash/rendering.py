"""Renders a page of an admin's, or an error, with what every page has around it; and how figures and times are written.

Used by `pages` and `actions`; the filters of the templates are registered by `routes`. Must not know what is on a page.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import Response, g, make_response, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from relay.dash import access
from relay.kit.errors import HostUnknown, RelayError, StoreError
from relay.web import params
from relay.web.errors import XrpcError
from relay.web.health import current_problem

NOTHING = "\N{EN DASH}"

_SIZES = ("B", "KB", "MB", "GB", "TB")
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Paging:
    """Where one page of `size` rows stands among `found`; pages count from 1."""

    page: int
    size: int
    found: int

    @classmethod
    def asked(cls, size: int) -> Paging:
        """The page that the request asks for, as long as nobody knows how many rows there are."""
        text = params.optional(request.args, "page")
        return cls(1 if text is None else params.whole_number(text, "page", minimum=1, maximum=100_000), size, 0)

    @property
    def start(self) -> int:
        """The row that the page starts with, counted from 0."""
        return (self.page - 1) * self.size

    @property
    def end(self) -> int:
        """The row after its last."""
        return min(self.start + self.size, self.found)

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, math.ceil(self.found / self.size))


def page(template: str, status: int = 200, **values: Any) -> Response:
    """The page of `template` for the admin who is logged in."""
    session = access.session()
    # The script asks for what is shown already: a notice would be told to nobody.
    notice = None if access.is_live() else session.take_notice()
    return make_response(
        render_template(template, csrf=session.csrf, problem=current_problem(), notice=notice, **values), status
    )


def error_page(error: Exception) -> Response:
    """What went wrong, in words, with the way back."""
    status, message = _status_and_words(error)
    inside = "session" in g
    return make_response(
        render_template("error.html", csrf=g.session.csrf if inside else None, status=status, message=message), status
    )


def _status_and_words(error: Exception) -> tuple[int, str]:
    if isinstance(error, XrpcError):
        return error.status, error.message
    if isinstance(error, HostUnknown):
        return 404, "No such host is known here."
    if isinstance(error, StoreError):
        return 503, "The database does not answer. The relay waits for it and goes on by itself."
    if isinstance(error, HTTPException):
        return error.code or 500, error.description or error.name
    assert isinstance(error, RelayError)
    return 503, str(error)


def chosen(name: str, among: Sequence[str], default: str) -> str:
    """The query's word for `name` when it is one of `among`."""
    word = request.args.get(name, default)
    return word if word in among else default


def linker(endpoint: str, shown: Mapping[str, Any], defaults: Mapping[str, Any]) -> Callable[..., str]:
    """A function that gives the address of the list that is shown, with some of its query changed."""

    def link(**changes: Any) -> str:
        query = {name: value for name, value in {**shown, **changes}.items() if value != defaults.get(name)}
        return url_for(endpoint, **query)

    return link


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


FILTERS = {found.__name__: found for found in (count, rate, size, latency, span, ago, until, moment, spark)}

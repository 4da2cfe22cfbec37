"""Renders a page of an admin's, or an error, with what every page has around it.

Used by `pages` and `actions`. Must not know what is on a page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response, make_response, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from relay.dash import access
from relay.kit.errors import HostUnknown, RelayError, StoreError
from relay.web import params
from relay.web.errors import XrpcError
from relay.web.health import current_problem


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
    return _error_page(*_status_and_words(error))


def page_of_error(answer: Response) -> Response:
    """The same for an error that was answered as JSON, since no route of the pages was found for the request."""
    words = "There is no such page." if answer.status_code == 404 else answer.get_json()["message"]
    page = _error_page(answer.status_code, words)
    if "Allow" in answer.headers:
        page.headers["Allow"] = answer.headers["Allow"]
    return page


def _error_page(status: int, message: str) -> Response:
    session = access.known_session()
    shown = render_template("error.html", csrf=session.csrf if session else None, status=status, message=message)
    return make_response(shown, status)


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

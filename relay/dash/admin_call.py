"""Asks the admin API for a change, inside the process: the very route that curl would ask.

So whatever the page changes is checked, stored, audited and forwarded to siblings by one and the same code. Used by
`actions`. Must not know of sessions or pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from flask import current_app, request
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response


class AdminCall(NamedTuple):
    """A POST to a route of the admin API: its path, its query, and its JSON body if it takes one."""

    path: str
    query: Mapping[str, str] = {}
    body: Mapping[str, Any] | None = None


def ask_admin_api(call: AdminCall, authorization: str) -> str | None:
    """Make the call for whoever sent the current request. None when it is done, else the API's own words."""
    builder = EnvironBuilder(
        call.path,
        method="POST",
        query_string=call.query,
        json=call.body,
        headers=Headers(
            {
                "Authorization": authorization,
                "Accept": "application/json",
                "User-Agent": request.headers.get("User-Agent", ""),
                "X-Forwarded-For": request.headers.get("X-Forwarded-For", ""),
            }
        ),
        environ_base={"REMOTE_ADDR": request.environ.get("REMOTE_ADDR", "")},
    )
    answer = Response.from_app(current_app.wsgi_app, builder.get_environ(), buffered=True)
    if answer.status_code == 200:
        return None
    # Every error of the API is JSON with a message.
    error: Mapping[str, str] = current_app.json.loads(answer.get_data())
    return error.get("message") or error["error"]

"""Hands the current request to the sibling relays.

Called by the routes of `xrpc` and `admin` whose effect siblings share. The only place that knows both Flask's request
and `siblings`.
"""

from __future__ import annotations

from flask import request

from relay.admin.siblings import forward_of
from relay.web.services import parts


def forward_request() -> None:
    """Repeat the current request at every sibling, in the background, unless a relay sent it."""
    target = request.full_path if request.query_string else request.path
    body = request.get_data(cache=True)
    protocol = str(request.environ.get("SERVER_PROTOCOL", "HTTP/1.1"))
    parts().siblings.forward(forward_of(request.method, target, dict(request.headers), body, protocol))

"""What stands before and around every page: the session, the origin of forms, the headers that browsers obey.

Hooks of the blueprint in `routes`. Must not know what the pages show.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from flask import Response, abort, g, redirect, request, url_for
from flask.typing import ResponseReturnValue

from relay.dash.sessions import Session
from relay.web.addresses import is_proxy
from relay.web.services import parts

COOKIE = "relay_dash"
COOKIE_PATH = "/dash"
LIVE = "X-Dash-Live"
"""The header with which the script asks for a page that is shown already."""

WITHOUT_LOGIN = frozenset({"dash.login_page", "dash.log_in", "dash.asset"})
ASSET = "dash.asset"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers then send `Origin: null` along with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def admit() -> ResponseReturnValue | None:
    """Let a request pass that has a session, and a form that came from a page of that session."""
    if request.method == "POST":
        refuse_foreign_origin()
    if request.endpoint in WITHOUT_LOGIN:
        return None
    session = parts().sessions.find(request.cookies.get(COOKIE, ""))
    if session is None:
        if LIVE in request.headers:
            return Response("the session has ended", 401, mimetype="text/plain")
        asked = request.full_path if request.method == "GET" else None
        return redirect(url_for("dash.login_page", next=asked), 303)
    g.session = session
    if request.method == "POST" and not hmac.compare_digest(
        request.form.get("csrf", "").encode(), session.csrf.encode()
    ):
        abort(403, "This form is out of date. Go back, reload the page and try again.")
    return None


def refuse_foreign_origin() -> None:
    """403 for a form that another site's page sent, or of which no browser says where it comes from."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = urlsplit(request.headers.get("Origin", "")).netloc
    if not (site == "same-origin" if site else origin and origin == request.host):
        abort(403, "This form was not sent by a page of this relay.")


def session() -> Session:
    """The session of the current request."""
    found: Session = g.session
    return found


def is_live() -> bool:
    """True when the script asks, False when a person does."""
    return LIVE in request.headers


def over_https() -> bool:
    """True when the browser came over TLS, to us or to a proxy that is believed."""
    if request.scheme == "https":
        return True
    peer = request.environ.get("REMOTE_ADDR", "")
    return is_proxy(peer, parts().settings.trusted_proxies) and request.headers.get("X-Forwarded-Proto") == "https"


def add_headers(response: Response) -> Response:
    """What browsers have to know of every answer. Only the style sheet and the script may be kept."""
    response.headers.update(HEADERS)
    if request.endpoint != ASSET:
        response.headers["Cache-Control"] = "no-store"
    return response

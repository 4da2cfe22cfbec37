"""Who may see the pages: sessions, the login, the origin of forms, the headers that browsers obey.

`routes` puts `admit` before and `add_headers` after every page. A session is a random id in a cookie, kept in memory
only: a restart logs everybody out. The password is checked, and guessing slowed down, as for the admin API, and kept
nowhere. Must not know what the pages show.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from cachetools import TTLCache
from flask import Response, abort, current_app, g, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from relay.admin.actions import Actor
from relay.dash.charts import Charts
from relay.dash.history import History
from relay.kit import metrics
from relay.web.callers import from_other_site
from relay.web.current_request import over_https, requester
from relay.web.errors import XrpcError
from relay.web.public_page import SECURITY, refuse_large_form
from relay.web.services import relay_services, services

EXTENSION = "relay.dash"
SESSION_SECONDS = 12 * 3600
MAX_SESSIONS = 256

COOKIE = "relay_dash"
COOKIE_PATH = "/dash"
LIVE = "X-Dash-Live"
"""The header with which the script asks for a page that is shown already."""

WITHOUT_LOGIN = frozenset({"dash.login_page", "dash.log_in", "dash.asset"})
ASSET = "dash.asset"

HEADERS = SECURITY | {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Undo(NamedTuple):
    """The action, with its fields, that takes a change back."""

    action: str
    fields: Mapping[str, str]


class Notice(NamedTuple):
    """What came of the last change, for the next page, and how to take it back, where that is possible."""

    done: bool
    text: str
    undo: Undo | None = None


@dataclass(slots=True)
class Session:
    """`csrf` has to come with every form."""

    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    notice: Notice | None = None

    def take_notice(self) -> Notice | None:
        """The notice, which is then told."""
        notice, self.notice = self.notice, None
        return notice


class Sessions:
    """Sessions by id; each ends SESSION_SECONDS after its login, and the oldest when there are too many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions: TTLCache[str, Session] = TTLCache(MAX_SESSIONS, SESSION_SECONDS, timer=clock)
        metrics.show_bound("dash-sessions", lambda: metrics.kept(self._sessions), MAX_SESSIONS)

    def open(self) -> str:
        """The id of a new session."""
        session_id = secrets.token_urlsafe(32)
        self._sessions[session_id] = Session()
        return session_id

    def find(self, session_id: str) -> Session | None:
        """The session with this id, None when there is none any more."""
        return self._sessions.get(session_id)

    def close(self, session_id: str) -> None:
        """End a session."""
        self._sessions.pop(session_id, None)


class DashState(NamedTuple):
    """What the pages keep beside the relay's services."""

    sessions: Sessions
    history: History
    charts: Charts


def state() -> DashState:
    """The state of the application that handles the current request."""
    return cast(DashState, current_app.extensions[EXTENSION])


def admit() -> ResponseReturnValue | None:
    """Let a request pass that has a session, and a form that came from a page of that session."""
    if request.method == "POST":
        refuse_foreign_origin()
        refuse_large_form()
    if request.endpoint in WITHOUT_LOGIN:
        return None
    session = known_session()
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
    if site == "none" or from_other_site(site, request.headers.get("Origin"), request.host) is not False:
        abort(403, "This form was not sent by a page of this relay.")


def known_session() -> Session | None:
    """The session that the current request's cookie names, None when there is none."""
    return state().sessions.find(request.cookies.get(COOKIE, ""))


def session() -> Session:
    """The session of the current request, which was admitted."""
    found: Session = g.session
    return found


def actor() -> Actor:
    """The admin of the current request, for what the pages change."""
    return relay_services().admin.at_page(requester())


def is_live() -> bool:
    """True when the script asks, False when a person does."""
    return LIVE in request.headers


def add_headers(response: Response) -> Response:
    """What browsers have to know of every answer. Only the style sheet and the script may be kept."""
    response.headers.update(HEADERS)
    if request.endpoint != ASSET:
        response.headers["Cache-Control"] = "no-store"
    return response


def login_page() -> ResponseReturnValue:
    """The login form of the dashboard."""
    if known_session():
        return redirect(_next(request.args.get("next")), 303)
    return render_template("login.html", next=request.args.get("next", ""), error=None)


def log_in() -> ResponseReturnValue:
    """`password`: begin a session; wrong passwords are limited per address."""
    try:
        services().auth.check_password(request.form.get("password", "").encode(), requester())
    except XrpcError as error:
        words = "That is not the admin password." if error.status == 401 else "Too many wrong passwords. Wait a minute."
        shown = render_template("login.html", next=request.form.get("next", ""), error=words)
        return make_response(shown, error.status, {"Retry-After": error.headers.get("Retry-After", "0")})
    relay_services().admin.note_login(actor())
    session_id = state().sessions.open()
    response = redirect(_next(request.form.get("next")), 303)
    response.set_cookie(
        COOKIE,
        session_id,
        max_age=SESSION_SECONDS,
        path=COOKIE_PATH,
        secure=over_https(),
        httponly=True,
        samesite="Strict",
    )
    return response


def log_out() -> ResponseReturnValue:
    """End the session."""
    state().sessions.close(request.cookies[COOKIE])
    relay_services().admin.note_logout(actor())
    response = redirect(url_for("dash.login_page"), 303)
    response.delete_cookie(COOKIE, path=COOKIE_PATH, secure=over_https(), httponly=True, samesite="Strict")
    return response


def _next(asked: str | None) -> str:
    """Where to go after the login: a page of ours, whatever the link to the form says."""
    home = url_for("dash.overview")
    return asked if asked and asked.startswith(home) else home

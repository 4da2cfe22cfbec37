"""Logging in with an admin password, and out again.

The password is checked, and guessing slowed down, by the same `AdminAuth` that the admin API asks. Must not know what
a session opens.
"""

from __future__ import annotations

import base64

from flask import make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from relay.dash.guard import COOKIE, COOKIE_PATH, over_https
from relay.dash.sessions import SESSION_SECONDS
from relay.web.errors import XrpcError
from relay.web.services import parts, requester


def login_page() -> ResponseReturnValue:
    """The login form, for the dashboard's pages."""
    if parts().sessions.find(request.cookies.get(COOKIE, "")):
        return redirect(_next(request.args.get("next")), 303)
    return render_template("login.html", next=request.args.get("next", ""), error=None)


def log_in() -> ResponseReturnValue:
    """`password`: begin a session; wrong ones are limited per address."""
    authorization = "Basic " + base64.b64encode(b"admin:" + request.form.get("password", "").encode()).decode()
    try:
        parts().auth.check(authorization, requester())
    except XrpcError as error:
        words = "That is not the admin password." if error.status == 401 else "Too many wrong passwords. Wait a minute."
        shown = render_template("login.html", next=request.form.get("next", ""), error=words)
        return make_response(shown, error.status, {"Retry-After": error.headers.get("Retry-After", "0")})
    session_id = parts().sessions.open(authorization)
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
    parts().sessions.close(request.cookies[COOKIE])
    response = redirect(url_for("dash.login_page"), 303)
    response.delete_cookie(COOKIE, path=COOKIE_PATH, secure=over_https(), httponly=True, samesite="Strict")
    return response


def _next(asked: str | None) -> str:
    """Where to go after the login: a page of ours, whatever the link to the form says."""
    home = url_for("dash.overview")
    return asked if asked and asked.startswith(home) else home

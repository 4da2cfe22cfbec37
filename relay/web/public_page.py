"""How pages for everybody are made: the policy that browsers obey, the templates, who gets one instead of JSON or text.

Used by the front page and by the pages of hosts and accounts, and by `application` for errors; the dashboard obeys the
same policy. Must not know what is on a page.
"""

from __future__ import annotations

from typing import Any

from flask import Response, abort, make_response, render_template, request

from relay.web.callers import from_other_site
from relay.web.errors import XrpcError

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers then send `Origin: null` along with our own forms.
    "Referrer-Policy": "same-origin",
}
# The same address gives JSON or text to programs.
HEADERS = SECURITY | {"Vary": "Accept"}
MAX_FORM_BYTES = 8 << 10
# No browser's is nearly as long, and comparing a thousand media types takes time.
MAX_ACCEPT = 1 << 10
# The dashboard has pages of its own for its errors.
FOR_PROGRAMS = ("/xrpc/", "/admin", "/_", "/dash", "/subscribe")
KEPT = ("Allow", "Retry-After", "WWW-Authenticate")


def wants_page(otherwise: str) -> bool:
    """True when the request says that it would rather have HTML than the media type `otherwise`."""
    if len(request.headers.get("Accept", "")) > MAX_ACCEPT:
        return False
    return request.accept_mimetypes.best_match([otherwise, "text/html"]) == "text/html"


def public_page(template: str, status: int = 200, **values: Any) -> Response:
    """A page of `templates/public/`."""
    return make_response(render_template(f"public/{template}", **values), status, HEADERS)


def error_as_page(response: Response) -> Response:
    """An error that was answered as JSON, as a page for those who asked for a page, but at what only programs ask."""
    if response.status_code < 400 or not response.is_json or request.path.startswith(FOR_PROGRAMS):
        return response
    if not wants_page("application/json"):
        return response
    page = public_page("error.html", response.status_code, message=response.get_json().get("message", ""))
    page.headers.update({name: response.headers[name] for name in KEPT if name in response.headers})
    return page


def refuse_foreign_form() -> None:
    """Refuse a form that a page of another site sent, or that is too large to be taken apart."""
    if from_other_site(request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin"), request.host):
        raise XrpcError(403, "Forbidden", "a page of another site sent this form")
    refuse_large_form()


def refuse_large_form() -> None:
    """413 for a form of more than MAX_FORM_BYTES: taking one apart costs much more than receiving it."""
    if (request.content_length or 0) > MAX_FORM_BYTES:
        abort(413, "This form is too large.")

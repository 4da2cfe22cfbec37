"""How pages for everybody are made: the policy that browsers obey, the templates, who gets one instead of JSON or text.

Used by the front page and by the pages of hosts and accounts. Must not know what is on a page.
"""

from __future__ import annotations

from typing import Any

from flask import Response, abort, make_response, render_template, request

from relay.web.callers import from_other_site
from relay.web.errors import XrpcError

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers then send `Origin: null` along with our own forms.
    "Referrer-Policy": "same-origin",
    # The same address gives JSON or text to programs.
    "Vary": "Accept",
}
MAX_FORM_BYTES = 8 << 10


def wants_page(otherwise: str) -> bool:
    """True when the request says that it would rather have HTML than the media type `otherwise`."""
    return request.accept_mimetypes.best_match([otherwise, "text/html"]) == "text/html"


def public_page(template: str, status: int = 200, **values: Any) -> Response:
    """A page of `templates/public/`."""
    return make_response(render_template(f"public/{template}", **values), status, HEADERS)


def refuse_foreign_form() -> None:
    """Refuse a form that a page of another site sent, or that is too large to be taken apart."""
    if from_other_site(request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin"), request.host):
        raise XrpcError(403, "Forbidden", "a page of another site sent this form")
    if (request.content_length or 0) > MAX_FORM_BYTES:
        abort(413)

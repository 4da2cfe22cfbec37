"""Every route of the pages, and what surrounds them all: the guard, filters, errors as pages, script and style sheet.

`pages_of` is called by `app`. The script and the style sheet are held in memory and named by their content, so that
browsers may keep them. Holds no logic of its own.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from flask import Blueprint, Response, abort, url_for
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException

from relay.dash import access, actions, pages
from relay.dash.access import DashState, Sessions
from relay.dash.history import History
from relay.dash.rendering import FILTERS, error_page
from relay.kit.errors import HostUnknown, LogError, StoreError
from relay.web.errors import XrpcError

FOLDER = Path(__file__).parent / "static"
TYPES = {"dash.css": "text/css", "dash.js": "text/javascript"}
FILES = {name: (FOLDER / name).read_bytes() for name in TYPES}
VERSIONS = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in FILES.items()}
KEEP = "public, max-age=31536000, immutable"


def asset(name: str) -> Response:
    """The style sheet and the script of the dashboard."""
    if name not in FILES:
        abort(404)
    response = Response(FILES[name], mimetype=TYPES[name])
    response.headers["Cache-Control"] = KEEP
    return response


def asset_url(name: str) -> str:
    """The address of a file, which is another one when its content is."""
    return url_for("dash.asset", name=name, v=VERSIONS[name])


PAGES = (
    ("/", pages.overview),
    ("/hosts", pages.host_list),
    ("/hosts/<hostname>", pages.host_detail),
    ("/crawling", pages.crawling),
    ("/accounts", pages.account_list),
    ("/consumers", pages.consumer_list),
    ("/confirm/<action>", actions.confirm),
    ("/login", access.login_page),
    ("/static/<name>", asset),
)
FORMS = (
    ("/do/<action>", actions.perform),
    ("/login", access.log_in),
    ("/logout", access.log_out),
)


def pages_of(history: History) -> Blueprint:
    """The pages of a relay, which show its `history`; nobody is logged in yet."""
    blueprint = Blueprint("dash", __name__, url_prefix="/dash", template_folder="templates")
    for path, page in PAGES:
        blueprint.add_url_rule(path, view_func=page, methods=["GET"])
    for path, form in FORMS:
        blueprint.add_url_rule(path, view_func=form, methods=["POST"])
    blueprint.before_request(access.admit)
    blueprint.after_request(access.add_headers)
    for error in (XrpcError, HostUnknown, StoreError, LogError, HTTPException):
        blueprint.register_error_handler(error, error_page)

    @blueprint.record_once
    def prepare(setup: BlueprintSetupState) -> None:
        """The sessions, and all templates compiled: to compile one takes longer than the hub may wait."""
        setup.app.extensions[access.EXTENSION] = DashState(Sessions(), history)
        environment = setup.app.jinja_env
        environment.filters.update(FILTERS)
        environment.globals.update(asset_url=asset_url, now=time.time)
        for name in environment.list_templates():
            environment.get_template(name)

    return blueprint

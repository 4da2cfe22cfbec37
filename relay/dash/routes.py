"""Every route of the pages, and what surrounds them all: the guard, filters, errors as pages, script and style sheet.

`pages_of` is called by `app`. Holds no logic of its own.
"""

from __future__ import annotations

import time
from pathlib import Path

from flask import Blueprint, Response, redirect, request, url_for
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from relay.dash import access, actions, pages
from relay.dash.access import DashState, Sessions
from relay.dash.charts import Charts
from relay.dash.formats import FILTERS
from relay.dash.history import History
from relay.dash.rendering import error_page, page_of_error
from relay.kit.errors import HostUnknown, LogError, StoreError
from relay.web.assets import Assets
from relay.web.errors import XrpcError

FILES = Assets(Path(__file__).parent / "static")
PREFIX = "/dash"


def asset(name: str) -> Response:
    """The style sheet and the scripts of the dashboard."""
    return FILES.answer(name)


def asset_url(name: str) -> str:
    """The address of a file of the dashboard."""
    return url_for("dash.asset", name=name, v=FILES.version(name))


def root() -> ResponseReturnValue:
    """The dashboard's address as people type it."""
    # Werkzeug's own redirect would name a scheme and a port, which behind a proxy are not those of the browser.
    return redirect(url_for("dash.overview"), 308)


PAGES = (
    ("", root),
    ("/", pages.overview),
    ("/hosts", pages.host_list),
    ("/hosts/<hostname>", pages.host_detail),
    ("/crawling", pages.crawling),
    ("/accounts", pages.account_list),
    ("/accounts/why", pages.account_why),
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


def finish(response: Response) -> Response:
    """What browsers have to know of every answer of the dashboard. What is JSON is an error that no page answered."""
    if request.path != PREFIX and not request.path.startswith(f"{PREFIX}/"):
        return response
    return access.add_headers(page_of_error(response) if response.is_json else response)


def pages_of(history: History) -> Blueprint:
    """The pages of a relay, which show its `history`; nobody is logged in yet."""
    blueprint = Blueprint("dash", __name__, url_prefix=PREFIX, template_folder="templates")
    for path, page in PAGES:
        blueprint.add_url_rule(path, view_func=page, methods=["GET"])
    for path, form in FORMS:
        blueprint.add_url_rule(path, view_func=form, methods=["POST"])
    blueprint.before_request(access.admit)
    # Of every answer below the prefix: one that no route gives belongs to no blueprint.
    blueprint.after_app_request(finish)
    for error in (XrpcError, HostUnknown, StoreError, LogError, HTTPException):
        blueprint.register_error_handler(error, error_page)

    @blueprint.record_once
    def prepare(setup: BlueprintSetupState) -> None:
        """The sessions, and what the templates need; `create_app` compiles them."""
        setup.app.extensions[access.EXTENSION] = DashState(Sessions(), history, Charts(history.past))
        environment = setup.app.jinja_env
        environment.filters.update(FILTERS)
        environment.globals.update(asset_url=asset_url, now=time.time)

    return blueprint

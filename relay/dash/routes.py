"""Every route of the pages, and what surrounds them all: the guard, the filters, errors as pages.

Registered by `application`. Holds no logic of its own.
"""

from __future__ import annotations

import time

from flask import Blueprint
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException

from relay.dash import actions, assets, guard, login, pages
from relay.dash.formats import FILTERS
from relay.dash.rendering import error_page
from relay.kit.errors import HostUnknown, LogError, StoreError
from relay.web.errors import XrpcError

blueprint = Blueprint("dash", __name__, url_prefix="/dash", template_folder="templates")

for path, page in (
    ("/", pages.overview),
    ("/hosts", pages.host_list),
    ("/hosts/<hostname>", pages.host_detail),
    ("/crawling", pages.crawling),
    ("/accounts", pages.account_list),
    ("/consumers", pages.consumer_list),
    ("/confirm/<action>", actions.confirm),
    ("/login", login.login_page),
    ("/static/<name>", assets.asset),
):
    blueprint.add_url_rule(path, view_func=page, methods=["GET"])
for path, form in (
    ("/do/<action>", actions.perform),
    ("/login", login.log_in),
    ("/logout", login.log_out),
):
    blueprint.add_url_rule(path, view_func=form, methods=["POST"])

blueprint.before_request(guard.admit)
blueprint.after_request(guard.add_headers)
for error in (XrpcError, HostUnknown, StoreError, LogError, HTTPException):
    blueprint.register_error_handler(error, error_page)


@blueprint.record_once
def prepare_templates(state: BlueprintSetupState) -> None:
    """Filters, and all templates compiled: to compile one takes longer than the hub may wait."""
    environment = state.app.jinja_env
    environment.filters.update(FILTERS)
    environment.globals.update(asset_url=assets.asset_url, now=time.time)
    for name in environment.list_templates():
        environment.get_template(name)

"""The routes of an edge beside the firehose and health: queries go to the upstream relay, the admin API is its own.

`create_edge_app` is called by `edge`. An edge knows no hosts and no accounts, and so answers nothing about them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from flask import Blueprint, Flask, jsonify, redirect, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import MethodNotAllowed

from relay.web import firehose, health
from relay.web.application import application
from relay.web.current_request import admit_admin
from relay.web.errors import XrpcError
from relay.web.services import PREFIX, Services, services
from relay.web.views import consumer_view

blueprint = Blueprint("edge", __name__)


def create_edge_app(services: Services, more: Iterable[Blueprint] = ()) -> Flask:
    """The WSGI application of an edge, with `more` routes of other rooms."""
    return application(services, (firehose.blueprint, health.blueprint, blueprint, *more))


@blueprint.route(f"{PREFIX}<method>", methods=["GET", "POST"])
def ask_upstream(method: str) -> ResponseReturnValue:
    """A redirect to the upstream relay, which knows hosts and accounts; method and body are kept."""
    if method == "subscribeRepos":
        # By POST. The firehose is here, and is a WebSocket.
        raise MethodNotAllowed(["GET", "HEAD", "OPTIONS"])
    query = request.query_string.decode("latin-1")
    return redirect(f"{services().settings.edge_upstream}{PREFIX}{method}{f'?{query}' if query else ''}", 307)


@blueprint.get("/admin/consumers/list")
def list_consumers() -> ResponseReturnValue:
    """The consumers that are connected."""
    admit_admin()
    return jsonify([consumer_view(consumer) for consumer in services().consumers])


@blueprint.route("/admin/<path:rest>", methods=["GET", "POST"])
def not_here(rest: str) -> NoReturn:
    """Everything else an admin can do is done at the upstream relay."""
    admit_admin()
    upstream = services().settings.edge_upstream
    raise XrpcError(501, "MethodNotImplemented", f"this is an edge: ask {upstream}/admin/{rest}")

"""The Flask application: routes gathered, errors in one form, the headers that every answer carries.

`create_app` is called by `app` with the relay's parts, and by tests. Must not know what any route does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from flask import Blueprint, Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from relay.dash import routes as dash
from relay.kit.errors import CrawlRefused, LogError, StoreError
from relay.net.http import SERVER
from relay.web import admin_api, admin_backfill, collections, firehose, health, host_page, xrpc
from relay.web.errors import XrpcError
from relay.web.metrics_server import track_requests
from relay.web.services import EXTENSION, Parts, Serving

log = logging.getLogger(__name__)

MAX_BODY = 64 << 10

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Origin, Content-Type, Accept, Authorization",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
    "Access-Control-Max-Age": "86400",
}

BANNER = f"""{SERVER}

This is a relay of the AT Protocol network.

  firehose: /xrpc/com.atproto.sync.subscribeRepos
  health:   /xrpc/_health
"""

_HTTP_NAMES = {
    400: "InvalidRequest",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "PayloadTooLarge",
}


def create_app(parts: Parts) -> Flask:
    """The WSGI application of a relay."""
    modules = (xrpc, collections, firehose, host_page, admin_api, admin_backfill, health, dash)
    return application(parts, [module.blueprint for module in modules])


def application(serving: Serving, blueprints: Iterable[Blueprint]) -> Flask:
    """A WSGI application over `serving` with these routes."""
    app = Flask(__name__, static_folder=None)
    app.extensions[EXTENSION] = serving
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    track_requests(app)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    app.add_url_rule("/", view_func=banner)
    app.before_request(answer_preflight)
    app.after_request(add_headers)
    app.register_error_handler(XrpcError, answer_error)
    app.register_error_handler(CrawlRefused, lambda error: error_response(error.status, error.name, error.detail))
    app.register_error_handler(StoreError, answer_store_error)
    app.register_error_handler(LogError, lambda error: error_response(503, "ServiceUnavailable", str(error)))
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_crash)
    return app


def banner() -> ResponseReturnValue:
    """What this is, for a person with a browser."""
    return Response(BANNER, mimetype="text/plain")


def answer_preflight() -> ResponseReturnValue | None:
    """A browser asks before it sends: every method and origin is welcome."""
    return Response(status=204) if request.method == "OPTIONS" else None


def add_headers(response: Response) -> Response:
    """Every answer says what runs here; all but the pages for admins may be read by pages of any origin."""
    response.headers["Server"] = SERVER
    if request.blueprint != dash.blueprint.name:
        response.headers.update(CORS)
    return response


def error_response(status: int, name: str, message: str) -> Response:
    """The XRPC error body."""
    response = jsonify(error=name, message=message)
    response.status_code = status
    return response


def answer_error(error: XrpcError) -> Response:
    """An error that a route raised on purpose."""
    response = error_response(error.status, error.name, error.message)
    response.headers.update(error.headers)
    return response


def answer_store_error(error: StoreError) -> Response:
    """The database is away; indigo's name for it."""
    log.warning("%s %s failed: %s", request.method, request.path, error)
    return error_response(500, "DatabaseError", "the database does not answer")


def answer_http_error(error: HTTPException) -> Response:
    """An error of Flask's own: unknown path, wrong method, body too large."""
    status = error.code or 500
    if status == 404 and request.path.startswith("/xrpc/"):
        return error_response(501, "MethodNotImplemented", "Method Not Implemented")
    response = error_response(status, _HTTP_NAMES.get(status, error.name.replace(" ", "")), error.description or "")
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def answer_crash(error: Exception) -> Response:
    """A fault of ours: logged in full, told in none of its details."""
    log.error("%s %s crashed", request.method, request.path, exc_info=error)
    return error_response(500, "InternalServerError", "Internal Server Error")

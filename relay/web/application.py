"""The Flask application: routes gathered, errors in one form, the headers that every answer carries.

`create_app` is called by `app` with the relay's parts, and by tests. Must not know what any route does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from flask import Blueprint, Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from relay.kit.errors import LogError, Refused, StoreError
from relay.net.http import SERVER
from relay.web import admin_api, firehose, health, host_page, xrpc
from relay.web.errors import XrpcError
from relay.web.metrics_server import track_requests
from relay.web.services import EXTENSION, RelayServices, Services

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


def create_app(services: RelayServices, pages: Iterable[Blueprint] = ()) -> Flask:
    """The WSGI application of a relay. `pages` are for people who are logged in: other origins may not read them."""
    modules = (xrpc, firehose, host_page, admin_api, health)
    return application(services, [module.blueprint for module in modules], pages)


def application(services: Services, blueprints: Iterable[Blueprint], without_cors: Iterable[Blueprint] = ()) -> Flask:
    """A WSGI application over `services` with these routes; pages of any origin read all but those `without_cors`."""
    app = Flask(__name__, static_folder=None)
    app.extensions[EXTENSION] = services
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    track_requests(app)
    guarded = list(without_cors)
    # Nor the admin API, to which browsers add the password that they remember.
    closed = ("/admin", *(str(blueprint.url_prefix) for blueprint in guarded))
    for blueprint in (*blueprints, *guarded):
        app.register_blueprint(blueprint)
    app.add_url_rule("/", view_func=banner)
    app.before_request(answer_preflight)
    app.after_request(partial(add_headers, closed))
    app.register_error_handler(XrpcError, answer_error)
    app.register_error_handler(Refused, lambda error: error_response(error.status, error.name, error.detail))
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


def add_headers(without_cors: tuple[str, ...], response: Response) -> Response:
    """Every answer says what runs here; those of paths that do not begin `without_cors` are for pages of any origin."""
    response.headers["Server"] = SERVER
    # By path, since an error may come before a route is found.
    if not request.path.startswith(without_cors):
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

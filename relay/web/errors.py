"""HTTP errors in the one form that atproto clients read: `{"error": Name, "message": text}`.

XrpcError is raised by every route; `register` has an application answer that, what the rooms raise, and what Flask
does. Knows nothing of routes.
"""

from __future__ import annotations

import logging

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing.exceptions import WebsocketMismatch

from relay.kit.errors import LogError, Refused, StoreError

log = logging.getLogger(__name__)

_HTTP_NAMES = {
    400: "InvalidRequest",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "PayloadTooLarge",
}


class XrpcError(Exception):
    """An answer other than success: HTTP `status`, XRPC error `name`, `message` for people, extra `headers`."""

    def __init__(self, status: int, name: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {name}: {message}")
        self.status = status
        self.name = name
        self.message = message
        self.headers = headers or {}


def invalid(message: str) -> XrpcError:
    """A parameter or a body that is missing or malformed."""
    return XrpcError(400, "InvalidRequest", message)


def too_many(message: str, retry_after: int) -> XrpcError:
    """A limit is reached; the client may come back after `retry_after` seconds."""
    return XrpcError(429, "RateLimitExceeded", message, {"Retry-After": str(retry_after)})


def register(app: Flask) -> None:
    """Have `app` answer every error in this form."""
    app.register_error_handler(XrpcError, answer_error)
    app.register_error_handler(Refused, lambda error: error_response(error.status, error.name, error.detail))
    app.register_error_handler(StoreError, answer_store_error)
    app.register_error_handler(LogError, lambda error: error_response(503, "ServiceUnavailable", str(error)))
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_crash)


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
    log.debug("%s %s failed: %s", request.method, request.path, error)
    behind = error.reason == "store-behind"
    words = "the database is brought up to the log: ask again later" if behind else "the database does not answer"
    return error_response(500, "DatabaseError", words)


def answer_http_error(error: HTTPException) -> Response:
    """An error of Flask's own: unknown path, wrong method, body too large."""
    if isinstance(error, WebsocketMismatch):
        return error_response(400, "InvalidRequest", "nothing here is a WebSocket")
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

"""HTTP errors in the one form that atproto clients read: `{"error": Name, "message": text}`.

Raised by every route; turned into responses by `application`. Knows nothing of routes or of Flask.
"""

from __future__ import annotations


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

"""Who may use the admin API: HTTP Basic `admin:PASSWORD` or `Bearer PASSWORD`, with guessing slowed down.

Asked by `admin` before every route. Knows passwords and addresses, and nothing of what the routes do.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Sequence

from cachetools import TTLCache

from relay.kit import metrics
from relay.web.addresses import counted_as
from relay.web.errors import XrpcError, too_many

log = logging.getLogger(__name__)

MAX_FAILURES = 10
FAILURE_WINDOW = 60.0
MAX_ADDRESSES = 10_000


def passwords_or_random(passwords: Sequence[str]) -> tuple[str, ...]:
    """The passwords as they are set, or one random password, logged once, when none is."""
    if passwords:
        return tuple(passwords)
    password = secrets.token_urlsafe(24)
    log.warning("RELAY_ADMIN_PASSWORD is not set: the admin password until the next start is %s", password)
    return (password,)


class AdminAuth:
    """Checks credentials; after MAX_FAILURES wrong ones from an address within FAILURE_WINDOW it refuses to check."""

    def __init__(self, passwords: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._passwords = [password.encode() for password in passwords]
        self._failures: TTLCache[str, int] = TTLCache(MAX_ADDRESSES, FAILURE_WINDOW, timer=clock)
        metrics.QUEUE_CAPACITY.labels("auth-failures").set(MAX_ADDRESSES)

    def check(self, authorization: str | None, address: str) -> None:
        """Return when the header's password is one of ours. Raises XrpcError 401 or 429 otherwise."""
        key = counted_as(address)
        failures = self._failures.get(key, 0)
        if failures >= MAX_FAILURES:
            raise too_many("too many wrong passwords", int(FAILURE_WINDOW))
        if self._is_ours(password_in(authorization)):
            return
        # No credentials at all is a browser about to ask for them, and no guess.
        if authorization:
            self._failures[key] = failures + 1
            # From the hub: a TTLCache forgets as its length is asked, and a scrape comes from another thread.
            metrics.QUEUE_SIZE.labels("auth-failures").set(len(self._failures))
            log.warning("wrong admin password from %s", address)
        raise XrpcError(
            401, "AuthenticationRequired", "the admin password is needed", {"WWW-Authenticate": 'Basic realm="relay"'}
        )

    def _is_ours(self, given: bytes | None) -> bool:
        # Every password is compared, whatever the first comparison says: the time tells nothing of which is right.
        matches = [hmac.compare_digest(given or b"", password) for password in self._passwords]
        return given is not None and any(matches)


def password_in(authorization: str | None) -> bytes | None:
    """The password in an Authorization header, None when there is none or the user is not `admin`."""
    scheme, _, rest = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode("latin-1", "replace") or None
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return password if colon and password and hmac.compare_digest(user, b"admin") else None

"""Who asks: a request's address, also behind reverse proxies, and whether it has the admin password.

Used by the admin API and the pages before every route, and by what is limited per address. Knows passwords and header
texts, and nothing of what the routes do.
"""

from __future__ import annotations

import hmac
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from relay.kit import metrics
from relay.kit.credentials import password_in
from relay.kit.limits import Tally
from relay.web.errors import XrpcError, too_many

log = logging.getLogger(__name__)

MAX_FAILURES = 10
FAILURE_WINDOW = 60.0
MAX_ADDRESSES = 10_000
# Proxies of ours that pass a request on to one another.
MAX_HOPS = 16

_WITH_PORT = re.compile(r"\[([^\]%]+)(?:%[^\]]*)?\](?::\d{1,5})?|([0-9.]+):\d{1,5}", re.ASCII)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def passwords_or_random(passwords: Sequence[str]) -> tuple[str, ...]:
    """The passwords as they are set, or one random password, logged once, when none is."""
    if passwords:
        return tuple(passwords)
    password = secrets.token_urlsafe(24)
    log.warning("RELAY_ADMIN_PASSWORD is not set: the admin password until the next start is %s", password)
    return (password,)


class AdminAuth:
    """Checks credentials. After MAX_FAILURES wrong ones from an address within FAILURE_WINDOW further wrong ones are
    told to wait, and not logged. A right password always opens: whoever guesses must not lock out an admin who comes
    from the same address, such as that of a proxy.
    """

    def __init__(self, passwords: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        # As it came from the environment, also where that is not UTF-8.
        self._passwords = [password.encode(errors="surrogateescape") for password in passwords]
        self._clock = clock
        self._failures: Tally[str] = Tally(FAILURE_WINDOW, MAX_ADDRESSES)
        metrics.show_bound("auth-failures", self._failures.__len__, MAX_ADDRESSES)

    def check(self, authorization: str | None, address: str) -> None:
        """Return when the header's password is one of ours. Raises XrpcError 401 or 429 otherwise."""
        self.check_password(password_in(authorization) if authorization else b"", address)

    def check_password(self, given: bytes | None, address: str) -> None:
        """Return when the password is one of ours. None is a wrong one. Raises XrpcError 401 or 429 otherwise."""
        if self._is_ours(given):
            return
        key, now = counted_as(address), self._clock()
        # No password at all is a browser about to ask for one, or a program that has none: not a guess.
        if given != b"":
            if self._failures.count(key, now) >= MAX_FAILURES:
                raise too_many("too many wrong passwords", math.ceil(self._failures.ends_in(key, now)))
            self._failures.add(key, now)
            log.warning("wrong admin password from %s", address)
        raise XrpcError(
            401, "AuthenticationRequired", "the admin password is needed", {"WWW-Authenticate": 'Basic realm="relay"'}
        )

    def _is_ours(self, given: bytes | None) -> bool:
        # Every password is compared, whatever the first comparison says: the time tells nothing of which is right.
        matches = [hmac.compare_digest(given or b"", password) for password in self._passwords]
        return bool(given) and any(matches)


def from_other_site(site: str | None, origin: str | None, host: str) -> bool | None:
    """Whether a browser says that a page of another site made it send a request; None when nothing is said.

    `site` and `origin` are the headers Sec-Fetch-Site and Origin, `host` is the request's own.
    """
    if site:
        return site not in ("same-origin", "none")
    if not origin:
        return None
    try:
        return urlsplit(origin).netloc != host
    except ValueError:
        return True


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The address of the client: `peer` itself, or the last untrusted one in X-Forwarded-For.

    Each proxy appends whom it got the request from, so the list is read from its end, for only as long as the
    one who appended is trusted: what stands further left may be invented by the client.
    """
    address = _parsed(peer)
    if address is None:
        return peer
    for hop in reversed(forwarded_for.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        if not _is_trusted(address, trusted):
            break
        previous = _parsed(hop)
        if previous is None:
            break
        address = previous
    return str(address)


def counted_as(address: str) -> str:
    """The key that limits count an address under: a whole /64 in IPv6, since one client holds at least that."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, 64), strict=False))
    return address


def is_proxy(peer: str, trusted: Sequence[Network]) -> bool:
    """True when what `peer` says in X-Forwarded headers is believed."""
    address = _parsed(peer)
    return address is not None and _is_trusted(address, trusted)


def _parsed(text: str) -> Address | None:
    # Some proxies write the client's port as well: 192.0.2.1:4711, [2001:db8::1]:4711.
    found = _WITH_PORT.fullmatch(text.strip())
    try:
        address = ip_address((found[1] or found[2]) if found else text.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted if network.version == address.version)

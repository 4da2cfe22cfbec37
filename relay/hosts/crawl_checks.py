"""Whether a host that asks to be crawled may be, and what it may do when it is new.

Its name, its answer to `describeServer`, how many came today. NewHosts calls these in the order that the reference
relay has. Must not know how hosts are stored or dialled.
"""

from __future__ import annotations

from typing import Protocol

from relay.atproto.errors import SyntaxInvalid
from relay.atproto.hostname import Endpoint, parse_endpoint
from relay.config import Settings
from relay.hosts.rates import MILLISECONDS, Window
from relay.kit.errors import CrawlRefused, HttpError, RelayError
from relay.net.http import NO_DESCRIPTORS, Response
from relay.store import installation as table
from relay.store.database import Transaction

DESCRIBE_PATH = "/xrpc/com.atproto.server.describeServer"
DESCRIBE_SECONDS = 5.0
DESCRIBE_BYTES = 64 << 10
NEW_HOSTS_KEY = "new-hosts-window"
TRUSTED_ACCOUNT_LIMIT = 10_000_000


class Http(Protocol):
    """`net.http.GuardedHttp`, as far as a crawl request needs it."""

    def get(self, url: str, *, timeout: float, max_bytes: int) -> Response:
        """One GET to a checked address, without redirects."""


def check_name(text: str, *, admin: bool, allow_insecure: bool) -> Endpoint:
    """The endpoint that a crawl request names. Raises CrawlRefused (`BadRequest`)."""
    try:
        endpoint = parse_endpoint(text.strip())
    except SyntaxInvalid as error:
        raise CrawlRefused("crawl-hostname", "BadRequest", 400, f"the hostname is not valid: {error}") from None
    name, _, port = endpoint.hostname.partition(":")
    if name == "localhost" and not port:
        raise CrawlRefused("crawl-hostname", "BadRequest", 400, "localhost needs a port")
    if not endpoint.tls and not (admin or allow_insecure):
        raise CrawlRefused("crawl-insecure", "BadRequest", 400, "this relay accepts only hosts with TLS")
    if ":" in endpoint.hostname and not (admin or allow_insecure):
        raise CrawlRefused("crawl-port", "BadRequest", 400, "this relay accepts only hosts on the standard port")
    if endpoint.is_local and not (admin and (allow_insecure or name == "localhost")):
        raise CrawlRefused("crawl-local", "BadRequest", 400, "this relay accepts only public hosts")
    return endpoint


def check_answers(http: Http, endpoint: Endpoint, *, in_detail: bool = True) -> None:
    """Ask the host what it is. Raises CrawlRefused: `HostNotFound` when it does not answer as a PDS does,
    `RateLimitExceeded` when it cannot be asked now.

    With `in_detail` the error says why. Strangers are not told to which addresses a name leads here: that would let
    them read what the resolver of a private network knows.
    """
    try:
        response = http.get(endpoint.url + DESCRIBE_PATH, timeout=DESCRIBE_SECONDS, max_bytes=DESCRIBE_BYTES)
    except (RelayError, OSError) as error:
        if isinstance(error, HttpError) and error.reason == NO_DESCRIPTORS:
            raise CrawlRefused("crawl-busy", "RateLimitExceeded", 429, "no more connections at present") from None
        words = "the host cannot be reached"
        if in_detail:
            words += f": {error}"
        elif isinstance(error, HttpError):
            words += f": {error.reason}"
        raise CrawlRefused("crawl-unreachable", "HostNotFound", 400, words) from None
    if response.status != 200:
        raise CrawlRefused("crawl-no-pds", "HostNotFound", 400, f"describeServer answers HTTP {response.status}")
    if response.json_object() is None:
        raise CrawlRefused("crawl-no-pds", "HostNotFound", 400, "the answer to describeServer is not that of a PDS")


def is_trusted(settings: Settings, hostname: str) -> bool:
    """True when a trusted domain names the host exactly or, as `*.example.com`, by the end of its name."""
    return any(
        hostname.endswith(pattern[1:]) if pattern.startswith("*") else hostname == pattern
        for pattern in map(str.lower, settings.trusted_domains)
    )


def first_account_limit(settings: Settings, hostname: str, carried: int = 0) -> int:
    """Accounts that a new host may have: at least as many as a trusted relay carries of it, and a fifth more."""
    least = TRUSTED_ACCOUNT_LIMIT if is_trusted(settings, hostname) else settings.default_account_limit
    return max(least, min(carried + -(-carried // 5), TRUSTED_ACCOUNT_LIMIT))


def load_new_hosts(tx: Transaction) -> Window:
    """The sliding 24 hours of new hosts, as they were stored."""
    stored = (table.get(tx, NEW_HOSTS_KEY) or "0 0 0").split()
    return Window(MILLISECONDS["day"], *map(int, stored))


def store_new_hosts(tx: Transaction, window: Window) -> None:
    """Keep the window, so that a restart does not open the door to another day's hosts."""
    table.put(tx, NEW_HOSTS_KEY, " ".join(map(str, window.state)))

"""Learns of the network's hosts from another relay, by paging its `listHosts`.

Run by `relay pull-hosts`, and in the background by NewHosts of a relay that knows no host yet. Where it stands is
stored after each page, so that it goes on after a stop. What taking a host means is the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from gevent.pool import Pool

from relay.atproto.hostname import Endpoint
from relay.config import Settings
from relay.hosts import crawl_checks
from relay.kit.errors import CrawlRefused, HttpError
from relay.net.http import GuardedHttp, xrpc_url
from relay.net.pages import Ending, read_cursor
from relay.store import hosts, installation
from relay.store.database import Database, Transaction
from relay.store.hosts import ban_of

CURSOR_KEY = "pull-hosts-cursor"
PAGE_SECONDS = 30.0
PAGE_BYTES = 4 << 20
CHECKS_AT_ONCE = 20
WANTED_STATUSES = ("active", "idle", None)

log = logging.getLogger(__name__)


class Offered(NamedTuple):
    """A host that the other relay has, and how many accounts it has there."""

    endpoint: Endpoint
    accounts: int


def pull_hosts(
    db: Database,
    http: GuardedHttp,
    relay: str,
    take: Callable[[Offered], bool],
    *,
    batch: int = 500,
    check: bool = True,
    progress: Callable[[int, int], None] = lambda seen, taken: None,
) -> int:
    """Call `take` for every host that the relay at the address `relay` has and that can be crawled; how many it took.

    With `check`, a host is taken only when it answers `describeServer`. `progress(seen, taken)` is called after each
    page. Raises HttpError, StoreError, or CrawlRefused `crawl-busy`; called again, it goes on where it stopped.
    """
    trusted_http = http.for_operator()
    pool: Pool = Pool(CHECKS_AT_ONCE)
    seen = taken = 0
    cursor = db.read(installation.get, CURSOR_KEY) or ""
    ending = Ending(cursor)
    while True:
        page = _page(trusted_http, relay, batch, cursor)
        offers = [offered for offered in map(_wanted, page["hosts"]) if offered is not None]
        if check:
            answering = pool.map(lambda offered: _answers(http, offered.endpoint), offers)
            offers = [offered for offered, answers in zip(offers, answering, strict=True) if answers]
        taken += sum(take(offered) for offered in offers)
        seen += len(page["hosts"])
        progress(seen, taken)
        following = _following(page)
        if following is None or ending.repeats(following) or not page["hosts"]:
            db.write(installation.remove, CURSOR_KEY)
            return taken
        cursor = following
        db.write(installation.put, CURSOR_KEY, cursor)


def unfinished(db: Database) -> bool:
    """True when a pull was stopped before its last page. Raises StoreError."""
    return db.read(installation.get, CURSOR_KEY) is not None


def store_host(db: Database, settings: Settings, offered: Offered) -> bool:
    """What `relay pull-hosts` does with a host: store it for the next start. False when it is known or banned."""
    return db.write(_store, offered, settings)


def _store(tx: Transaction, offered: Offered, settings: Settings) -> bool:
    hostname = offered.endpoint.hostname
    if hosts.by_hostname(tx, hostname) is not None or ban_of(tx, hostname):
        return False
    limit = crawl_checks.first_account_limit(settings, hostname, offered.accounts)
    trusted = crawl_checks.is_trusted(settings, hostname)
    hosts.insert(tx, hostname, no_ssl=False, account_limit=limit, trusted=trusted)
    return True


def _page(http: GuardedHttp, relay: str, batch: int, cursor: str) -> dict[str, Any]:
    query = {"limit": str(batch), **({"cursor": cursor} if cursor else {})}
    url = xrpc_url(relay, "com.atproto.sync.listHosts", query)
    response = http.get(url, timeout=PAGE_SECONDS, max_bytes=PAGE_BYTES)
    if response.status != 200:
        raise HttpError("http-broken", f"{url} answers HTTP {response.status}")
    page = response.json_object()
    if page is None or not isinstance(page.get("hosts"), list):
        raise HttpError("http-broken", f"{url} does not answer with a list of hosts")
    return page


def _following(page: dict[str, Any]) -> str | None:
    """The cursor of the next page; one that cannot be kept ends the list as well."""
    try:
        return read_cursor(page.get("cursor"))
    except ValueError:
        return None


def _wanted(listed: object) -> Offered | None:
    """A listed host that is worth crawling: in use, with events, public, with TLS."""
    if not isinstance(listed, dict) or listed.get("status") not in WANTED_STATUSES:
        return None
    seq, hostname = listed.get("seq"), listed.get("hostname")
    if not isinstance(seq, int) or seq <= 0 or not isinstance(hostname, str):
        return None
    try:
        endpoint = crawl_checks.check_name(hostname, admin=False, allow_insecure=False)
    except CrawlRefused:
        return None
    accounts = listed.get("accountCount")
    return Offered(endpoint, accounts if type(accounts) is int and accounts > 0 else 0)


def _answers(http: GuardedHttp, endpoint: Endpoint) -> bool:
    try:
        crawl_checks.check_answers(http, endpoint)
    except CrawlRefused as error:
        if error.reason == "crawl-busy":
            raise
        log.debug("host %s is refused: %s", endpoint.hostname, error)
        return False
    return True

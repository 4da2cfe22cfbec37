"""How hosts come in: by a crawl request, from the settings, or from another relay's list.

Owned by Hosts. Keeps the switch and the daily limit of crawl requests across restarts. What makes a single request
acceptable is in `crawl_checks`, paging another relay in `pull_hosts`.
"""

from __future__ import annotations

import logging
import random
import time

import gevent
from gevent.lock import BoundedSemaphore

from relay.atproto.hostname import Endpoint
from relay.config import Settings
from relay.hosts import crawl_checks, lifecycle, pull_hosts
from relay.hosts.dialler import Dialler
from relay.hosts.host import Host
from relay.hosts.lifecycle import Cause, Status
from relay.hosts.rates import MILLISECONDS, Window
from relay.hosts.registry import HostRegistry
from relay.kit.errors import CrawlRefused, RelayError
from relay.net.http import GuardedHttp
from relay.store import hosts as table
from relay.store import installation
from relay.store.database import Database, Transaction
from relay.store.decisions import CRAWL_ENABLED, NEW_HOSTS_PER_DAY
from relay.store.hosts import HostRow, ban_of
from relay.stream.cursors import NONE_YET

CHECKS_AT_ONCE = 20
ADMIN_CHECKS_AT_ONCE = 10
WAKE_SPACING_SECONDS = 30.0

log = logging.getLogger(__name__)


class NewHosts:
    """Adds hosts to the registry and has them dialled."""

    def __init__(
        self, db: Database, http: GuardedHttp, registry: HostRegistry, dialler: Dialler, settings: Settings
    ) -> None:
        self._db = db
        self._http = http
        self._registry = registry
        self._dialler = dialler
        self._settings = settings
        # An admin's host does not wait behind those of a crowd.
        self._checks = BoundedSemaphore(CHECKS_AT_ONCE)
        self._admin_checks = BoundedSemaphore(ADMIN_CHECKS_AT_ONCE)
        self._new_hosts = Window(MILLISECONDS["day"])
        # No more than requests are under way.
        self._coming: set[str] = set()
        self._crawl_enabled = not settings.disable_request_crawl
        self._new_hosts_per_day = settings.new_hosts_per_day

    def load(self, tx: Transaction) -> None:
        """Read what an admin set, and how many hosts came in the last day."""
        self._new_hosts = crawl_checks.load_new_hosts(tx)
        enabled = installation.get(tx, CRAWL_ENABLED)
        if enabled is not None:
            self._crawl_enabled = enabled == "1"
        per_day = installation.get(tx, NEW_HOSTS_PER_DAY)
        if per_day is not None:
            self._new_hosts_per_day = int(per_day)

    def request(self, hostname: str, *, admin: bool) -> None:
        """Take a host in, or connect to a known one at once with its failures forgotten.

        Raises CrawlRefused (`Forbidden`, `BadRequest`, `DomainBan`, `HostBanned`, `HostNotFound`,
        `RateLimitExceeded`) or StoreError. Admins pass the switch, the rules of TLS and
        localhost, and the daily limit; which addresses may be connected to is still decided by the guard.
        """
        if not admin and not self._crawl_enabled:
            raise CrawlRefused("crawl-disabled", "Forbidden", 403, "this relay accepts no crawl requests")
        endpoint = crawl_checks.check_name(hostname, admin=admin, allow_insecure=self._settings.allow_insecure_hosts)
        self._refuse_banned(endpoint.hostname)
        if self._is_served(endpoint.hostname):
            return
        self._check_answers(endpoint, admin=admin)
        # While the host was asked, another request may have taken it in or an admin banned it.
        self._refuse_banned(endpoint.hostname)
        host = self._registry.by_name(endpoint.hostname)
        if host is None:
            host = self._take_in(endpoint, counted=not admin)
        else:
            self._registry.change(host, Cause.CRAWL_REQUESTED)
            host.row.failures = 0
        first = host.cursor.position == NONE_YET and host.row.last_connected_at is None
        if first:
            # It answered just now, and asks when it has its first account, whose events came before we did: as of a
            # host that was connected and had sent nothing yet, all that it has is wanted.
            host.row.last_connected_at = time.time()
            host.changed = True
        self._dialler.dial_now(host)
        if first:
            # After a crash, too.
            self._registry.flush()

    @property
    def crawl_enabled(self) -> bool:
        """Whether public crawl requests are taken; kept over restarts once it was set."""
        return self._crawl_enabled

    @crawl_enabled.setter
    def crawl_enabled(self, enabled: bool) -> None:
        self._set(CRAWL_ENABLED, "1" if enabled else "0")
        self._crawl_enabled = enabled

    @property
    def per_day(self) -> int:
        """New hosts that public crawl requests may add in 24 hours; kept over restarts once it was set."""
        return self._new_hosts_per_day

    @per_day.setter
    def per_day(self, limit: int) -> None:
        self._set(NEW_HOSTS_PER_DAY, str(limit))
        self._new_hosts_per_day = limit

    def take_in_configured(self) -> None:
        """Add the hosts that the settings name. They are not asked anything: this is the operator's word."""
        for name in self._settings.hosts:
            try:
                insecure = self._settings.allow_insecure_hosts
                endpoint = crawl_checks.check_name(name, admin=True, allow_insecure=insecure)
                # Nobody asks this host whether it may be connected to, as is done for an admin's.
                if not insecure and (endpoint.is_local or not endpoint.tls):
                    raise CrawlRefused("crawl-insecure", "BadRequest", 400, "RELAY_ALLOW_INSECURE_HOSTS is not set")
                if self._registry.by_name(endpoint.hostname) is None:
                    self._take_in(endpoint, counted=False)
            except CrawlRefused as error:
                log.error("RELAY_HOSTS: %s is refused: %s", name, error)

    @property
    def bootstrap_due(self) -> bool:
        """True when the bootstrap relay is to be asked: no host is known, or an earlier pull was not finished."""
        return bool(self._settings.bootstrap_host) and (not len(self._registry) or pull_hosts.unfinished(self._db))

    def bootstrap(self) -> None:
        """Pull the network's hosts from the bootstrap relay, however often it takes."""
        failures = 0
        while True:
            try:
                pull_hosts.pull_hosts(
                    self._db,
                    self._http,
                    self._settings.bootstrap_host,
                    self._take_in_listed,
                    check=not self._settings.skip_host_checks,
                    progress=lambda seen, taken: log.info("bootstrap: %d hosts listed, %d taken", seen, taken),
                )
                return
            except RelayError as error:
                failures += 1
                delay = lifecycle.retry_delay(failures + 3, random.random())
                log.warning(
                    "the bootstrap from %s failed: %s; next attempt in %.0f s",
                    self._settings.bootstrap_host,
                    error,
                    delay,
                )
                gevent.sleep(delay)

    def _set(self, key: str, value: str) -> None:
        self._db.write(installation.put, key, value)
        self._registry.decisions.note("setting", key, value)
        self._registry.decisions.store()

    def _refuse_banned(self, hostname: str) -> None:
        domain = self._db.read(ban_of, hostname)
        if domain:
            raise domain_banned(domain)
        host = self._registry.by_name(hostname)
        if host is not None and host.status is Status.BANNED:
            raise CrawlRefused("crawl-host-banned", "HostBanned", 400, "this host is banned")

    def _is_served(self, hostname: str) -> bool:
        """True when the host is connected, or was tried so recently that asking again only costs both sides."""
        host = self._registry.by_name(hostname)
        if host is None or host.status in (Status.IDLE, Status.OFFLINE):
            return False
        if host.connected:
            return True
        waits = self._dialler.next_attempt_in(host)
        if waits is not None and waits > WAKE_SPACING_SECONDS:
            # An admin disconnected it.
            return False
        tried = host.row.last_attempt_at
        return tried is not None and time.time() - tried < WAKE_SPACING_SECONDS and host.row.failures <= 1

    def _check_answers(self, endpoint: Endpoint, *, admin: bool) -> None:
        places = self._admin_checks if admin else self._checks
        if not places.acquire(timeout=crawl_checks.DESCRIBE_SECONDS):
            raise CrawlRefused("crawl-busy", "RateLimitExceeded", 429, "too many crawl requests at once")
        try:
            crawl_checks.check_answers(self._http, endpoint, in_detail=admin)
        finally:
            places.release()

    def _take_in(self, endpoint: Endpoint, *, counted: bool, carried: int = 0) -> Host:
        name = endpoint.hostname
        # A host that is being stored for another request is counted already.
        if counted and name not in self._coming:
            now = int(time.time() * 1000)
            if self._new_hosts.wait(now, self._new_hosts_per_day):
                raise CrawlRefused("crawl-new-hosts", "RateLimitExceeded", 429, "no more new hosts are accepted today")
            self._new_hosts.add(now)
        limit = crawl_checks.first_account_limit(self._settings, name, carried)
        trusted = crawl_checks.is_trusted(self._settings, name)
        self._coming.add(name)
        try:
            row = self._db.write(_insert, endpoint, limit, trusted, self._new_hosts)
        finally:
            self._coming.discard(name)
        log.debug("new host %s", name)
        host = self._registry.add(row)
        self._registry.decided(host)
        # Whoever bans a domain bans the hosts that are known then: this one was not.
        domain = self._db.read(ban_of, host.hostname)
        if domain:
            host.note_error(domain_words(domain), time.time())
            self._registry.change(host, Cause.BLOCKED)
            self._registry.decided(host)
            raise domain_banned(domain)
        return host

    def _take_in_listed(self, offered: pull_hosts.Offered) -> bool:
        """Add a host that another relay lists; False when it is known or banned."""
        endpoint, carried = offered
        if self._registry.by_name(endpoint.hostname) is not None or self._db.read(ban_of, endpoint.hostname):
            return False
        try:
            host = self._take_in(endpoint, counted=False, carried=carried)
        except CrawlRefused:
            return False
        self._dialler.dial_now(host)
        return True


def domain_words(domain: str) -> str:
    """What the row of a host says that was banned with its domain."""
    return f"domain-banned: {domain}"


def domain_banned(domain: str) -> CrawlRefused:
    """Why no host of `domain` is taken in, or back."""
    return CrawlRefused("crawl-domain-banned", "DomainBan", 401, f"the domain {domain} is banned")


def _insert(tx: Transaction, endpoint: Endpoint, account_limit: int, trusted: bool, new_hosts: Window) -> HostRow:
    crawl_checks.store_new_hosts(tx, new_hosts)
    return table.insert(tx, endpoint.hostname, no_ssl=not endpoint.tls, account_limit=account_limit, trusted=trusted)

"""All upstream hosts: starting and stopping them, blocking and limiting them, and reporting how each one is doing.

The face of the room towards `app`, `admin` and the pages. The table of hosts is the registry's, dialling the dialler's,
and who may come in is decided by `new_hosts`; what is here is what admins may do, and what time alone changes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Literal

import gevent

from relay.atproto.errors import SyntaxInvalid
from relay.atproto.hostname import parse_endpoint
from relay.config import Settings
from relay.hosts.autoscale import Autoscale
from relay.hosts.dialler import Dialler
from relay.hosts.host import Host
from relay.hosts.lifecycle import LONGEST_DELAY_SECONDS, Cause, Status
from relay.hosts.limit_alerts import OK, WARNING, Kind
from relay.hosts.new_hosts import NewHosts, domain_banned, domain_words
from relay.hosts.registry import HostRegistry
from relay.hosts.rejected import RejectedFrame
from relay.hosts.report import HostReport, report_of
from relay.hosts.search import HostPage, HostQuery, select
from relay.hosts.subscriber import EventSink, StartsAgain, Subscriber
from relay.kit.background import Loop
from relay.kit.errors import ActionRefused, HostUnknown, StoreError
from relay.net.gathering import Gathering
from relay.net.http import GuardedHttp
from relay.store import hosts as table
from relay.store.database import Database, within
from relay.store.hosts import RateTier, add_ban, all_bans, ban_of, remove_ban, suffixes
from relay.stream.cursors import NONE_YET

FLUSH_SECONDS = 2.0
# Every host is looked at once in this many passes: to look at thousands at a time would hold up their events.
PASSES = 5
AUTOSCALE_SECONDS = 600.0
# The time of day that gets this far ahead of the steady clock was set, or the machine was asleep.
JUMP_SECONDS = 60.0
SETTLE_SECONDS = 20.0
# Longer than a disconnect and that together.
HELD_SECONDS = 60.0
# Between two attempts; what an admin has disconnected is looked at after hours.
LONGEST_PAUSE_SECONDS = 1.5 * LONGEST_DELAY_SECONDS

# Where to begin with a host's stream: behind one of its seqs, with all that it has, or with what comes from now on.
Position = int | Literal["oldest", "live"]

log = logging.getLogger(__name__)


class Hosts:
    """The relay's hosts. Methods named by an admin's action raise HostUnknown or StoreError."""

    def __init__(
        self,
        db: Database,
        registry: HostRegistry,
        sink: EventSink,
        starts_again: StartsAgain,
        limit_raised: Callable[[Host], None],
        http: GuardedHttp,
        settings: Settings,
    ) -> None:
        """`sink` are the lanes; `starts_again` and `limit_raised`, called with a host whose account limit was raised,
        are ingest's too.
        """
        self._db = db
        self._limit_raised = limit_raised
        self._settings = settings
        self._registry = registry
        gathering = None if settings.latency == "low" else Gathering()
        subscriber = Subscriber(http, sink, starts_again, gathering)
        self._dialler = Dialler(registry, subscriber, settings.replay_window)
        self.new_hosts = NewHosts(db, http, registry, self._dialler, settings)
        self._autoscale = Autoscale(db, self._set_account_limit)
        self._autoscale_at = 0.0
        self._turn = 0
        # When hosts were looked at last, by the steady clock and by the other one, and when that last jumped ahead.
        self._looked_at, self._looked_at_clock = time.monotonic(), time.time()
        self._clock_believed_since = 0.0
        self._upkeep = Loop("upkeep of hosts", self._look_after_hosts, FLUSH_SECONDS)
        self._bootstrap: gevent.Greenlet[[], None] | None = None

    def load(self) -> None:
        """Load all hosts. Admins may change them from now on. Raises StoreError."""
        self._db.read(self.new_hosts.load)
        self._registry.load()

    def start(self) -> None:
        """Load all hosts, or their counts again, and begin to connect to them. Returns at once; raises StoreError."""
        self.load()
        self.new_hosts.take_in_configured()
        self._apply_domain_bans()
        self._dialler.start()
        self._autoscale_at = time.monotonic() + AUTOSCALE_SECONDS
        self._upkeep.start(after=FLUSH_SECONDS)
        if self.new_hosts.bootstrap_due:
            self._bootstrap = gevent.spawn(self.new_hosts.bootstrap)

    def stop(self, timeout: float) -> None:
        """End all connections and store what was seen of the hosts."""
        self._dialler.stop(timeout)
        self._upkeep.stop()
        if self._bootstrap is not None:
            self._bootstrap.kill(timeout=timeout)
        try:
            with within(timeout):
                self._registry.flush()
        except StoreError as error:
            log.debug("the hosts' state is not stored: %s", error)

    def connected(self) -> list[str]:
        """The names of the hosts that are connected, in order."""
        return sorted(host.hostname for host in self._registry if host.connected)

    def follows(self, hostname: str) -> bool:
        """Whether a host is connected, or is dialled now or soon, as between two connections."""
        host = self._registry.by_name(hostname)
        if host is None or host.status not in (Status.ACTIVE, Status.THROTTLED):
            return False
        waits = self._dialler.next_attempt_in(host)
        return host.connected or waits is None or waits < LONGEST_PAUSE_SECONDS

    def disconnect(self, hostname: str, *, block: bool) -> bool:
        """End a host's connection, and ban it with `block`. False when it was not connected."""
        host = self.known(hostname)
        if block:
            connected = self._ban(host, "blocked: by an admin")
            self._registry.decisions.store()
            return connected
        connected = self._dialler.disconnect(host)
        self._registry.change(host, Cause.DISCONNECTED)
        self._dialler.probe_later(host)
        self._registry.flush()
        return connected

    def block(self, hostname: str) -> None:
        """Ban a host, its live connection included."""
        self._ban(self.known(hostname), "blocked: by an admin")
        self._registry.decisions.store()

    def unblock(self, hostname: str) -> None:
        """Lift a host's ban and connect to it. Raises CrawlRefused while its domain is banned."""
        host = self.known(hostname)
        domain = self._db.read(ban_of, host.hostname)
        if domain:
            raise domain_banned(domain)
        self._unban(host)
        self._registry.decisions.store()

    def ban_domain(self, domain: str) -> bool:
        """Ban a domain, and every known host in it at once. False when it was banned already."""
        domain = _normal_domain(domain)
        added = self._db.write(add_ban, domain)
        self._registry.decisions.note("ban", domain, True)
        for host in self._registry:
            if host.status is not Status.BANNED and domain in suffixes(host.hostname):
                self._ban(host, domain_words(domain))
        self._registry.decisions.store()
        return added

    def unban_domain(self, domain: str) -> bool:
        """Lift a domain's ban, and that of the hosts which were banned with it. False when there was none."""
        domain = _normal_domain(domain)
        removed = self._db.write(remove_ban, domain)
        self._registry.decisions.note("ban", domain, False)
        for host in self._registry:
            with_it = host.status is Status.BANNED and host.row.last_error == domain_words(domain)
            if with_it and not self._db.read(ban_of, host.hostname):
                self._unban(host)
        self._registry.decisions.store()
        return removed

    def set_cursor(self, hostname: str, position: Position) -> None:
        """Connect to a host anew, for the events after `position`, for all that it has, or from now on.

        Raises ActionRefused `host-busy` when the events that are under way do not come to their end.
        """
        host = self.known(hostname)
        # Nobody dials it meanwhile, as a crawl request would.
        left_alone_until, host.left_alone_until = host.left_alone_until, time.monotonic() + HELD_SECONDS
        try:
            self._dialler.disconnect(host)
            settled = self._settled(host)
        finally:
            host.left_alone_until = left_alone_until
        if not settled:
            self._dialler.dial_now(host)
            words = f"events of {host.hostname} are still under way: try again"
            raise ActionRefused("host-busy", "HostBusy", 409, words)
        passed_over = position == "live" or (isinstance(position, int) and position > host.cursor.position > NONE_YET)
        host.cursor.reset()
        if passed_over:
            host.cursor.note_gap("passed-over")
        host.skip = 0
        host.go_live = position == "live"
        host.ask_from = None if position == "live" else 0 if position == "oldest" else position
        self._dialler.dial_now(host)

    def change_limits(
        self,
        hostname: str,
        *,
        account_limit: int | None = None,
        rates: dict[RateTier, int | None] | None = None,
        alerts_silenced: bool | None = None,
    ) -> None:
        """Change a host's account limit, its rates per tier (None: by the formula again), or whether alerts about
        it are sent. Applies at once.
        """
        host = self.known(hostname)
        if alerts_silenced is not None:
            # As in indigo, one that is silenced starts afresh when it is heard again.
            self._set_alert(
                host,
                alerts_silenced,
                OK if alerts_silenced else host.row.alert_state,
                None if alerts_silenced else host.row.alert_sent_at,
            )
        if rates:
            self._db.write(table.set_rates, host.id, rates)
            for tier, value in rates.items():
                setattr(host.row, tier, value)
        if account_limit is not None:
            self._set_account_limit(host, account_limit)
        self._registry.decided(host)
        self._registry.decisions.store()

    def note_alert(self, hostname: str, kind: Kind, sent_at: datetime) -> bool:
        """A sibling relay sent an alert about a host at `sent_at`. False when it is not news or the host is unknown."""
        host = self._registry.by_name(hostname)
        if host is None or host.row.alerts_silenced:
            return False
        known = host.row.alert_sent_at
        if known is not None and known > sent_at:
            return False
        self._set_alert(host, False, WARNING if kind == "warning" else OK, sent_at)
        return True

    def report(self, hostname: str) -> HostReport:
        """All that is known of one host."""
        host = self.known(hostname)
        return self._report(host, self._registry.rejected.of_host(host.id))

    def rejected_frame(self, hostname: str, number: int) -> RejectedFrame | None:
        """A rejected frame of a host, as long as it is kept. Raises HostUnknown."""
        return self._registry.rejected.get(self.known(hostname).id, number)

    def reports(self) -> Iterator[HostReport]:
        """All that is known of every host, by id, each as of when it is taken."""
        return map(self._report, self._registry)

    def search(self, query: HostQuery) -> HostPage:
        """One page of the hosts that `query` asks for."""
        now = time.time()
        found, by_state = select(self._registry, query, lambda one: one.drops.total(now))
        rows = [self._report(host) for host in found[query.start : query.start + query.count]]
        return HostPage(rows, len(found), by_state)

    def _apply_domain_bans(self) -> None:
        """A database that another relay wrote may have active hosts in domains that it has banned, as it was typed."""
        domains = set(map(_normal_domain, self._db.read(all_bans)))
        for host in self._registry:
            for domain in domains.intersection(suffixes(host.hostname)):
                if host.status is not Status.BANNED:
                    host.note_error(domain_words(domain), time.time())
                    self._registry.change(host, Cause.BLOCKED)

    def _look_after_hosts(self) -> None:
        now = time.time()
        passed, self._looked_at = time.monotonic() - self._looked_at, time.monotonic()
        if now - self._looked_at_clock > passed + JUMP_SECONDS:
            self._clock_believed_since = now
        self._looked_at_clock = now
        self._turn = (self._turn + 1) % PASSES
        for host in islice(self._registry, self._turn, None, PASSES):
            cause = host.due_change(now, self._settings.host_idle_after, self._clock_believed_since)
            if cause is Cause.QUIET:
                self._dialler.disconnect(host)
                self._dialler.probe_later(host)
            if cause is not None:
                self._registry.change(host, cause)
        try:
            self._registry.flush()
            if self._settings.account_limit_autoscale and time.monotonic() > self._autoscale_at:
                self._autoscale_at += AUTOSCALE_SECONDS
                self._autoscale.run(self._registry)
        except StoreError as error:
            log.debug("the hosts' state waits for the database: %s", error)

    def known(self, hostname: str) -> Host:
        """The host of that name, however it is written. Raises HostUnknown."""
        try:
            name = parse_endpoint(hostname).hostname
        except SyntaxInvalid:
            raise HostUnknown(hostname) from None
        host = self._registry.by_name(name)
        if host is None:
            raise HostUnknown(hostname)
        return host

    def _settled(self, host: Host) -> bool:
        """Wait until nothing of the host is under way. True when that is so in time."""
        give_up = time.monotonic() + SETTLE_SECONDS
        while host.cursor.outstanding and time.monotonic() < give_up:
            gevent.sleep(0.05)
        return not host.cursor.outstanding

    def _ban(self, host: Host, words: str) -> bool:
        """Ban a host; True when it was connected. In force even when SQL is away, and stored as soon as it is back."""
        host.note_error(words, time.time())
        self._registry.change(host, Cause.BLOCKED)
        self._registry.decided(host)
        connected = self._dialler.disconnect(host)
        self._registry.flush()
        return connected

    def _unban(self, host: Host) -> None:
        if host.status is Status.BANNED:
            # Nothing of it is healed while it is banned, and what was noted is forgotten.
            host.cursor.note_gap("unblocked")
        self._registry.change(host, Cause.UNBLOCKED)
        host.row.failures = 0
        self._registry.decided(host)
        # Also while SQL is away.
        self._dialler.dial_now(host)
        self._registry.flush()

    def _set_account_limit(self, host: Host, limit: int) -> None:
        self._db.write(table.set_account_limit, host.id, limit)
        raised = limit - host.account_limit
        host.row.account_limit = limit
        if raised > 0:
            self._limit_raised(host)

    def _set_alert(self, host: Host, silenced: bool, state: str, sent_at: datetime | None) -> None:
        self._db.write(table.set_alert, host.id, silenced=silenced, state=state, sent_at=sent_at)
        row = host.row
        row.alerts_silenced, row.alert_state, row.alert_sent_at = silenced, state, sent_at

    def _report(self, host: Host, rejected: list[RejectedFrame] | None = None) -> HostReport:
        return report_of(host, self._dialler.next_attempt_in(host), time.time(), rejected)


def _normal_domain(domain: str) -> str:
    return domain.strip().rstrip(".").lower()

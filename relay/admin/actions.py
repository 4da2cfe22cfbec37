"""What an operator can do: each action checks, changes, writes the audit line and tells sibling relays, in that order.

The JSON routes and the pages call it for an `Actor`. The audit line goes to a logger of its own, `relay.audit`, so that
operators can keep these lines apart. Must not know of Flask, pages or SQL.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from relay.admin.siblings import Call, Forward, Siblings
from relay.atproto.hostname import Endpoint
from relay.collections.imports import Imports
from relay.healing.hosts import HostHealing
from relay.hosts.hosts import Hosts, Position
from relay.hosts.limit_alerts import Kind
from relay.ingest.moderation import Moderation
from relay.kit.errors import ActionRefused

log = logging.getLogger("relay.audit")

RateTier = Literal["per_second", "per_hour", "per_day"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who wants a change: `address` is for the audit line, `sends` gives what siblings are sent of a change.

    A request is sent on as it came; a page has a call made of the change.
    """

    address: str
    sends: Callable[[Call], Forward | None]


class LimitChange(NamedTuple):
    """What may change of a host's limits; None leaves as it is, a rate of None goes back to the formula."""

    account_limit: int | None
    rates: dict[RateTier, int | None]
    alerts_silenced: bool | None


class Admin:
    """One method per action, each for an Actor. All raise StoreError when the change cannot be stored; those that name
    a host raise HostUnknown, those that name an account AccountUnknown.
    """

    def __init__(
        self, hosts: Hosts, moderation: Moderation, imports: Imports, siblings: Siblings, healing: HostHealing | None
    ) -> None:
        """`healing` is None when the operator has switched it off."""
        self._hosts = hosts
        self._moderation = moderation
        self._imports = imports
        self._siblings = siblings
        self._healing = healing

    def at_page(self, address: str) -> Actor:
        """The actor of a page: siblings are sent calls of this relay's own."""
        return Actor(address, self._siblings.own)

    def crawl(self, actor: Actor, hostname: str) -> None:
        """Subscribe to a host, past the checks that only the public has to pass. Raises CrawlRefused."""
        self._hosts.new_hosts.request(hostname, admin=True)
        _audit(actor, "request-crawl", hostname=hostname)
        self._tell(actor, Call("/admin/pds/requestCrawl", body={"hostname": hostname}))

    def public_crawl(self, actor: Actor, hostname: str) -> None:
        """What anybody may ask: subscribe to a host. Raises CrawlRefused.

        Siblings hear of what was granted only: a refused request must not become one to each of them.
        """
        self._hosts.new_hosts.request(hostname, admin=False)
        self._tell(actor, Call("/xrpc/com.atproto.sync.requestCrawl", body={"hostname": hostname}))

    def disconnect(self, actor: Actor, hostname: str, *, block: bool) -> None:
        """End a host's connection, or its dialling, and ban it with `block`.

        Without `block`, raises ActionRefused when it is neither connected nor about to be.
        """
        if not block and not self._hosts.follows(hostname):
            words = "the host is not connected, and not about to be"
            raise ActionRefused("host-not-connected", "NoActiveConnection", 400, words)
        self._hosts.disconnect(hostname, block=block)
        _audit(actor, "disconnect", host=hostname, block=block)
        query = {"host": hostname, **({"block": "true"} if block else {})}
        self._tell(actor, Call("/admin/subs/killUpstream", query))

    def block(self, actor: Actor, hostname: str) -> None:
        """Ban one host and disconnect it."""
        self._hosts.block(hostname)
        _audit(actor, "block", host=hostname)
        self._tell(actor, Call("/admin/pds/block", {"host": hostname}))

    def unblock(self, actor: Actor, hostname: str) -> None:
        """Lift one host's ban and connect to it. Raises CrawlRefused while its domain is banned."""
        self._hosts.unblock(hostname)
        _audit(actor, "unblock", host=hostname)
        self._tell(actor, Call("/admin/pds/unblock", {"host": hostname}))

    def set_cursor(self, actor: Actor, hostname: str, position: Position) -> None:
        """Connect to a host anew, for its events after a number, for all that it has, or from now on.

        Siblings are not told: where each relay stands with a host is its own. Raises ActionRefused.
        """
        self._hosts.set_cursor(hostname, position)
        _audit(actor, "set-cursor", host=hostname, cursor=position)

    def heal(self, actor: Actor, hostname: str) -> None:
        """Compare a host's accounts with the relay's, and fetch what is missing. Siblings are not told.

        Raises ActionRefused when healing is switched off.
        """
        self._host_healing().begin(self._hosts.known(hostname))
        _audit(actor, "heal", host=hostname)

    def end_heal(self, actor: Actor, hostname: str) -> None:
        """Stop comparing a host's accounts. Raises ActionRefused when that is not under way."""
        if not self._host_healing().end(self._hosts.known(hostname)):
            raise ActionRefused("heal-not-running", "HealNotRunning", 400, "this host is not being compared")
        _audit(actor, "heal-stop", host=hostname)

    def change_limits(self, actor: Actor, hostname: str, change: LimitChange) -> None:
        """Change a host's limits, also of its open connection."""
        account_limit, rates, silenced = change
        self._hosts.change_limits(hostname, account_limit=account_limit, rates=rates, alerts_silenced=silenced)
        _audit(actor, "change-limits", host=hostname, repo_limit=account_limit, rates=rates, alerts_silenced=silenced)
        body: dict[str, object] = {"host": hostname}
        for tier, rate in rates.items():
            body[tier] = rate
        if account_limit is not None:
            body["repo_limit"] = account_limit
        if silenced is not None:
            body["account_limit_alerts_silenced"] = silenced
        self._tell(actor, Call("/admin/pds/changeLimits", body=body))

    def ban_domain(self, actor: Actor, domain: str) -> None:
        """Ban a domain with all its hosts, connected ones as well."""
        self._hosts.ban_domain(domain)
        _audit(actor, "ban-domain", domain=domain)
        self._tell(actor, Call("/admin/subs/banDomain", body={"Domain": domain}))

    def unban_domain(self, actor: Actor, domain: str) -> None:
        """Lift a domain's ban. Raises ActionRefused when it is not banned."""
        if not self._hosts.unban_domain(domain):
            raise ActionRefused("domain-not-banned", "BanNotFound", 404, f"{domain} is not banned")
        _audit(actor, "unban-domain", domain=domain)
        self._tell(actor, Call("/admin/subs/unbanDomain", body={"Domain": domain}))

    def open_crawling(self, actor: Actor, enabled: bool) -> None:
        """Open requestCrawl to the public, or close it. Each relay's own: siblings are not told."""
        self._hosts.new_hosts.crawl_enabled = enabled
        _audit(actor, "set-enabled", enabled=enabled)

    def limit_new_hosts(self, actor: Actor, limit: int) -> None:
        """Change how many new hosts requestCrawl takes in 24 hours. Siblings are not told."""
        self._hosts.new_hosts.per_day = limit
        _audit(actor, "set-per-day-limit", limit=limit)

    def take_down(self, actor: Actor, did: str) -> None:
        """Stop an account's events, and hide its past ones. Raises LogError."""
        self._moderation.takedown(did)
        _audit(actor, "takedown", did=did)
        self._tell(actor, Call("/admin/repo/takeDown", body={"did": did}))

    def restore(self, actor: Actor, did: str) -> None:
        """Undo a takedown. Raises LogError."""
        self._moderation.restore(did)
        _audit(actor, "reverse-takedown", did=did)
        self._tell(actor, Call("/admin/repo/reverseTakedown", body={"did": did}))

    def note_alert(self, actor: Actor, hostname: str, kind: Kind, sent_at: datetime) -> None:
        """A sibling has sent an alert about a host's account limit. What is not news here changes nothing."""
        if self._hosts.note_alert(hostname, kind, sent_at):
            _audit(actor, "alert-sent", host=hostname, kind=kind)

    def begin_import(self, actor: Actor, source: Endpoint, nsids: Sequence[str]) -> None:
        """Import another relay's collection index, of `nsids` or of all. Siblings are not told. Raises ImportBusy."""
        self._imports.begin(source, nsids)
        _audit(actor, "backfill-begin", source=source.url, collections=len(nsids) or "all")

    def end_import(self, actor: Actor, source: Endpoint) -> None:
        """Stop an import; what it took stays. Raises ActionRefused when none is under way from this source."""
        if not self._imports.end(source):
            words = "nothing is being imported from this source"
            raise ActionRefused("import-not-running", "BackfillNotRunning", 400, words)
        _audit(actor, "backfill-stop", source=source.url)

    def note_login(self, actor: Actor) -> None:
        """Somebody opened the pages with the password."""
        _audit(actor, "dash-login")

    def note_logout(self, actor: Actor) -> None:
        """Somebody left the pages."""
        _audit(actor, "dash-logout")

    def _host_healing(self) -> HostHealing:
        if self._healing is None:
            raise ActionRefused("healing-off", "HealingOff", 400, "RELAY_HEAL=off: start the relay with another value")
        return self._healing

    def _tell(self, actor: Actor, call: Call) -> None:
        self._siblings.forward(actor.sends(call))


def _audit(actor: Actor, action: str, **values: object) -> None:
    # As JSON: what comes from a request can not start a new line.
    said = "".join(f" {name}={json.dumps(value)}" for name, value in values.items())
    log.info("%s%s by=%s", action, said, actor.address)

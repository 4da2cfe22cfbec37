"""Raises the account limit of a host in good standing, slowly and with a line in the audit log.

Run by Hosts unless the operator turned it off. The rule is a pure function of what is known of the host; the rest
remembers who grew in the last day, also across restarts.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.store import installation
from relay.store.database import Database

USED_SHARE = 0.8
GROWTH = 1.25
SMALLEST_STEP = 25
CEILING = 100_000
KNOWN_SECONDS = 7 * 86_400.0
SPACING_SECONDS = 86_400.0
DROPS_FORGIVEN = 10
DROPS_SHARE = 0.01
GROWN_KEY = "account-limits-grown"

audit = logging.getLogger("relay.audit")


def grown_limit(host: Host, messages: float, dropped: int, now: float) -> int | None:
    """The next account limit of a host, or None when it is to stay; `messages` and `dropped` are of the last day."""
    if host.row.trusted or host.account_limit >= CEILING or host.account_count < USED_SHARE * host.account_limit:
        return None
    if host.status is not Status.ACTIVE or not host.connected:
        return None
    if now - host.row.created_at.timestamp() < KNOWN_SECONDS:
        return None
    if dropped > DROPS_FORGIVEN + DROPS_SHARE * messages:
        return None
    return min(CEILING, max(host.account_limit + SMALLEST_STEP, int(host.account_limit * GROWTH)))


class Autoscale:
    """Applies the rule to all hosts, to each at most once a day. Bounded by the hosts that grew in that time."""

    def __init__(self, db: Database, change: Callable[[Host, int], None]) -> None:
        """`change(host, limit)` gives a host its new limit; it may raise StoreError, as `run` then does."""
        self._db = db
        self._change = change
        self._grown: dict[str, float] | None = None

    def run(self, hosts: Iterable[Host]) -> None:
        """Raise the limits that are due. Raises StoreError."""
        now = time.time()
        grown = self._recently_grown(now)
        for host in hosts:
            dropped = host.drops.total(now)
            messages = host.limiter.last_day(int(time.monotonic() * 1000))
            limit = grown_limit(host, messages, dropped, now)
            if limit is None or str(host.id) in grown:
                continue
            grown[str(host.id)] = now
            # Stored first: a crash in between costs the host a day, the other way round would grow it twice.
            self._db.write(installation.put, GROWN_KEY, json.dumps(grown))
            before = host.account_limit
            self._change(host, limit)
            audit.info("account limit of %s raised from %d to %d by itself", host.hostname, before, limit)

    def _recently_grown(self, now: float) -> dict[str, float]:
        if self._grown is None:
            self._grown = json.loads(self._db.read(installation.get, GROWN_KEY) or "{}")
        self._grown = {host: when for host, when in self._grown.items() if abs(now - when) < SPACING_SECONDS}
        return self._grown

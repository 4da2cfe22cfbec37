"""Runs what a held event waits for: a DID lookup, a status question, a cool-down.

Called by a parked account's own greenlet, so it may block; each errand ends within a bounded time. Must not touch
queues or judge events.
"""

from __future__ import annotations

import random
import time

import gevent

from relay.identity.resolver import Resolver
from relay.ingest.delivery import Errand, Item
from relay.ingest.penalties import Penalties
from relay.ingest.status_check import StatusCheck
from relay.kit import metrics
from relay.kit.errors import IdentityError

RESOLVE_FOR_SECONDS = 300.0
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0


class Errands:
    """The errands, by kind."""

    def __init__(self, resolver: Resolver, status_check: StatusCheck, penalties: Penalties) -> None:
        self._resolver = resolver
        self._status_check = status_check
        self._penalties = penalties

    def run(self, item: Item, errand: Errand) -> None:
        """Do `errand` for `item`. Raises IdentityError `did-unavailable` when a lookup got no answer for minutes."""
        if errand is Errand.IDENTITY or errand is Errand.REFRESH:
            self._resolve(item, refresh=errand is Errand.REFRESH)
        elif errand is Errand.STATUS:
            self._status_check.run(item.event.did, item.host)
        else:
            owed = self._penalties.owed(item.event.did)
            gevent.sleep(owed)
            metrics.ACCOUNT_THROTTLED_SECONDS.inc(owed)

    def _resolve(self, item: Item, *, refresh: bool) -> None:
        """Look the DID up, and again while the directory gives no answer: an outage must not cost events."""
        give_up = time.monotonic() + RESOLVE_FOR_SECONDS
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                self._resolver.resolve(item.event.did, refresh=refresh, host=item.host.hostname)
                return
            except IdentityError as error:
                if error.reason != "did-unavailable":
                    # A fact about the DID: the gate sees it too and decides what it means for this event.
                    return
                if time.monotonic() + pause > give_up:
                    raise
            gevent.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_RETRY_SECONDS)

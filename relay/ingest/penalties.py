"""Slows single accounts that send too many events which are invalid or `#sync`, so that their host need not be.

The gate charges accounts here and holds those that owe time; the errand runner waits it off. Only accounts of an
authoritative host are charged: nobody can slow somebody else's account.
"""

from __future__ import annotations

import logging

from cachetools import TTLCache

from relay.kit import metrics

FREE_CHARGES = 20
WINDOW_SECONDS = 600.0
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 60.0
CAPACITY = 50_000

log = logging.getLogger(__name__)


class Penalties:
    """Charges per account within a window that begins with its first one; bounded, the oldest windows go first."""

    def __init__(self) -> None:
        self._charges: TTLCache[str, int] = TTLCache(CAPACITY, WINDOW_SECONDS)
        # Those that may owe time: asking a TTLCache for each event of everybody costs ten times as much.
        self._charged_often: set[str] = set()
        metrics.QUEUE_CAPACITY.labels("penalties").set(CAPACITY)

    def charge(self, did: str) -> None:
        """Count one offence of `did`."""
        charges = self._charges[did] = self._charges.get(did, 0) + 1
        if charges > FREE_CHARGES:
            self._charged_often.add(did)
        if charges == FREE_CHARGES + 1:
            log.warning("account %s is slowed: over %d invalid or #sync events in ten minutes", did, FREE_CHARGES)
        if len(self._charged_often) > CAPACITY:
            self._charged_often.intersection_update(self._charges)
        # From the hub: a TTLCache forgets as its length is asked, and a scrape comes from another thread.
        metrics.QUEUE_SIZE.labels("penalties").set(len(self._charges))

    def owed(self, did: str) -> float:
        """Seconds that the next event of `did` has to wait: none for the first offences, then doubling."""
        if did not in self._charged_often:
            return 0.0
        excess = self._charges.get(did, 0) - FREE_CHARGES
        if excess <= 0:
            self._charged_often.discard(did)
            return 0.0
        return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(excess - 1, 16))

"""Slows single accounts that send too many events which are invalid or `#sync`, so that their host need not be.

The gate charges accounts here and holds those that owe time; the errand runner waits it off. Only accounts of an
authoritative host are charged: nobody can slow somebody else's account.
"""

from __future__ import annotations

import logging
import time

from relay.kit import metrics
from relay.kit.limits import Tally

FREE_CHARGES = 20
WINDOW_SECONDS = 600.0
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 60.0
CAPACITY = 50_000

log = logging.getLogger(__name__)


class Penalties:
    """Charges per account within a window that begins with its first one; bounded, the oldest windows go first."""

    def __init__(self) -> None:
        self._charges: Tally[str] = Tally(WINDOW_SECONDS, CAPACITY)
        # Those that may owe time: asking the tally for each event of everybody costs ten times as much.
        self._charged_often: set[str] = set()
        metrics.show_bound("penalties", lambda: len(self._charges), CAPACITY)

    def charge(self, did: str) -> None:
        """Count one offence of `did`."""
        now = time.monotonic()
        charges = self._charges.add(did, now)
        if charges > FREE_CHARGES:
            self._charged_often.add(did)
        if charges == FREE_CHARGES + 1:
            log.warning("account %s is slowed: over %d invalid or #sync events in ten minutes", did, FREE_CHARGES)
        if len(self._charged_often) > CAPACITY:
            self._charged_often = {charged for charged in self._charged_often if self._charges.count(charged, now)}

    def owed(self, did: str) -> float:
        """Seconds that the next event of `did` has to wait: none for the first offences, then doubling."""
        if did not in self._charged_often:
            return 0.0
        excess = self._charges.count(did, time.monotonic()) - FREE_CHARGES
        if excess <= 0:
            self._charged_often.discard(did)
            return 0.0
        return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(excess - 1, 16))

"""Slows accounts that send much which is invalid, or costs much: `#sync`, and an `#account` that takes reading their
document.

The gate charges accounts for what their authoritative host sends, so that nobody can slow somebody else's account, and
holds events of those that owe time, which `waits` lets pass. Must not know what an offence is.
"""

from __future__ import annotations

import logging
import time

from relay.kit import metrics
from relay.kit.limits import Tally

FREE_CHARGES = 20
CHARGES_SECONDS = 600.0
CHARGES_CAPACITY = 50_000
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 60.0

log = logging.getLogger(__name__)


class Penalties:
    """Charges per account within ten minutes of the first one, and the delay that follows from them.

    `charged` are the accounts that may owe something: few, so that others need not be asked about.
    """

    def __init__(self) -> None:
        self._charges: Tally[str] = Tally(CHARGES_SECONDS, CHARGES_CAPACITY)
        self.charged = self._charges.keys()
        metrics.show_bound("penalties", self._charges.__len__, CHARGES_CAPACITY)

    def charge(self, did: str) -> None:
        """Count one offence of `did`."""
        if self._charges.add(did, time.monotonic()) == FREE_CHARGES + 1:
            log.info(
                "account %s is slowed: over %d events in ten minutes that are invalid, #sync or change its status",
                did,
                FREE_CHARGES,
            )

    def owed(self, did: str) -> float:
        """Seconds that the next event of `did` has to wait: none for the first offences, then doubling."""
        excess = self._charges.count(did, time.monotonic()) - FREE_CHARGES
        if excess <= 0:
            return 0.0
        return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(excess - 1, 16))

"""Counts failures of the database, and says in the log when it went away and when it came back.

Used by both engines. Whoever waits for the database says nothing: hundreds may wait at the same time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from relay.kit import metrics
from relay.kit.errors import StoreError

# As long as it lasts, and for a database that comes and goes.
SAID_EVERY_SECONDS = 60.0

log = logging.getLogger(__name__)


class Outage:
    """Whether the database is away, as the last transaction found it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._said_at: float | None = None
        self._told = False

    def note(self, error: StoreError) -> StoreError:
        """A transaction failed; its error is given back to be raised, so that no frame need keep it."""
        metrics.STORE_FAILURES.inc()
        if error.reason != "store-unavailable":
            return error
        now = self._clock()
        if self._since is None:
            self._since = now
        if self._said_at is None or now - self._said_at >= SAID_EVERY_SECONDS:
            self._said_at, self._told = now, True
            log.warning("the database does not answer, and what needs it waits: %s", error.detail)
        return error

    def end(self) -> None:
        """A transaction came through."""
        if self._since is None:
            return
        since, self._since = self._since, None
        if self._told:
            log.info("the database answers again, after %.1f s", self._clock() - since)
        self._told = False

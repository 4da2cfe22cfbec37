"""Gives places that come free on a host at its account limit to the accounts that wait for one, the oldest first.

`hosting` reports when an account has gone or is active again, `hosts` when a limit was raised; `moderation` releases.
How many places are free is read in SQL, which follows the log: so a host is looked at until SQL knows as many accounts
as memory. Must not know of events.
"""

from __future__ import annotations

import logging

import gevent

from relay.hosts.host import Host
from relay.ingest.moderation import Moderation
from relay.kit.errors import RelayError
from relay.store import accounts as table
from relay.store.database import Database

PAUSE_SECONDS = 1.0
# A host is looked at no more after this many passes in a row that release nothing.
PASSES = 60
RELEASED_PER_PASS = 1000

log = logging.getLogger(__name__)


class Places:
    """Which hosts are looked at: each once, by a greenlet of its own."""

    def __init__(self, db: Database, moderation: Moderation) -> None:
        self._db = db
        self._moderation = moderation
        # Bounded by the hosts there are.
        self._greenlets: dict[int, gevent.Greenlet[[Host], None]] = {}
        self._news: set[int] = set()

    def freed(self, host: Host) -> None:
        """A place of `host` may be free. Never blocks."""
        if host.account_count < host.account_limit:
            # Those that wait count too: there are none.
            return
        self.look_at(host)

    def look_at(self, host: Host) -> None:
        """Give away the places that `host` has, if it has any. Never blocks."""
        self._news.add(host.id)
        if host.id not in self._greenlets:
            self._greenlets[host.id] = gevent.spawn(self._look_after, host)

    def stop(self) -> None:
        """End what is under way; a place that is left is given away when the next one comes free."""
        gevent.killall(list(self._greenlets.values()), timeout=5)

    def _look_after(self, host: Host) -> None:
        try:
            in_vain = 0
            while in_vain < PASSES:
                self._news.discard(host.id)
                gevent.sleep(PAUSE_SECONDS)
                released, in_step = self._pass(host)
                if in_step and released < RELEASED_PER_PASS and host.id not in self._news:
                    return
                in_vain = 0 if released else in_vain + 1
        finally:
            del self._greenlets[host.id]

    def _pass(self, host: Host) -> tuple[int, bool]:
        """Release as many as there are places for: how many they were, and whether SQL was up to date."""
        try:
            accounts, waiting = self._db.read(table.places_taken, host.id)
            free = min(host.account_limit - (accounts - waiting), waiting, RELEASED_PER_PASS)
            released = self._moderation.release_throttled(host, free) if free > 0 else 0
        except RelayError as error:
            log.debug("free places of %s are given away later: %s", host.hostname, error)
            return 0, False
        if released:
            log.debug("host %s: %d accounts got places that had come free", host.hostname, released)
        return released, accounts == host.account_count

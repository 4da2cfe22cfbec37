"""Starts work on the hosts that are due: a loop, and a greenlet for each host at work, a bounded number at a time.

Used by `accounts` and by `hosts`, which say what is due and what is done. Must not know either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gevent.pool import Group

from relay.hosts.host import Host
from relay.kit.background import Loop
from relay.kit.clock import boot_seconds
from relay.kit.errors import StoreError

PASS_SECONDS = 2.0
# A look that comes this late is left out: the process stood still, and what hosts sent meanwhile is read first.
LATE_SECONDS = 6.0

log = logging.getLogger(__name__)


class HostTasks:
    """The hosts at work, at most `at_once`. Every two seconds `look` may `begin` others; it may raise StoreError."""

    def __init__(self, name: str, look: Callable[[], None], at_once: int) -> None:
        self._name = name
        self._look = look
        self._at_once = at_once
        self._at_work: set[int] = set()
        self._greenlets = Group()
        self._loop = Loop(name, self._pass, PASS_SECONDS)
        self._looked_at = boot_seconds()

    def __len__(self) -> int:
        """How many hosts are at work."""
        return len(self._at_work)

    def start(self) -> None:
        """Start looking, two seconds from now."""
        self._loop.start(after=PASS_SECONDS)

    def look_now(self) -> None:
        """Look at once instead of when the two seconds are over."""
        self._loop.wake()

    def stop(self) -> None:
        """Stop at once; work under way is killed."""
        self._loop.stop()
        self._greenlets.kill(timeout=1.0)

    def begin(self, host: Host, work: Callable[[Host], None]) -> None:
        """Have `work` done on `host`, unless it is at work already or there is no room: then a later look begins it."""
        if host.id not in self._at_work and len(self._at_work) < self._at_once:
            self._at_work.add(host.id)
            self._greenlets.spawn(self._do, host, work)

    def join(self) -> None:
        """Wait until everything that was begun is over. Ended by the timeouts of the work."""
        self._greenlets.join()

    def _pass(self) -> None:
        try:
            if boot_seconds() - self._looked_at < LATE_SECONDS:
                self._look()
        except StoreError as error:
            log.debug("the %s waits for the database: %s", self._name, error)
        finally:
            self._looked_at = boot_seconds()

    def _do(self, host: Host, work: Callable[[Host], None]) -> None:
        try:
            work(host)
        finally:
            self._at_work.discard(host.id)

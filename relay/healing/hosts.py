"""Heals whole hosts: pages the list of each one that is due, and notes the accounts that the relay has differently.

A loop of its own, built by `healing`; nothing waits for it. Where it stands is in SQL with what it found, so that it
goes on after a restart. What is noted is fetched by `accounts`. Must not know what made a host due.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import gevent

from relay.healing import listing
from relay.healing.catching_up import CATCH_UP_SECONDS, QUIET_SECONDS, is_close
from relay.healing.host_tasks import HostTasks
from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.registry import HostRegistry
from relay.kit import metrics
from relay.kit.errors import HealError, StoreError
from relay.net.http import GuardedHttp
from relay.net.pages import Ending
from relay.store import accounts, healing, host_healing
from relay.store.database import Database
from relay.store.healing import LISTED, UNSEEN

HOSTS_AT_ONCE = 10
# A page a second.
PAUSE_SECONDS = 1.0
# Until a host's queue is looked at again that had no room for all accounts of a page.
ROOM_SECONDS = 5.0
# Then other hosts have their turn: a list may be long, slow, or of accounts that can never be healed.
TURN_SECONDS = 300.0
WEEKLY_SECONDS = 3600.0
# A host is asked again for a page after this time, twice as long each time, this often in a row.
RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 3600.0
ATTEMPTS = 10
# No host has more accounts than this many times its limit; a longer list is not one.
LIMITS = 4
LISTED_AT_LEAST = 10_000
EMPTY_PAGES = 100

log = logging.getLogger(__name__)


class HostHealing:
    """The hosts that are due. `clock` and `pause` are seconds: tests move one and shorten the other.

    With `every`, all hosts are compared once a week, and accounts that were never seen are entered.
    """

    def __init__(
        self,
        db: Database,
        http: GuardedHttp,
        registry: HostRegistry,
        *,
        every: bool,
        clock: Callable[[], float] = time.time,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._db = db
        self._http = http
        self._registry = registry
        self._every = every
        self._clock = clock
        self._pause = pause
        self._weekly_at = 0.0
        self._tasks = HostTasks("healing of hosts", self.run_once, HOSTS_AT_ONCE)
        metrics.show_bound("heal-lists", self._tasks.__len__, HOSTS_AT_ONCE)

    def start(self) -> None:
        """Start comparing."""
        self._tasks.start()

    def stop(self) -> None:
        """Stop at once; the next start goes on after the last page that was taken."""
        self._tasks.stop()

    def begin(self, host: Host) -> None:
        """Compare `host` now, as an admin wants it. Raises StoreError."""
        self._db.write(host_healing.begin, host.id, self._clock())
        self._tasks.look_now()

    def end(self, host: Host) -> bool:
        """Stop comparing `host`; False when that was not under way. Raises StoreError."""
        return self._db.write(host_healing.end, host.id, "stopped by an admin", self._clock())

    def run_once(self) -> None:
        """Begin with the hosts that are due, as far as there is room. Raises StoreError."""
        now = self._clock()
        if self._every and now >= self._weekly_at:
            self._db.write(host_healing.make_weekly_due, now)
            self._weekly_at = now + WEEKLY_SECONDS
        for host_id in self._db.read(host_healing.hosts_due, now):
            host = self._registry.by_id(host_id)
            if host is None or host.status is Status.BANNED:
                self._db.write(host_healing.end, host_id, "not subscribed to", now)
            elif host.connected:
                self._tasks.begin(host, self._compare)

    def join(self) -> None:
        """Wait until all that was begun is over or has to wait. Ended by the timeouts of each page."""
        self._tasks.join()

    def _compare(self, host: Host) -> None:
        """One host, to the end of its list or to a page that cannot be fetched now."""
        try:
            self._wait_for_stream(host)
            self._page_through(host)
        except StoreError as error:
            log.debug("comparing the accounts of %s waits for the database: %s", host.hostname, error)
        except Exception:
            log.exception("comparing the accounts of %s crashed", host.hostname)
            self._end(host, "an error of this relay: see its log")

    def _wait_for_stream(self, host: Host) -> None:
        give_up = time.monotonic() + CATCH_UP_SECONDS
        while host.connected and not is_close(host, time.time()) and time.monotonic() < give_up:
            gevent.sleep(QUIET_SECONDS)

    def _page_through(self, host: Host) -> None:
        step = self._db.write(host_healing.take_up, host.id)
        if step is None:
            return
        log.debug("comparing the accounts of %s: %s, from %d on", host.hostname, step.reason, step.listed)
        cursor, listed, empty, ending = step.cursor, step.listed, 0, Ending(step.cursor)
        turn_ends = time.monotonic() + TURN_SECONDS
        while host.connected:
            try:
                page = listing.page(self._http, host, cursor)
                empty = 0 if page.accounts else empty + 1
                listed += page.entries
                bound = max(LISTED_AT_LEAST, LIMITS * host.account_limit)
                if ending.repeats(page.cursor) or empty > EMPTY_PAGES or listed > bound:
                    raise HealError("heal-endless", f"{listed} accounts, and the list does not end")
            except HealError as error:
                self._failed(host, step.attempts, error)
                return
            if not self._take(host, page, turn_ends):
                return
            step = step._replace(attempts=0)
            if page.cursor is None:
                self._end(host, None)
                return
            if time.monotonic() >= turn_ends:
                self._stand_in_line(host)
                return
            cursor = page.cursor
            gevent.sleep(self._pause)

    def _stand_in_line(self, host: Host) -> None:
        """Go on once the hosts that are due by now have had their turns."""
        self._db.write(host_healing.postpone, host.id, self._clock(), failed=False)

    def _take(self, host: Host, page: listing.Page, turn_ends: float) -> bool:
        """Note what differs on `page`, then that it was taken. False when the comparison is not to go on now."""
        known = self._db.read(accounts.many_by_did, [account.did for account in page.accounts])
        differing, unseen = listing.differences(page.accounts, known, host)
        if not self._every:
            unseen = []
        metrics.HEAL_LISTED.labels("differing").inc(len(differing))
        metrics.HEAL_LISTED.labels("unseen").inc(len(unseen))
        metrics.HEAL_LISTED.labels("same").inc(len(page.accounts) - len(differing) - len(unseen))
        if not (self._note(host, differing, LISTED, turn_ends) and self._note(host, unseen, UNSEEN, turn_ends)):
            return False
        counts = page.entries, len(differing), len(unseen)
        return self._db.write(host_healing.advance, host.id, page.cursor or "", *counts)

    def _note(self, host: Host, dids: list[str], reason: str, turn_ends: float) -> bool:
        """Note as many at a time as the host's queue has room for. False when the connection or the turn ended before
        the last one: then the page is asked for again.

        Room is made by `accounts`, which settles or gives up each account in time.
        """
        while dids:
            room = self._db.read(healing.room_of, host.id)
            part, dids = dids[:room], dids[room:]
            self._db.write(healing.note, {(host.id, did): reason for did in part}, self._clock())
            if dids:
                gevent.sleep(ROOM_SECONDS)
                if not host.connected:
                    return False
                if time.monotonic() >= turn_ends:
                    self._stand_in_line(host)
                    return False
        return True

    def _failed(self, host: Host, attempts: int, error: HealError) -> None:
        if error.reason == "heal-unanswered" and attempts + 1 < ATTEMPTS:
            log.debug("comparing the accounts of %s: %s", host.hostname, error)
            delay = max(error.retry_after, min(RETRY_SECONDS * 2.0**attempts, LONGEST_RETRY_SECONDS))
            self._db.write(host_healing.postpone, host.id, self._clock() + delay, failed=True)
        else:
            self._end(host, str(error))

    def _end(self, host: Host, error: str | None) -> None:
        metrics.HOST_HEALS.labels("done" if error is None else "failed").inc()
        try:
            self._db.write(host_healing.end, host.id, error, self._clock())
            progress = self._db.read(host_healing.progress, host.id)
        except StoreError as failure:
            log.debug("that the accounts of %s were compared is not stored: %s", host.hostname, failure)
            return
        outcome = error if progress is None or error is not None else _summary(progress)
        log.debug("compared the accounts of %s: %s", host.hostname, outcome)


def _summary(progress: host_healing.Progress) -> str:
    return f"{progress.listed} listed, {progress.differing} differ, {progress.unseen} were never seen"

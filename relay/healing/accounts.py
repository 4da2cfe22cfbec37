"""Heals single accounts: asks the host of each one that is due for its newest commit, and passes that on as `#sync`.

A loop of its own, built by `healing`; nothing waits for it. What is due is in SQL. A host is asked by a few accounts at
a time, and what comes is judged in the account's lane as if the host had sent it now. Must not know why an account is
due.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

import gevent
from gevent.pool import Pool

from relay.atproto.commit import parse_commit
from relay.atproto.errors import ProtocolError
from relay.atproto.events import SERVED, Event
from relay.healing import source
from relay.healing.budgets import ACCOUNTS, HOSTS, Budgets
from relay.healing.catching_up import is_behind, may_bring
from relay.healing.host_tasks import HostTasks
from relay.healing.listing import is_news
from relay.healing.source import account_event, sync_event
from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.registry import HostRegistry
from relay.ingest.accounts import Accounts, AccountState
from relay.ingest.lanes import Lanes
from relay.ingest.repo_status import repo_status
from relay.kit import metrics
from relay.kit.errors import HealError, StoreError
from relay.net.http import GuardedHttp
from relay.store import healing as table
from relay.store.database import Database
from relay.store.healing import NOT_FOUND_SECONDS, UNSEEN, Missed

HOSTS_AT_ONCE = 25
# Of one host: accounts at a time, how far apart they begin, and how many until other hosts have had their turn.
AT_ONCE = 4
PACE_SECONDS = 0.25
ACCOUNTS_PER_TURN = 100
# A host that gave no answer is left alone for this long, or for as long as it asks for.
SILENT_SECONDS = 60.0

SETTLE_SECONDS = 60.0
FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 6 * 3600.0
# The last of them comes after about two days.
ATTEMPTS = 16
# Of one that the directory does not have: the last of them comes after three quarters of an hour.
NOT_FOUND_ATTEMPTS = 5
# Until another look at an account for which there is no budget, or of which the stream may still bring the news.
LATER_SECONDS = {"budget": 60.0, "to-come": 15.0}
# An account's document may name its former host for a while, if the directory has the new one late: so many looks more.
LATE_ATTEMPTS = 2

# How looking at an account can end: with these it is settled, with all others it is tried again.
SETTLED = frozenset({"sent", "told", "entered", "current", "older", "moved", "not-served", "unknown"})
# Why the gate drops what was fetched, where that is an answer as well.
ANSWERS = {
    "rev-old": "current",
    "wrong-host": "moved",
    "did-not-found": "not-found",
    "did-tombstone": "unknown",
    "account-takendown": "not-served",
    "account-host-throttled": "not-served",
    "account-inactive": "not-served",
}

log = logging.getLogger(__name__)


class AccountHealing:
    """The accounts that are due, host by host. `clock` and `pace` are seconds: tests move one and shorten the other."""

    def __init__(
        self,
        db: Database,
        http: GuardedHttp,
        accounts: Accounts,
        registry: HostRegistry,
        lanes: Lanes,
        *,
        clock: Callable[[], float] = time.time,
        pace: float = PACE_SECONDS,
    ) -> None:
        self._db = db
        self._http = http
        self._accounts = accounts
        self._registry = registry
        self._lanes = lanes
        self._clock = clock
        self._pace = pace
        self._budgets = Budgets()
        # Host id to until when it is left alone; bounded by the hosts there are.
        self._silent: dict[int, float] = {}
        self._tasks = HostTasks("healing of accounts", self.run_once, HOSTS_AT_ONCE)
        metrics.QUEUE_CAPACITY.labels("heals").set(table.MAX_ACCOUNTS)
        metrics.show_bound("heal-budgets", self._budgets.__len__, ACCOUNTS + 2 * HOSTS)
        metrics.show_bound("heal-hosts", self._tasks.__len__, HOSTS_AT_ONCE)

    def start(self) -> None:
        """Start asking."""
        self._tasks.start()

    def stop(self) -> None:
        """Stop at once; what is not settled stays noted."""
        self._tasks.stop()

    def run_once(self) -> None:
        """Begin with the hosts of which an account is due, as far as there is room. Raises StoreError."""
        metrics.QUEUE_SIZE.labels("heals").set(self._db.read(table.waiting))
        due = self._db.read(table.hosts_due, self._clock())
        # When there are more than have room, it is not always the same ones that wait.
        random.shuffle(due)
        for host_id in due:
            host = self._registry.by_id(host_id)
            if host is None or host.status is Status.BANNED:
                self._db.write(table.forget_host, host_id)
            elif self._may_ask(host):
                self._tasks.begin(host, self._heal_host)

    def join(self) -> None:
        """Wait until all that was begun is over. Ended by the timeouts of each account."""
        self._tasks.join()

    def _may_ask(self, host: Host) -> bool:
        return host.connected and self._silent.get(host.id, 0.0) <= time.monotonic()

    def _heal_host(self, host: Host) -> None:
        """The next accounts of a host, AT_ONCE at a time."""
        places = Pool(AT_ONCE)
        try:
            for missed in self._db.read(table.due, host.id, self._clock(), ACCOUNTS_PER_TURN):
                if not self._may_ask(host):
                    break
                places.spawn(self._heal, host, missed)
                gevent.sleep(self._pace)
            places.join()
        except StoreError as error:
            log.debug("accounts of %s are not healed: %s", host.hostname, error)
        finally:
            places.kill(timeout=1.0)

    def _heal(self, host: Host, missed: Missed) -> None:
        try:
            outcome = self._look_at(host, missed.did, missed.reason)
        except HealError as error:
            log.debug("healing %s at %s: %s", missed.did, host.hostname, error)
            outcome = "unanswered" if error.reason == "heal-unanswered" else "refused"
            if outcome == "unanswered":
                self._silent[host.id] = time.monotonic() + max(SILENT_SECONDS, error.retry_after)
        except StoreError as error:
            log.debug("healing %s waits for the database: %s", missed.did, error)
            return
        except Exception:
            log.exception("healing %s crashed", missed.did)
            outcome = "internal-error"
        metrics.HEALS.labels(outcome).inc()
        try:
            self._note(missed, outcome)
        except StoreError as error:
            log.debug("that %s was healed is not stored: %s", missed.did, error)

    def _note(self, missed: Missed, outcome: str) -> None:
        attempts, first = ATTEMPTS, FIRST_RETRY_SECONDS
        if outcome == "not-found":
            attempts, first = NOT_FOUND_ATTEMPTS, NOT_FOUND_SECONDS
        late = outcome == "moved" and missed.reason == "wrong-host" and missed.attempts < LATE_ATTEMPTS
        if outcome in SETTLED and not late:
            self._db.write(table.settle, missed)
        elif (later := LATER_SECONDS.get(outcome)) is not None:
            self._db.write(table.postpone, missed, self._clock() + later, failed=False)
        elif missed.attempts + 1 >= attempts:
            metrics.HEALS.labels("given-up").inc()
            log.debug("healing %s is given up: %s, %d times", missed.did, outcome, missed.attempts + 1)
            self._db.write(table.settle, missed)
        else:
            self._db.write(table.postpone, missed, self._clock() + retry_delay(missed.attempts, first), failed=True)

    def _look_at(self, host: Host, did: str, reason: str) -> str:
        """Find out what the account lacks and pass it on; how that ended. Raises HealError, StoreError."""
        state = self._accounts.lookup(did)
        if state is not None:
            # Where it may have moved the gate finds out.
            if state.row.host_id != host.id and reason not in table.MAY_HAVE_MOVED:
                return "moved"
            if state.row.status not in SERVED:
                return "not-served"
        newest = source.head(self._http, host, did)
        if newest is None or (state is not None and _is_inactive_at(state, host)):
            told = self._tell_status(host, did, state)
            if newest is None or told != "told" or state is None or _is_inactive_at(state, host):
                return told
        if (known := _known(state, newest.rev)) is not None:
            return known
        # Of a desynchronized account it may have come already.
        here = state is not None and state.repo is not None and newest.rev == state.repo.rev
        if not here and may_bring(host, newest.rev, time.time()):
            return "to-come"
        # Of what was never heard of nobody is told, unless it has written since: that may be on its way in the stream,
        # and would come after what tells of it.
        silent = reason == UNSEEN and state is None and not is_news(newest.rev, host)
        if not silent and not self._budgets.take(did, host, time.monotonic()):
            return "budget"
        cid, block = source.commit_block(self._http, host, did, newest)
        try:
            event = sync_event(did, parse_commit(block).rev, cid, block)
        except ProtocolError as error:
            raise HealError("heal-answer", str(error)) from None
        # Its stream may have brought what was missed meanwhile.
        known = _known(state or self._accounts.lookup(did), event.rev)
        if known is not None:
            return known
        outcome = self._pass_on(host, event, "entered" if silent else "sent", silent=silent)
        if outcome == "not-found" and not silent:
            self._budgets.give_back(did, host)
        # Of what its host merely lists nothing was missed.
        return "unknown" if outcome == "not-found" and reason == UNSEEN else outcome

    def _tell_status(self, host: Host, did: str, state: AccountState | None) -> str:
        """Have the account's status logged when its host says another than the relay holds."""
        if state is None:
            # Consumers never heard of it.
            return "unknown"
        status = repo_status(self._http, host, did)
        if status is None:
            return "unanswered"
        if status == state.row.upstream_status or state.row.host_id != host.id:
            return "current"
        if status not in SERVED and is_behind(host, time.time()):
            return "to-come"
        return self._pass_on(host, account_event(did, status), "told")

    def _pass_on(self, host: Host, event: Event, outcome: str, *, silent: bool = False) -> str:
        """Have `event` judged in its lane: `outcome` when it was accepted."""
        delivery = self._lanes.put_fetched(host, event, silent=silent)
        if not delivery.settled.wait(SETTLE_SECONDS):
            return "unsettled"
        if delivery.refusal is None:
            log.debug("healed: %s of %s at %s", event.kind.name.lower(), event.did, host.hostname)
            return outcome
        return ANSWERS.get(delivery.refusal, "refused")


def retry_delay(attempts: int, first: float) -> float:
    """Seconds until the next look at an account, after `attempts` that failed and one more; `first` after the first."""
    return min(LONGEST_RETRY_SECONDS, first * 2.0**attempts) * random.uniform(0.8, 1.2)


def _is_inactive_at(state: AccountState, host: Host) -> bool:
    return state.row.host_id == host.id and state.row.upstream_status not in SERVED


def _known(state: AccountState | None, rev: str) -> str | None:
    """How it ends for an account whose host has `rev`, if nothing of it is missing here."""
    repo = state.repo if state is not None else None
    if repo is None or rev > repo.rev:
        return None
    if rev < repo.rev:
        return "older"
    return None if repo.desynchronized else "current"

"""What a held delivery waits for: a DID lookup, a question about an account's status, a cool-down, a long verification.

Called by the greenlet of a held account's line, so it may block; each wait ends within a bounded time. Must not touch
queues or judge events: the gate looks again afterwards.
"""

from __future__ import annotations

import logging
import random
import time
from collections import defaultdict
from contextlib import suppress

import gevent
from gevent.lock import BoundedSemaphore

from relay.atproto.frames import Commit, Kind, Sync
from relay.hosts.host import Host
from relay.identity.resolver import Resolver
from relay.ingest.accounts import Accounts, AccountState
from relay.ingest.delivery import Delivery, Wait
from relay.ingest.hosting import Hosting
from relay.ingest.look_ahead import LookAhead
from relay.ingest.penalties import Penalties
from relay.ingest.rejections import Missed
from relay.ingest.repo_status import repo_status
from relay.ingest.verification import verify
from relay.kit import metrics
from relay.kit.background import Stints
from relay.kit.errors import IdentityError
from relay.kit.limits import Tally
from relay.net.http import GuardedHttp

# For how long a did:web server is asked again; and the directory, while it answers about others and not about this DID.
RESOLVE_FOR_SECONDS = 300.0
PLC_RESOLVE_FOR_SECONDS = 3600.0
# Once it was given up, one try is enough for this long: or the account's next events would each wait as long again.
GIVEN_UP_SECONDS = 300.0
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
# Of what these events say, the stored identity decides while the directory is away: nothing has to be proven.
GO_ON_WITHOUT = frozenset({Kind.IDENTITY, Kind.ACCOUNT})

REMEMBERED_SECONDS = 600.0
DESYNCHRONIZED_SECONDS = 24 * 3600.0
# No answer confirms nothing; yet a host that is away is not asked again for each event of the account.
UNANSWERED_SECONDS = 30.0
REMEMBERED_CAPACITY = 100_000
QUESTIONS_PER_HOST_WINDOW = 60
HOST_WINDOW_SECONDS = 60.0

log = logging.getLogger(__name__)


class Waits:
    """The waits, by kind."""

    def __init__(
        self,
        resolver: Resolver,
        look_ahead: LookAhead,
        status_check: StatusCheck,
        penalties: Penalties,
        long_ones: LongVerifications,
    ) -> None:
        self._resolver = resolver
        self._look_ahead = look_ahead
        self._status_check = status_check
        self._penalties = penalties
        self._long_ones = long_ones
        self._given_up: Tally[str] = Tally(GIVEN_UP_SECONDS, REMEMBERED_CAPACITY)
        metrics.show_bound("identity-given-up", self._given_up.__len__, REMEMBERED_CAPACITY)

    def run(self, delivery: Delivery, wait: Wait) -> None:
        """Block until `wait` is over.

        Raises IdentityError `did-unavailable` when a lookup got no answer for minutes.
        """
        if wait is Wait.IDENTITY:
            self._look_ahead.wait(delivery.event.did)
            # Once: the gate sees what came of it.
            with suppress(IdentityError):
                self._resolver.resolve(delivery.event.did, delivery.host.hostname)
        elif wait is Wait.ANSWER:
            self._resolve(delivery, refresh=False)
        elif wait is Wait.REFRESH or wait is Wait.FOREIGN:
            own = wait is Wait.REFRESH
            # A document that was read before may name a host that the account has left, and which deletes it now. The
            # gate sees to it that one account does not have that done without end.
            always = own and delivery.kind is Kind.ACCOUNT
            self._resolve(delivery, refresh=True, always=always, go_on=own and delivery.kind in GO_ON_WITHOUT)
        elif wait is Wait.STATUS:
            self._status_check.run(delivery.event.did, delivery.host)
        elif wait is Wait.LONG:
            self._long_ones.run(delivery)
        else:
            owed = self._penalties.owed(delivery.event.did)
            gevent.sleep(owed)
            metrics.ACCOUNT_THROTTLED_SECONDS.inc(owed)

    def _resolve(self, delivery: Delivery, *, refresh: bool, always: bool = False, go_on: bool = False) -> None:
        """Look the DID up, and again while there is no answer: an outage must not cost events.

        Ended by an answer, by the relay's stop, or given up: a did:web server has RESOLVE_FOR_SECONDS, the PLC
        directory PLC_RESOLVE_FOR_SECONDS, and more while it answers nobody.
        """
        did = delivery.event.did
        is_plc = did.startswith("did:plc:")
        give_up = time.monotonic()
        if not self._given_up.count(did, give_up):
            give_up += PLC_RESOLVE_FOR_SECONDS if is_plc else RESOLVE_FOR_SECONDS
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                if refresh:
                    delivery.refresh_denied = not self._resolver.refresh(did, delivery.host.hostname, always=always)
                else:
                    self._resolver.resolve(did, delivery.host.hostname)
                return
            except IdentityError as error:
                if error.reason != "did-unavailable":
                    # A fact about the DID: the gate sees it too and decides what it means for this event.
                    return
                if go_on:
                    return
                now = time.monotonic()
                if now + pause > give_up and not (is_plc and self._resolver.directory_silent):
                    self._given_up.add(did, now)
                    raise
            gevent.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_RETRY_SECONDS)


class StatusCheck:
    """`getRepoStatus` at the host of an account that is stored as inactive and yet sends commits.

    An `#account` event may have been missed; then the account is healed here, and consumers are told. Limited per host;
    the answer is remembered for ten minutes, that an account is desynchronized for a day. While there is no answer the
    host's last word stands, and the account is noted in `missed`.
    """

    def __init__(self, http: GuardedHttp, accounts: Accounts, hosting: Hosting, missed: Missed) -> None:
        self._http = http
        self._missed = missed
        self._accounts = accounts
        self._hosting = hosting
        # By account and host: what a former host said means nothing for the present one.
        self._confirmed: Tally[tuple[str, int]] = Tally(REMEMBERED_SECONDS, REMEMBERED_CAPACITY)
        self._desynchronized: Tally[tuple[str, int]] = Tally(DESYNCHRONIZED_SECONDS, REMEMBERED_CAPACITY)
        self._unanswered: Tally[tuple[str, int]] = Tally(UNANSWERED_SECONDS, REMEMBERED_CAPACITY)
        self._asked: Tally[int] = Tally(HOST_WINDOW_SECONDS, REMEMBERED_CAPACITY)
        metrics.show_bound("status-checks", self._remembered, 4 * REMEMBERED_CAPACITY)

    def run(self, did: str, host: Host) -> None:
        """Bring the stored upstream status of `did` in line with what `host` says; unchanged when it says nothing.

        Called for an account by one greenlet at a time.
        """
        now, key = time.monotonic(), (did, host.id)
        state = self._accounts.lookup(did)
        if state is None:
            return
        if self._confirmed.count(key, now) or self._desynchronized.count(key, now):
            metrics.STATUS_CHECKS.labels("skipped").inc()
            return
        if self._unanswered.count(key, now) or self._asked.count(host.id, now) >= QUESTIONS_PER_HOST_WINDOW:
            metrics.STATUS_CHECKS.labels("skipped").inc()
            self._without_answer(state, host)
            return
        self._asked.add(host.id, now)
        if state.desynchronized:
            self._desynchronized.add(key, now)
        status = repo_status(self._http, host, did)
        remembered = self._unanswered if status is None else self._confirmed
        remembered.add(key, time.monotonic())
        # It may have moved meanwhile.
        if state.row.host_id != host.id:
            return
        if status is None:
            self._without_answer(state, host)
        elif status != state.row.upstream_status:
            self._hosting.heal(state, status)

    def _without_answer(self, state: AccountState, host: Host) -> None:
        if state.moved:
            # The last word is the former host's. The one that may speak for the account now sends its commits.
            self._hosting.heal(state, "active")
        elif not state.desynchronized:
            self._missed.note_account(host, state.row.did, "account-inactive")

    def _remembered(self) -> int:
        return len(self._confirmed) + len(self._desynchronized) + len(self._unanswered) + len(self._asked)


class LongVerifications:
    """Verifies large events in pieces of about a millisecond, between which everybody else has turns.

    One at a time, and each when its host's share of the CPU allows it. Hosts take turns, however many events of one
    wait.
    """

    def __init__(self, *, lenient: bool) -> None:
        self._lenient = lenient
        self._place = BoundedSemaphore()
        # One event of each host stands in line for the place. Bounded by the hosts there are.
        self._of_host: defaultdict[int, BoundedSemaphore] = defaultdict(BoundedSemaphore)

    def run(self, delivery: Delivery) -> None:
        """Have the delivery's check find its outcome. Ended by the verifications before it, which all have an end."""
        event, check, share = delivery.event, delivery.check, delivery.host.share
        assert isinstance(event, Commit | Sync) and check is not None
        with self._of_host[delivery.host.id]:
            share.take(0.0)
            with self._place:
                share.begin()
                try:
                    stints = Stints()
                    now_us = int(time.time() * 1_000_000)
                    outcome = verify(event, check.key, now_us, lenient=self._lenient, pause=stints.pause)
                    check.settle(outcome, delivery.took + stints.end())
                finally:
                    share.end()

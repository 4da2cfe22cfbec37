"""Tells whether a host's sequence numbers have started again: after a restored backup, or with a new database.

Asked by the host's subscriber about an event whose number is not above those that were seen. Such an event is usually a
repetition. It is not if an account of the host has signed it, and it is newer than what is known of the account: then
what the host's numbers said before no longer means anything. Where that cannot be told the account is noted, since the
event may be dropped for its number. Must not judge the event, which goes the way of all others.
"""

from __future__ import annotations

import logging
import time

import gevent

from relay.atproto.commit import Unproven, verify_commit, verify_sync
from relay.atproto.errors import ProtocolError
from relay.atproto.events import SERVED
from relay.atproto.frames import Commit, Event, Sync
from relay.atproto.syntax import is_account_did
from relay.hosts.host import Host
from relay.identity.resolver import Resolver
from relay.ingest.accounts import Accounts, AccountState
from relay.ingest.rejections import Missed
from relay.kit import metrics
from relay.kit.background import Stints
from relay.kit.errors import IdentityError, StoreError
from relay.kit.limits import Tally

OUTSTANDING_SECONDS = 0.05
STORE_RETRY_SECONDS = 1.0
# What is looked at costs a verification: this many of one host in a minute, the others count as repetitions.
CHECKS = 20
CHECKS_SECONDS = 60.0
CAPACITY = 10_000

log = logging.getLogger(__name__)


class Renumbering:
    """The question, with what it takes to answer it."""

    def __init__(self, accounts: Accounts, resolver: Resolver, missed: Missed) -> None:
        self._missed = missed
        self._accounts = accounts
        self._resolver = resolver
        self._checks: Tally[int] = Tally(CHECKS_SECONDS, CAPACITY)
        metrics.show_bound("renumbering-checks", self._checks.__len__, CAPACITY)

    def starts_again(self, host: Host, event: Event) -> bool:
        """Whether `event` shows that the host's numbers started again; its cursor has begun anew then.

        Blocks until the host's earlier events are through, and for an identity.
        """
        if not isinstance(event, Commit | Sync) or not is_account_did(event.did):
            # Nobody can tell whether it is new.
            return False
        if not self._may_be_new(event, event.rev):
            # For a repetition nobody has to wait.
            return False
        # One of those under way may be this very one. Ended by the lanes, which settle every event.
        while host.cursor.outstanding:
            gevent.sleep(OUTSTANDING_SECONDS)
        if not self._is_new(host, event):
            return False
        host.cursor.reset()
        return True

    def _is_new(self, host: Host, event: Commit | Sync) -> bool:
        try:
            if not self._may_be_new(event, event.rev):
                return False
            if self._checks.add(host.id, time.monotonic()) > CHECKS:
                self._missed.note_account(host, event.did, "seq-not-rising")
                return False
            identity = self._resolver.resolve(event.did, host.hostname)
            if not host.endpoint.same_host(identity.pds) or identity.key is None:
                return False
            now_us = int(time.time() * 1_000_000)
            if isinstance(event, Sync):
                proven = verify_sync(event, identity.key, now_us)
            else:
                proven = verify_commit(event, identity.key, now_us, pause=Stints().pause)
        except (ProtocolError, IdentityError) as error:
            if error.reason == "did-unavailable":
                self._missed.note_account(host, event.did, "seq-not-rising")
            log.debug("an event of %s with an old number is not new: %s", host.hostname, error)
            return False
        return not isinstance(proven, Unproven) or self._may_be_new(event, proven.rev)

    def _may_be_new(self, event: Commit | Sync, rev: str) -> bool:
        """Whether `rev` comes after what is known of the event's account.

        Of an account that is not served here nothing is known: its commits are dropped, and any one may have been.
        """
        state = self._account(event.did)
        if state is None:
            return True
        return state.row.status in SERVED and (state.repo is None or rev > state.repo.rev)

    def _account(self, did: str) -> AccountState | None:
        while True:
            try:
                return self._accounts.lookup(did)
            except StoreError as error:
                # Ended by the database's return, as the lanes' own wait for it is.
                log.debug("waiting for the database: %s", error)
                gevent.sleep(STORE_RETRY_SECONDS)

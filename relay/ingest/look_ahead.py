"""Reads what SQL knows of accounts that are not in memory, identity and state together, for many accounts at a time.

After a start none is in memory, and reading them one by one is what a backlog would cost most. The lanes tell of events
that stand in line: one that finds its account in memory when its turn comes needs no line of its own beside the lane.
Those that have one wait for the same reads (`waits`). Decides nothing: what is not found here is found out as ever.
Must not know what an event says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import gevent
from gevent.event import Event as Signal

from relay.atproto.syntax import is_account_did
from relay.identity.identity import IdentityCache
from relay.ingest.accounts import Accounts
from relay.kit import metrics
from relay.kit.errors import StoreError
from relay.store.accounts import AccountAndRepo
from relay.store.batched_reads import MAX_KEYS

# How many accounts may wait for a read of at most MAX_KEYS: more than stand in line at a time.
MAX_WANTED = 1024
# How long a read waits for others to go with it: a round to the database's thread costs as much as dozens of rows.
GATHER_SECONDS = 0.02
WAIT_SECONDS = 60.0

log = logging.getLogger(__name__)


class LookAhead:
    """The accounts that are wanted, and the one read that is under way. `find` reads accounts from SQL."""

    def __init__(
        self,
        accounts: Accounts,
        identities: IdentityCache,
        find: Callable[[Sequence[str]], Mapping[str, AccountAndRepo]],
    ) -> None:
        self._accounts = accounts
        self._identities = identities
        self._find = find
        self._wanted: dict[str, None] = {}
        self._under_way: frozenset[str] = frozenset()
        self._reading = False
        # Set when the next read, and the one that is under way, has ended.
        self._next, self._landed = Signal(), Signal()
        metrics.show_bound("look-ahead", lambda: len(self._wanted), MAX_WANTED)

    def want(self, did: str) -> None:
        """An event of `did` stands in line. Never blocks."""
        if self._accounts.remembers(did) or did in self._under_way or len(self._wanted) >= MAX_WANTED:
            return
        # What a host calls its account may be megabytes of text, or none that PostgreSQL takes.
        if not is_account_did(did):
            return
        self._wanted[did] = None
        if not self._reading:
            self._reading = True
            gevent.spawn(self._read)

    def wait(self, did: str) -> None:
        """Block until SQL was asked for `did`, unless its account is in memory or too many are wanted."""
        self.want(did)
        # A read takes a limited number: an account that is not among them waits for the next one.
        while did in self._wanted or did in self._under_way:
            signal = self._next if did in self._wanted else self._landed
            if not signal.wait(WAIT_SECONDS):
                return

    def _read(self) -> None:
        try:
            while self._wanted:
                gevent.sleep(GATHER_SECONDS)
                dids = list(islice(self._wanted, MAX_KEYS))
                for did in dids:
                    del self._wanted[did]
                self._under_way = frozenset(dids)
                self._landed, self._next = self._next, Signal()
                self._identities.look_ahead(dids)
                self._accounts.look_ahead(dids, self._find)
                self._under_way = frozenset()
                self._landed.set()
        except StoreError as error:
            log.debug("nothing is read ahead: %s", error)
        finally:
            # After a failure nobody waits for a read that may never be: whoever needs the database sees to it.
            self._wanted.clear()
            self._reading = False
            self._under_way = frozenset()
            self._landed.set()
            self._next.set()
            self._next = Signal()

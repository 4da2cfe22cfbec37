"""Asks accounts' hosts for their collections where the events did not say: the index's doubts, settled one by one.

A loop of its own, started by `app`; nothing waits for it. Doubts are marks in SQL, so that they outlive a restart,
and a host is asked rarely and by one account at a time. Must not touch the event path.
"""

from __future__ import annotations

import logging
import time

from cachetools import TTLCache

from relay.atproto.syntax import is_nsid
from relay.hosts.host import Host
from relay.hosts.registry import HostRegistry
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import RelayError, StoreError
from relay.kit.limits import Allowance
from relay.net.http import GuardedHttp, xrpc_url
from relay.store import collections
from relay.store.collections import Marked
from relay.store.database import Database
from relay.stream.projector import Projector

TIMEOUT_SECONDS = 5.0
MAX_BYTES = 256 << 10
# More collections than any account has; a host that names more is not believed.
MAX_COLLECTIONS = 2_000
ACCOUNTS_PER_PASS = 200
PASS_SECONDS = 10.0

# Questions to one host: a few at once, then one every two seconds, and none for a while after it gave no answer.
BURST = 5
INTERVAL_SECONDS = 2.0
SILENT_SECONDS = 600.0
HOSTS_REMEMBERED = 20_000
# An account of which its host tells nothing lets others go first for this long.
PUT_OFF_SECONDS = 6 * 3600.0
ACCOUNTS_REMEMBERED = 20_000
# What a host, or its proxy, answers to everybody. Another error may be that of one account.
_BUSY = frozenset({429, 502, 503, 504})

log = logging.getLogger(__name__)


class _NotDescribed(OSError):
    """The host answers, but with an error of its own for this account."""


class CollectionCheck:
    """`describeRepo` for every account that is marked, pass after pass."""

    def __init__(self, db: Database, http: GuardedHttp, registry: HostRegistry, projector: Projector) -> None:
        self._db = db
        self._http = http
        self._registry = registry
        self._projector = projector
        self._allowance: Allowance[int] = Allowance(BURST, INTERVAL_SECONDS, HOSTS_REMEMBERED)
        self._silent: TTLCache[int, bool] = TTLCache(HOSTS_REMEMBERED, SILENT_SECONDS)
        self._put_off: TTLCache[int, bool] = TTLCache(ACCOUNTS_REMEMBERED, PUT_OFF_SECONDS)
        metrics.show_bound(
            "collection-checks",
            lambda: metrics.kept(self._silent) + metrics.kept(self._put_off) + len(self._allowance),
            2 * HOSTS_REMEMBERED + ACCOUNTS_REMEMBERED,
        )
        self._after_uid = 0
        self._loop = Loop("checking collections", self._pass, PASS_SECONDS)

    def start(self) -> None:
        """Start asking."""
        self._loop.start(after=PASS_SECONDS)

    def stop(self) -> None:
        """Stop; what is not settled stays marked."""
        self._loop.stop()

    def run_once(self) -> int:
        """Ask about the next accounts that are marked; how many were settled. Raises StoreError."""
        accounts = self._db.read(collections.marked, self._after_uid, ACCOUNTS_PER_PASS)
        self._after_uid = accounts[-1].uid if len(accounts) == ACCOUNTS_PER_PASS else 0
        return sum(self._check(account) for account in accounts)

    def _pass(self) -> None:
        try:
            self.run_once()
        except StoreError as error:
            log.debug("no collections are checked: %s", error)

    def _check(self, account: Marked) -> bool:
        host = self._registry.by_id(account.host_id)
        if host is None or host.id in self._silent or account.uid in self._put_off:
            return False
        if not self._allowance.take(host.id, time.monotonic()):
            return False
        # From here on events write again what they tell, so that the answer, which is older, gives way to them.
        names = self._db.write(collections.spread, account.uid)
        self._projector.forget_collections(account.uid, names)
        try:
            listed = self._ask(account.did, host)
        except (RelayError, OSError) as error:
            log.debug("describeRepo of %s at %s failed: %s", account.did, host.hostname, error)
            # Asked first each time, it would keep all the others of its host waiting.
            self._put_off[account.uid] = True
            if not isinstance(error, _NotDescribed):
                self._silent[host.id] = True
            return False
        self._db.write(collections.settle, account.uid, listed)
        return True

    def _ask(self, did: str, host: Host) -> set[str] | None:
        """The account's collections; None when the host does not describe it, as it is inactive there or unknown."""
        url = xrpc_url(host.endpoint.url, "com.atproto.repo.describeRepo", {"repo": did})
        response = self._http.get(url, timeout=TIMEOUT_SECONDS, max_bytes=MAX_BYTES)
        if response.status in _BUSY:
            raise OSError(f"HTTP {response.status}")
        if response.status >= 500:
            raise _NotDescribed(f"HTTP {response.status}")
        answer = response.json_object() if response.status == 200 else None
        listed = answer.get("collections") if answer is not None and answer.get("did") == did else None
        if not isinstance(listed, list) or len(listed) > MAX_COLLECTIONS:
            return None
        return {name for name in listed if isinstance(name, str) and is_nsid(name)}

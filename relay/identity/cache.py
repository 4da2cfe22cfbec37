"""What is known about DIDs: packed facts in memory over the `identity` table, which is written behind in batches.

Used by the resolver alone. A fact is good for 24 hours from when it was resolved, across restarts. Must not know
how facts are found.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import islice

import gevent

from relay.identity.identity import Fact, from_row, pack, resolved_at, to_row, unpack
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import StoreError
from relay.kit.generations import RecordPart
from relay.store import identities as table
from relay.store import installation
from relay.store.batched_reads import BatchedReads
from relay.store.database import Database, Transaction

GOOD_FOR_SECONDS = 24 * 3600.0

# Facts not yet in SQL. While the database is away the oldest are dropped beyond this: they can be looked up again.
MAX_PENDING = 50_000
BATCH = 1000
FLUSH_SECONDS = 1.0
DRAIN_SECONDS = 5.0

# Until when the table is known to agree with the PLC directory; written by `prime`, read again this often.
PRIMED_UNTIL = "identity_primed_until"
PRIMED_CHECK_SECONDS = 60.0

log = logging.getLogger(__name__)


class IdentityCache:
    """DID to fact. `memory` bounds what is kept there; `clock` gives seconds since the epoch."""

    def __init__(self, db: Database, memory: RecordPart, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._clock = clock
        self._memory = memory
        self._rows = BatchedReads(db, table.load_many)
        # What SQL has yet to learn, oldest first; None: that the fact no longer holds.
        self._pending: dict[str, bytes | None] = {}
        self._primed_until = 0.0
        self._primed_check_at = 0.0
        self._writing = Loop("writing identities", self._flush, FLUSH_SECONDS)
        metrics.show_bound("identity-writes", lambda: len(self._pending), MAX_PENDING)

    def start(self) -> None:
        """Start writing behind."""
        # Before the first question, since how long a row is good for depends on what is read here.
        self._flush()
        self._writing.start(after=FLUSH_SECONDS)

    def stop(self) -> None:
        """Write what is pending, for a few seconds at most, and stop."""
        if not self._writing.running:
            return
        deadline = time.monotonic() + DRAIN_SECONDS
        self._writing.stop(DRAIN_SECONDS)
        gevent.with_timeout(max(0.1, deadline - time.monotonic()), self._flush, timeout_value=None)

    def get(self, did: str) -> Fact | None:
        """The fact in memory, if it is still good. Never blocks."""
        packed = self._memory.get(did)
        if packed is None:
            return None
        if not self._is_good(resolved_at(packed)):
            self._memory.drop(did)
            return None
        return unpack(did, packed)

    def load(self, did: str) -> Fact | None:
        """The fact from SQL, if it is still good; kept in memory from now on. None too when SQL is away."""
        row = self._last_known(did)
        if not isinstance(row, table.IdentityRow):
            return row or self.get(did)
        # A fact may have come, or been forgotten, while SQL answered: that is newer than the row.
        if did in self._pending:
            return self.get(did)
        since = [row.resolved_at, *([self._primed_until] if did.startswith("did:plc:") else [])]
        good = [seconds for seconds in since if self._is_good(seconds)]
        if not good:
            return None
        fact = from_row(row)
        self._memory.put(did, pack(fact, max(good)))
        return fact

    def stored(self, did: str) -> Fact | None:
        """The fact that was last known, however old; None too when SQL is away."""
        known = self._last_known(did)
        return from_row(known) if isinstance(known, table.IdentityRow) else known

    def extend(self, fact: Fact, seconds: float) -> None:
        """Let a stored fact be good for `seconds` more, in memory alone."""
        self._memory.put(fact.did, pack(fact, self._clock() - GOOD_FOR_SECONDS + seconds))

    def put(self, fact: Fact) -> None:
        """Keep what was resolved just now."""
        packed = pack(fact, self._clock())
        self._memory.put(fact.did, packed)
        self._write_later(fact.did, packed)

    def forget(self, did: str) -> None:
        """The fact about `did` no longer holds, here and in SQL."""
        self._memory.drop(did)
        self._write_later(did, None)

    def _is_good(self, since: float) -> bool:
        """Whether what was resolved then still holds. What a wrong clock dated far ahead does not."""
        return abs(self._clock() - since) < GOOD_FOR_SECONDS

    def _last_known(self, did: str) -> Fact | table.IdentityRow | None:
        """What SQL has yet to learn of `did`, or else its row; None when there is neither, or SQL is away."""
        if did in self._pending:
            packed = self._pending[did]
            return None if packed is None else unpack(did, packed)
        try:
            return self._rows.get(did)
        except StoreError:
            return None

    def _write_later(self, did: str, packed: bytes | None) -> None:
        self._pending.pop(did, None)
        self._pending[did] = packed
        if len(self._pending) > MAX_PENDING:
            del self._pending[next(iter(self._pending))]

    def _flush(self) -> None:
        """Write all that is pending; what cannot be written stays for the next time."""
        try:
            self._read_primed_until()
            while self._pending:
                batch = list(islice(self._pending.items(), BATCH))
                self._db.write(_store, batch)
                for did, packed in batch:
                    # What changed while it was written is written again.
                    if self._pending.get(did, packed) is packed:
                        self._pending.pop(did, None)
        except StoreError as error:
            log.debug("%d identities wait for the database: %s", len(self._pending), error)

    def _read_primed_until(self) -> None:
        if self._clock() >= self._primed_check_at:
            self._primed_until = float(self._db.read(installation.get, PRIMED_UNTIL) or 0)
            self._primed_check_at = self._clock() + PRIMED_CHECK_SECONDS


def _store(tx: Transaction, batch: Sequence[tuple[str, bytes | None]]) -> None:
    table.forget_many(tx, [did for did, packed in batch if packed is None])
    table.upsert_many(tx, [to_row(unpack(did, packed), resolved_at(packed)) for did, packed in batch if packed])

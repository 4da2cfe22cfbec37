"""What is known about DIDs: facts, packed in memory, over the `identity` table, which is written behind in batches.

Facts are made by `lookup` and `prime`; the resolver keeps them here, with what `negatives` knows not to be there. The
gate asks `cached`, which never blocks. A fact is good for 24 hours from when it was resolved, across restarts. Must not
know how facts are found.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import gevent

from relay.atproto.crypto import Curve, PublicKey
from relay.atproto.errors import ProtocolError
from relay.atproto.hostname import Endpoint, parse_endpoint
from relay.identity.negatives import Negatives
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import IdentityError, StoreError
from relay.kit.generations import RecordPart
from relay.store import identities as table
from relay.store import installation
from relay.store.batched_reads import BatchedReads
from relay.store.database import Database, Transaction
from relay.store.identities import IdentityRow

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


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a DID is. A part that the document lacks, or has in a form that cannot be used, is None."""

    did: str
    pds: Endpoint | None
    key: PublicKey | None
    handle: str | None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A DID that was deactivated for good."""

    did: str


Fact = Identity | Tombstone

_HEAD = struct.Struct(">dB")
_TOMBSTONE, _PDS, _TLS, _P256, _K256, _HANDLE = (1 << bit for bit in range(6))
_CURVES: dict[int, Curve] = {_P256: "p256", _K256: "k256"}
_CURVE_FLAGS = {curve: flag for flag, curve in _CURVES.items()}
_KEY_BYTES = 33


def pack(fact: Fact, resolved_at: float) -> bytes:
    """`fact` and when it was resolved (seconds since the epoch) as bytes.

    A cached identity is one such object: a third of the memory of the dataclasses, and none of the work that
    hundreds of thousands of them would be for the garbage collector.
    """
    if isinstance(fact, Tombstone):
        return _HEAD.pack(resolved_at, _TOMBSTONE)
    flags = 0
    key = b""
    if fact.key:
        flags |= _CURVE_FLAGS[fact.key.curve]
        key = fact.key.compressed
    if fact.pds:
        flags |= _PDS | (_TLS if fact.pds.tls else 0)
    if fact.handle is not None:
        flags |= _HANDLE
    names = f"{fact.pds.hostname if fact.pds else ''}\0{fact.handle or ''}"
    return _HEAD.pack(resolved_at, flags) + key + names.encode()


def resolved_at(packed: bytes) -> float:
    """When the packed fact was resolved, in seconds since the epoch."""
    seconds, _ = _HEAD.unpack_from(packed)
    return float(seconds)


def unpack(did: str, packed: bytes) -> Fact:
    """The fact about `did` that was packed."""
    _, flags = _HEAD.unpack_from(packed)
    if flags & _TOMBSTONE:
        return Tombstone(did)
    names_at = _HEAD.size
    key = None
    curve = _CURVES.get(flags & (_P256 | _K256))
    if curve:
        names_at += _KEY_BYTES
        key = PublicKey.from_compressed(curve, packed[_HEAD.size : names_at])
    hostname, _, handle = packed[names_at:].decode().partition("\0")
    return Identity(
        did,
        Endpoint(hostname, bool(flags & _TLS)) if flags & _PDS else None,
        key,
        handle if flags & _HANDLE else None,
    )


def to_row(fact: Fact, resolved_at: float) -> IdentityRow:
    """The table's form of a fact that was resolved at `resolved_at`."""
    if isinstance(fact, Tombstone):
        return IdentityRow(fact.did, None, None, None, None, resolved_at, tombstone=True)
    pds, key = fact.pds, fact.key
    return IdentityRow(
        fact.did,
        pds.url if pds else None,
        key.curve if key else None,
        key.compressed if key else None,
        fact.handle,
        resolved_at,
    )


def from_row(row: IdentityRow) -> Fact | None:
    """The fact in a row of the table; None for one that this version cannot read."""
    if row.tombstone:
        return Tombstone(row.did)
    if row.key is not None and (row.curve is None or len(row.key) != _KEY_BYTES):
        log.debug("the key that is stored of %s cannot be read", row.did)
        return None
    try:
        key = PublicKey.from_compressed(row.curve, row.key) if row.curve and row.key else None
        return Identity(row.did, parse_endpoint(row.pds) if row.pds else None, key, row.handle)
    except ProtocolError as error:
        log.debug("what is stored of %s cannot be read: %s", row.did, error)
        return None


def identity_of(outcome: Fact | IdentityError) -> Identity:
    """The identity, or the IdentityError raised."""
    if isinstance(outcome, IdentityError):
        raise untraced(outcome)
    if isinstance(outcome, Tombstone):
        raise IdentityError("did-tombstone", outcome.did)
    return outcome


def untraced(error: IdentityError) -> IdentityError:
    """A copy: an exception that is kept keeps the frames of every raise, and all that is in them, with it."""
    return IdentityError(error.reason, error.detail)


class IdentityCache:
    """DID to fact. `memory` bounds what is kept there; `clock` gives seconds since the epoch."""

    def __init__(self, db: Database, memory: RecordPart, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._clock = clock
        self._memory = memory
        self.negatives = Negatives()
        self._rows = BatchedReads(db, table.load_many)
        # What SQL has yet to learn, oldest first; None: that the fact no longer holds.
        self._pending: dict[str, bytes | None] = {}
        # How many facts were found not to hold any longer.
        self._forgotten = 0
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

    def cached(self, did: str) -> Identity | None:
        """The identity in memory, None when it is not there. Never blocks.

        Raises IdentityError when it is known that there is none: `did-tombstone`, `did-not-found`, `did-document`.
        """
        fact = self.get(did)
        if fact is None:
            refused = self.negatives.refused(did)
            return None if refused is None else identity_of(refused)
        _READS.inc()
        return fact if isinstance(fact, Identity) else identity_of(fact)

    def get(self, did: str) -> Fact | None:
        """The fact in memory, if it is still good. Never blocks."""
        packed = self._memory.get(did)
        if packed is None:
            return None
        if not self._is_good(_HEAD.unpack_from(packed)[0]):
            self._memory.drop(did)
            return None
        return unpack(did, packed)

    def load(self, did: str) -> Fact | None:
        """The fact from SQL, if it is still good; kept in memory from now on. None too when SQL is away."""
        packed = self._pending.get(did)
        if packed is not None:
            return unpack(did, packed) if self._is_good(resolved_at(packed)) else None
        row = None
        with suppress(StoreError):
            row = self._last_known(did)
        return self._keep(row) if isinstance(row, IdentityRow) else row or self.get(did)

    def look_ahead(self, dids: Sequence[str]) -> None:
        """Keep in memory the facts about these DIDs that SQL has and that are still good. Raises StoreError."""
        forgotten = self._forgotten
        rows = self._db.read(table.load_many, [did for did in dids if self._memory.get(did) is None])
        for did, row in rows.items():
            # A fact that came meanwhile is newer, and what was read may be what was found not to hold.
            if forgotten == self._forgotten and self._memory.get(did) is None and self._keep(row) is not None:
                _READS_AHEAD.inc()

    def stored(self, did: str) -> Fact | None:
        """The fact that was last known, however old. Raises StoreError when SQL is away and memory does not have it."""
        try:
            known = self._last_known(did)
        except StoreError:
            known = self.get(did)
            if known is None:
                raise
        return from_row(known) if isinstance(known, IdentityRow) else known or self.get(did)

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
        self._forgotten += 1
        self._memory.drop(did)
        self._write_later(did, None)

    def _keep(self, row: IdentityRow) -> Fact | None:
        """The fact in a row of the table, if it is still good; kept in memory from now on."""
        did = row.did
        # A fact may have come, or been forgotten, while SQL answered: that is newer than the row.
        if did in self._pending:
            return self.get(did)
        since = [row.resolved_at, *([self._primed_until] if did.startswith("did:plc:") else [])]
        good = [seconds for seconds in since if self._is_good(seconds)]
        if not good:
            return None
        fact = from_row(row)
        if fact is not None:
            self._memory.put(did, pack(fact, max(good)))
        return fact

    def _is_good(self, since: float) -> bool:
        """Whether what was resolved then still holds. What a wrong clock dated far ahead does not."""
        return abs(self._clock() - since) < GOOD_FOR_SECONDS

    def _last_known(self, did: str) -> Fact | IdentityRow | None:
        """What SQL has yet to learn of `did`, or else its row; None when there is neither. Raises StoreError."""
        if did in self._pending:
            packed = self._pending[did]
            return None if packed is None else unpack(did, packed)
        return self._rows.get(did)

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
                self._db.write(_store, batch, self._clock())
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


def _store(tx: Transaction, batch: Sequence[tuple[str, bytes | None]], now: float) -> None:
    table.forget_many(tx, [did for did, packed in batch if packed is None])
    table.upsert_many(tx, [to_row(unpack(did, packed), resolved_at(packed)) for did, packed in batch if packed], now)


_READS = metrics.IDENTITY_READS.labels("memory")
_READS_AHEAD = metrics.IDENTITY_READS.labels("table")

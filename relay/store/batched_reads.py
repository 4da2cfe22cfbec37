"""Rows that are asked for one by one, by many greenlets at a time, read together.

Used by `identity`, `ingest` and `stream` for accounts that are not in memory. After a start none is, and a round to the
database's thread costs ten times what a row does. Must not know what the rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from gevent.event import Event as Signal

from relay.kit.errors import StoreError
from relay.store.database import Database, Transaction

Found = TypeVar("Found")

MAX_KEYS = 512
WAIT_SECONDS = 60.0


class _Batch(Generic[Found]):
    """Keys that are read together; whoever asked for the first one reads for all."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.landed = Signal()
        self.found: Mapping[str, Found] = {}
        self.error: Exception | None = None


class BatchedReads(Generic[Found]):
    """Reads by `read_many(tx, keys)`, which gives what it finds by key. One read at a time, of up to MAX_KEYS keys.

    A key that is asked for is read at once if no read is under way. Those that come meanwhile are the next read.
    """

    def __init__(self, db: Database, read_many: Callable[[Transaction, Sequence[str]], Mapping[str, Found]]) -> None:
        self._db = db
        self._read_many = read_many
        self._open: _Batch[Found] | None = None
        self._newest: _Batch[Found] | None = None

    def get(self, key: str) -> Found | None:
        """What there is for `key`, as of after this was called. Raises StoreError."""
        batch = self._open
        if batch is None or len(batch.keys) >= MAX_KEYS:
            before, batch = self._newest, _Batch()
            self._open = self._newest = batch
            batch.keys.append(key)
            self._read(batch, before)
        else:
            batch.keys.append(key)
            batch.landed.wait(WAIT_SECONDS)
        if batch.error is not None:
            # A copy, since an exception collects the tracebacks of all raises.
            reason = batch.error.reason if isinstance(batch.error, StoreError) else "store-unavailable"
            raise StoreError(reason, str(batch.error))
        return batch.found.get(key)

    def _read(self, batch: _Batch[Found], before: _Batch[Found] | None) -> None:
        batch.error = StoreError("store-unavailable", "the read was stopped")
        try:
            if before is not None:
                before.landed.wait(WAIT_SECONDS)
            if self._open is batch:
                self._open = None
            batch.found = self._db.read(self._read_many, batch.keys)
            batch.error = None
        except StoreError as error:
            batch.error = StoreError(error.reason, error.detail)
        finally:
            if self._open is batch:
                self._open = None
            if self._newest is batch:
                self._newest = None
            batch.landed.set()

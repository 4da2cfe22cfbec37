"""Builds the room: the accounts, the gate and the lanes over a recovered stream.

Used by `app` and by tests that need the whole room. Holds no logic of the event path.
"""

from __future__ import annotations

from relay.atproto.crypto import PARSED_KEYS, parsed_keys
from relay.hosts.registry import HostRegistry
from relay.identity.resolver import Resolver
from relay.ingest.accounts import Accounts
from relay.ingest.gate import Gate
from relay.ingest.hosting import Hosting
from relay.ingest.lanes import Lanes
from relay.ingest.look_ahead import LookAhead
from relay.ingest.moderation import Moderation
from relay.ingest.penalties import Penalties
from relay.ingest.places import Places
from relay.ingest.rejections import Missed, Rejections
from relay.ingest.relief import Relief
from relay.ingest.renumbering import Renumbering
from relay.ingest.waits import LongVerifications, StatusCheck, Waits
from relay.ingest.worker_pool import WorkerPool
from relay.kit import metrics
from relay.kit.generations import RecordCache
from relay.net.http import GuardedHttp
from relay.store import accounts as table
from relay.store.database import Database
from relay.stream.stream import Stream


class Ingest:
    """The room's parts. `memory` holds the accounts' states; `pool` verifies events, if there is one."""

    def __init__(
        self,
        db: Database,
        stream: Stream,
        resolver: Resolver,
        registry: HostRegistry,
        http: GuardedHttp,
        *,
        memory: RecordCache,
        lenient: bool = False,
        pool: WorkerPool | None = None,
    ) -> None:
        self.accounts = Accounts(stream.projector.account, memory.accounts, stream.next_uid)
        self.moderation = Moderation(db, self.accounts, stream.sequencer, stream.projector)
        penalties = Penalties()
        self.places = Places(db, self.moderation)
        hosting = Hosting(self.accounts, registry, stream.projector, stream.sequencer.submit, self.places.freed)
        gate = Gate(self.accounts, resolver.known, hosting, penalties, lenient=lenient)
        missed = Missed(stream.projector.note_missed)
        self.renumbering = Renumbering(self.accounts, resolver, missed)
        status_check = StatusCheck(http, self.accounts, hosting, missed)
        look_ahead = LookAhead(self.accounts, resolver.known, stream.projector.accounts)
        waits = Waits(resolver, look_ahead, status_check, penalties, LongVerifications(lenient=lenient))
        metrics.show_bound("parsed-keys", parsed_keys, PARSED_KEYS)
        rejections = Rejections(registry.rejected, missed)
        self.lanes = Lanes(gate, waits, hosting, stream.sequencer, stream.projector, rejections, look_ahead)
        self._db = db
        self._registry = registry
        self._stream = stream
        self._projector = stream.projector
        self._projector.went_back = self._store_again
        self._pool = pool
        self._relief: Relief | None = None
        if pool is not None and pool.on_demand:
            self._relief = Relief(pool, gate)
        else:
            gate.pool = pool

    @property
    def problem(self) -> str | None:
        """What keeps events from being verified, or None."""
        # Without a worker on demand the relay verifies by itself.
        return self._pool.problem if self._pool and not self._relief else None

    def start(self) -> None:
        """Start judging. SQL is up to the log."""
        self.accounts.number_from(self._stream.next_uid)
        if self._relief:
            self._relief.start()
        elif self._pool:
            self._pool.start()
        self.lanes.start()

    def _store_again(self) -> None:
        """The database is an older one: give it what no event in the log says. Raises StoreError."""
        self._stream.decisions.look()
        self._registry.store_again()
        for row in self.accounts.made_after(self._db.read(table.max_uid)):
            self._projector.note_account(row)

    def stop(self, timeout: float) -> None:
        """Judge what is in, for `timeout` seconds at most, and stop."""
        self.lanes.stop(timeout)
        self.places.stop()
        if self._relief:
            self._relief.stop()
        if self._pool:
            self._pool.stop()

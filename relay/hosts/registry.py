"""All known hosts, in memory and in SQL, and the one place where a host's status changes.

Loaded at start; used by the fleet and its dispatcher. A change takes effect in memory at once and is written by the
next flush, or on demand when an admin waits for it. Must not know of connections or schedules.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import partial

from relay.hosts.host import Host, HostRegistry
from relay.hosts.lifecycle import Cause, Status, after
from relay.hosts.state import Upstream
from relay.kit import metrics
from relay.store import hosts as table
from relay.store.database import Database, Transaction
from relay.store.hosts import HostRow
from relay.stream.cursors import CursorBook

NEAR_LIMIT = 0.8
# With this many hosts to connect to and not one connected, it is our own network that is down.
HOSTS_TO_JUDGE_BY = 10

log = logging.getLogger(__name__)


class Roster:
    """Every Upstream by id and by name. Bounded by the host table, which only admins and checked crawls extend."""

    def __init__(self, db: Database, registry: HostRegistry, book: CursorBook) -> None:
        self._db = db
        self._registry = registry
        self._book = book
        self._by_id: dict[int, Upstream] = {}
        self._by_name: dict[str, Upstream] = {}
        self._connected = 0
        metrics.HOSTS_CONNECTED.set_function(lambda: self._connected)
        metrics.HOSTS_NEAR_ACCOUNT_LIMIT.set_function(self._near_account_limit)
        for status in Status:
            metrics.HOSTS.labels(status).set_function(partial(self.count, status))

    def load(self) -> None:
        """Read the host table. Raises StoreError."""
        for row in self._db.read(table.all_rows):
            self.admit(row)

    def admit(self, row: HostRow) -> Upstream:
        """Make a stored host known. Two requests at once may store the same host: there is one Upstream for both."""
        if row.id in self._by_id:
            return self._by_id[row.id]
        host = Host(
            id=row.id,
            hostname=row.hostname,
            no_ssl=row.no_ssl,
            account_limit=row.account_limit,
            account_count=row.account_count,
            trusted=row.trusted,
            cursor=self._book.get(row.id),
        )
        upstream = Upstream(host, row, Status(row.status))
        self._registry.add(host)
        self._by_id[host.id] = upstream
        self._by_name[host.hostname] = upstream
        return upstream

    def by_id(self, host_id: int) -> Upstream | None:
        """The host with this row id."""
        return self._by_id.get(host_id)

    def by_name(self, hostname: str) -> Upstream | None:
        """The host with this normalised name."""
        return self._by_name.get(hostname)

    def change(self, upstream: Upstream, cause: Cause) -> bool:
        """Change the host's status as the table of transitions says. False when the cause means nothing now."""
        status = after(upstream.status, cause)
        if status is None:
            return False
        if status is not upstream.status:
            log.info("host %s: %s -> %s (%s)", upstream.hostname, upstream.status, status, cause)
            metrics.HOST_TRANSITIONS.labels(cause).inc()
            upstream.status = status
        upstream.changed = True
        return True

    def connected(self, upstream: Upstream) -> None:
        """A connection to the host is open."""
        self._connected += 1
        upstream.connected_at = upstream.row.last_connected_at = time.time()
        self.change(upstream, Cause.CONNECTED)

    def disconnected(self, upstream: Upstream) -> None:
        """The connection is no more; until just now the host was seen."""
        self._connected -= 1
        upstream.connected_at = None
        upstream.row.last_connected_at = time.time()
        upstream.changed = True

    @property
    def cut_off(self) -> bool:
        """True when not one of many hosts is connected: then failures say nothing about the hosts."""
        return not self._connected and self.count(Status.ACTIVE) >= HOSTS_TO_JUDGE_BY

    def count(self, status: Status) -> int:
        """Hosts in this status."""
        return sum(upstream.status is status for upstream in self)

    def flush(self) -> None:
        """Write what changed since the last time. Raises StoreError; then nothing is lost and the next flush has it."""
        changed = [upstream for upstream in self._by_id.values() if upstream.changed]
        if not changed:
            return
        statuses = {upstream.id: upstream.status for upstream in changed if upstream.status != upstream.row.status}
        for upstream in changed:
            upstream.changed = False
        try:
            self._db.write(_save, [upstream.row for upstream in changed], statuses)
        except BaseException:
            for upstream in changed:
                upstream.changed = True
            raise
        for host_id, status in statuses.items():
            self._by_id[host_id].row.status = status

    def _near_account_limit(self) -> int:
        return sum(u.host.account_count >= NEAR_LIMIT * u.host.account_limit for u in self)

    def __iter__(self) -> Iterator[Upstream]:
        # A copy, since hosts come in while others look, and metrics are read by a thread of their own.
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)


def _save(tx: Transaction, rows: list[HostRow], statuses: dict[int, Status]) -> None:
    table.save_states(tx, rows)
    for host_id, status in statuses.items():
        table.set_status(tx, host_id, status)

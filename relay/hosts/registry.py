"""All known hosts, in memory and in SQL, and the one place where a host's status changes.

Built by `app` and loaded at start; used by everything that looks up a host. A change takes effect in memory at once
and is written by the next flush, or on demand when an admin waits for it. Must not know of connections or schedules.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from gevent.lock import BoundedSemaphore

from relay.hosts.host import Host
from relay.hosts.lifecycle import Cause, Status, after
from relay.hosts.rejected import RejectedFrames
from relay.hosts.shares import Shares
from relay.kit import metrics
from relay.kit.clock import boot_seconds
from relay.kit.errors import StoreError
from relay.store import hosts as table
from relay.store.database import Database, Transaction
from relay.store.decisions import host_value
from relay.store.hosts import HostRow
from relay.stream.cursors import CursorBook
from relay.stream.decisions import Decisions

NEAR_LIMIT = 0.8
# With this many hosts to connect to and not one in so many connected, it is our own network that is down: a few of them
# may be on our side of the break.
HOSTS_TO_JUDGE_BY = 10
ONE_IN = 20
# For how long before a crash it may not have been stored that a host was connected.
UNSAID_SECONDS = 1200.0

log = logging.getLogger(__name__)


def last_connected(rows: Iterable[HostRow]) -> float:
    """When any of the hosts was last seen to be connected, in Unix seconds; infinity when none ever was."""
    return max((row.last_connected_at for row in rows if row.last_connected_at is not None), default=math.inf)


class HostRegistry:
    """Every Host by id and by name, and the last rejected frames of each.

    Bounded by the host table, which only admins and checked crawls extend.
    """

    def __init__(self, db: Database, book: CursorBook, decisions: Decisions) -> None:
        self._db = db
        self._book = book
        self.decisions = decisions
        self._by_id: dict[int, Host] = {}
        self._by_name: dict[str, Host] = {}
        self._connected = 0
        self._flushing = BoundedSemaphore()
        self._shares = Shares()
        self.rejected = RejectedFrames()
        metrics.HOSTS_CONNECTED.set_function(lambda: self._connected)
        metrics.HOSTS_NEAR_ACCOUNT_LIMIT.set_function(self._near_account_limit)
        for status in Status:
            metrics.HOSTS.labels(status).set_function(partial(self.count, status))

    def load(self) -> None:
        """Read the host table, and the counts of known hosts again; not while events come. Raises StoreError."""
        rows = self._db.read(table.all_rows)
        self._date_by_log(rows)
        for row in rows:
            self.add(row).account_count = row.account_count

    def _date_by_log(self, rows: list[HostRow]) -> None:
        """Let hosts be seen for as long as there are events in the log: a restored database does not say so, and the
        hosts would start live.
        """
        unsaid = self._book.logged_until - last_connected(rows)
        if unsaid < UNSAID_SECONDS:
            return
        for row in rows:
            if row.last_connected_at is not None:
                row.last_connected_at += unsaid

    def add(self, row: HostRow) -> Host:
        """Make a stored host known. Two requests at once may store the same host: there is one Host for both.

        Raises StoreError `store-behind` where an older database has given a known host's id away.
        """
        host = self._by_id.get(row.id)
        if host is not None and host.hostname != row.hostname:
            raise StoreError("store-behind", f"the database has {row.hostname} in the place of {host.hostname}")
        if host is None:
            host = Host(row, self._book.get(row.id), self._shares)
            self._by_id[host.id] = host
            self._by_name[host.hostname] = host
        return host

    def by_id(self, host_id: int) -> Host | None:
        """The host with this row id."""
        return self._by_id.get(host_id)

    def by_name(self, hostname: str) -> Host | None:
        """The host with this normalised name."""
        return self._by_name.get(hostname)

    def change(self, host: Host, cause: Cause) -> bool:
        """Change the host's status as the table of transitions says. False when the cause means nothing now."""
        status = after(host.status, cause)
        if status is None:
            return False
        if status is not host.status:
            log.debug("host %s: %s -> %s (%s)", host.hostname, host.status, status, cause)
            metrics.HOST_TRANSITIONS.labels(cause).inc()
            host.status = status
        host.changed = True
        return True

    def connected(self, host: Host) -> None:
        """A connection to the host is open."""
        self._connected += 1
        host.connected_at = host.row.last_connected_at = time.time()
        host.seen_at = boot_seconds()
        self.change(host, Cause.CONNECTED)

    def disconnected(self, host: Host) -> None:
        """The connection has ended; until just now the host was seen."""
        self._connected -= 1
        host.connected_at = None
        host.row.last_connected_at = time.time()
        host.seen_at = boot_seconds()
        host.changed = True

    @property
    def cut_off(self) -> bool:
        """True when hardly any of many hosts is connected: then failures say nothing about the hosts."""
        to_connect = self.count(Status.ACTIVE)
        return to_connect >= HOSTS_TO_JUDGE_BY and self._connected * ONE_IN < to_connect

    def count(self, status: Status) -> int:
        """Hosts in this status."""
        return sum(host.status is status for host in self)

    def flush(self) -> None:
        """Write what changed since the last time. Raises StoreError; then nothing is lost and the next flush has it."""
        # Two at a time could be stored in the other order. Ended by the database's answer, within a minute each.
        with self._flushing:
            self._flush()

    def _flush(self) -> None:
        changed = [host for host in self._by_id.values() if host.changed]
        if not changed:
            return
        statuses = {host.id: host.status for host in changed if host.status != host.row.status}
        for host in changed:
            host.changed = False
        try:
            self._db.write(_save, [host.row for host in changed], statuses)
        except BaseException:
            for host in changed:
                host.changed = True
            raise
        for host_id, status in statuses.items():
            self._by_id[host_id].row.status = status

    def decided(self, host: Host) -> None:
        """Note what an operator made of the host, or that it was taken in."""
        row = replace(host.row, status=host.status)
        self.decisions.note("host", host.hostname, host_value(row))

    def store_again(self) -> None:
        """Store all hosts as they are here: the database is an older one. Raises StoreError."""
        self._db.write(table.store_again, [replace(host.row, status=host.status) for host in self])

    def _near_account_limit(self) -> int:
        return sum(host.account_count >= NEAR_LIMIT * host.account_limit for host in self)

    def __iter__(self) -> Iterator[Host]:
        # A copy, since hosts come in while others look, and metrics are read by a thread of their own.
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)


def _save(tx: Transaction, rows: list[HostRow], statuses: dict[int, Status]) -> None:
    table.save_states(tx, rows)
    for host_id, status in statuses.items():
        table.set_status(tx, host_id, status)

"""Hosts as the fleet holds them, made up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.state import Upstream
from relay.store.hosts import HostRow
from relay.stream.cursors import CursorBook

NOW = 1_800_000_000.0


def upstream(status: Status = Status.ACTIVE, *, connected: bool = True, accounts: int = 10, **row: Any) -> Upstream:
    """A host of 100 accounts at most that is a month old."""
    fields = {
        "id": 1,
        "hostname": "pds.test",
        "no_ssl": False,
        "account_limit": 100,
        "trusted": False,
        "status": str(status),
        "last_seq": -1,
        "account_count": accounts,
        "created_at": datetime.fromtimestamp(NOW - 30 * 86_400, UTC),
        **row,
    }
    stored = HostRow(**fields)
    host = Host(
        stored.id,
        stored.hostname,
        stored.no_ssl,
        stored.account_limit,
        stored.account_count,
        stored.trusted,
        CursorBook(lambda: 0).get(1),
    )
    made = Upstream(host, stored, status)
    if connected:
        made.connected_at = stored.last_connected_at = NOW - 600
    return made

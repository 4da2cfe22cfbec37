"""Hosts as the registry holds them, and what one says, made up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.shares import Shares
from relay.net.websocket_connection import StreamEnded
from relay.net.websocket_reader import PassedOver
from relay.store.hosts import HostRow
from relay.stream.cursors import CursorBook

NOW = 1_800_000_000.0


class EmptyLog:
    """A log as cursors know it."""

    last_seq = 0
    last_time_us = 0


class Stream:
    """A connection that brings these messages one by one, then ends."""

    waited = False

    def __init__(self, *messages: bytes | PassedOver) -> None:
        self._messages = list(messages)

    def receive(self, patience: float | None = None) -> list[bytes | PassedOver]:
        if not self._messages:
            raise StreamEnded("closed")
        return [self._messages.pop(0)]


def known_host(status: Status = Status.ACTIVE, *, connected: bool = True, accounts: int = 10, **row: Any) -> Host:
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
    made = Host(HostRow(**fields), CursorBook(EmptyLog()).get(1), Shares())
    if connected:
        made.connected_at = made.row.last_connected_at = NOW - 600
    return made

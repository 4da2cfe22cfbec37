"""Builds the room. Used by `app`; holds no rule of its own."""

from __future__ import annotations

from relay.healing.accounts import AccountHealing
from relay.healing.hosts import HostHealing
from relay.hosts.registry import HostRegistry
from relay.ingest.ingest import Ingest
from relay.net.http import GuardedHttp
from relay.store.database import Database


class Healing:
    """The room's parts. With `every`, all hosts are compared once a week."""

    def __init__(self, db: Database, http: GuardedHttp, ingest: Ingest, registry: HostRegistry, *, every: bool) -> None:
        self.accounts = AccountHealing(db, http, ingest.accounts, registry, ingest.lanes)
        self.hosts = HostHealing(db, http, registry, every=every)

    def start(self) -> None:
        """Start asking hosts for what was missed."""
        self.accounts.start()
        self.hosts.start()

    def stop(self) -> None:
        """Stop at once; the next start goes on."""
        self.hosts.stop()
        self.accounts.stop()

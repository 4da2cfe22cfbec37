"""A relay's hosts over a real database and real sockets; only what is behind the lanes is left out.

The folders of tests that use the fixtures import them in their conftest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from relay.atproto.frames import Event, Kind
from relay.config import Settings
from relay.hosts import lifecycle
from relay.hosts.host import Host
from relay.hosts.hosts import Hosts
from relay.hosts.registry import HostRegistry
from relay.kit.errors import AddressRefused
from relay.net import http
from relay.net.address import Address, resolve_public
from relay.net.http import GuardedHttp
from relay.store.database import Database
from relay.stream.cursors import CursorBook
from relay.stream.decisions import Decisions
from tests.support.hosts import EmptyLog
from tests.support.pds import FakePds

LOCAL = Settings(allow_insecure_hosts=True)


class Sink:
    """Takes events like the lanes do when everything is accepted at once; while `holding`, as if they waited."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.rejected: list[tuple[str, int | None, str]] = []
        self.blocked = False
        self.holding = False

    def put(self, host: Host, event: Event) -> bool:
        waited = self.blocked
        while self.blocked:
            gevent.sleep(0.01)
        if host.cursor.begin(event.seq):
            self.events.append((host.hostname, event.seq))
            if not self.holding:
                host.cursor.finish(event.seq)
        return waited

    def reject(self, host: Host, seq: int | None, reason: str, did: str | None, *_: object) -> None:
        self.rejected.append((host.hostname, seq, reason))
        if seq is not None and host.cursor.begin(seq):
            host.cursor.finish(seq)

    def seqs(self, pds: FakePds) -> list[int]:
        return [seq for hostname, seq in self.events if hostname == pds.hostname]


class Relay:
    """As much of a relay as hosts meet. Can be stopped and started again over the same database."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db = db
        self.http = GuardedHttp("relay-test/1 (atproto-relay)", allow_insecure=True)
        self.sink = Sink()
        self.raised: Counter[str] = Counter()
        self.running: list[Hosts] = []
        self.folder = folder

    def start(self, settings: Settings = LOCAL, book: CursorBook | None = None) -> Hosts:
        self.decisions = Decisions(self.folder, self.db)
        self.registry = HostRegistry(self.db, book or CursorBook(EmptyLog()), self.decisions)
        hosts = Hosts(self.db, self.registry, self.sink, self._starts_again, self._limit_raised, self.http, settings)
        hosts.start()
        self.running.append(hosts)
        return hosts

    def stop(self) -> None:
        while self.running:
            self.running.pop().stop(5)

    def host(self, pds: FakePds) -> Host:
        found = self.registry.by_name(pds.hostname)
        assert found is not None
        return found

    def _starts_again(self, host: Host, event: Event) -> bool:
        """As when only events of this kind are new."""
        if event.kind is not Kind.SYNC:
            return False
        host.cursor.reset()
        return True

    def _limit_raised(self, host: Host) -> None:
        self.raised[host.hostname] += 1


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name of a test is ever looked up outside."""

    def resolve_local(host: str, port: int, allow_insecure: bool, timeout: float = 10.0) -> list[Address]:
        if host not in ("localhost", "127.0.0.1"):
            raise AddressRefused("name-unresolved", host)
        return resolve_public(host, port, allow_insecure, timeout)

    monkeypatch.setattr(http, "resolve_public", resolve_local)


@pytest.fixture
def relay(database: Database, tmp_path: Path) -> Iterator[Relay]:
    one = Relay(database, tmp_path)
    yield one
    one.stop()


@pytest.fixture
def pds() -> Iterator[FakePds]:
    with FakePds() as host:
        yield host


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries in hundredths of a second, probes in tenths."""
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(lifecycle, "LONGEST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr(lifecycle, "PROBE_SECONDS", 0.3)

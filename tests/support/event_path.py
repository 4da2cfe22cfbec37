"""The event path from the lanes to the log, all real: SQL, segment log, resolver; a fake PLC directory and PDS.

path = EventPath(folder, url, plc)         # started; `restart()` opens the same data again
host = path.host(pds.url)                  # a stored host with its cursor
path.put(host, frame)                      # as a subscriber would
path.logged(3)                             # waits for three events in the log, and gives all that are there
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from relay.atproto import frames
from relay.atproto.hostname import parse_endpoint
from relay.collections.check import CollectionCheck
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.retention import Keep
from relay.healing.accounts import AccountHealing
from relay.healing.hosts import HostHealing
from relay.hosts.host import Host
from relay.hosts.registry import HostRegistry
from relay.identity.resolver import Resolver
from relay.ingest.ingest import Ingest
from relay.ingest.worker_pool import HUNG_SECONDS, WORKER, WorkerPool
from relay.kit import metrics
from relay.kit.generations import RecordCache
from relay.net.http import GuardedHttp
from relay.store import accounts, hosts
from relay.store.accounts import AccountRow, RepoRow
from relay.store.hosts import HostRow
from relay.store.open import open_database
from relay.stream.stream import Stream
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.present import present
from tests.support.repo import RepoBuilder, SigningKey, account_did, did_document
from tests.support.wait import until


class EventPath:
    """One relay without upstream and web."""

    def __init__(
        self,
        folder: Path,
        url: str,
        plc: FakePlc,
        *,
        lenient: bool = False,
        processes: int = 0,
        on_demand: bool = False,
        worker: str = WORKER,
        hung_seconds: float = HUNG_SECONDS,
    ) -> None:
        self.plc = plc
        self._folder, self._url, self._lenient = folder, url, lenient
        self._pool = partial(
            WorkerPool, processes, lenient=lenient, on_demand=on_demand, worker=worker, hung_seconds=hung_seconds
        )
        self._processes = processes
        self._repos = 0
        self.ahead = 60.0
        self.every = False
        self._open()

    def _open(self) -> None:
        http = GuardedHttp("tests", allow_insecure=True)
        self.db = open_database(self._url, max_connections=8)
        self.stream = Stream(SegmentLog(self._folder), self.db, Keep(3600.0, 0))
        memory = RecordCache(10_000)
        self.resolver = Resolver(self.db, http, plc_hosts=(self.plc.url,), memory=memory)
        self.registry = HostRegistry(self.db, self.stream.cursors, self.stream.decisions)
        self.ingest = Ingest(
            self.db,
            self.stream,
            self.resolver,
            self.registry,
            http,
            memory=memory,
            lenient=self._lenient,
            pool=self._pool() if self._processes else None,
        )
        # Of time that has passed, and of no pause: tests call `run_once` and `join`.
        self.account_healing = AccountHealing(
            self.db,
            http,
            self.ingest.accounts,
            self.registry,
            self.ingest.lanes,
            clock=lambda: time.time() + self.ahead,
            pace=0.0,
        )
        self.host_healing = HostHealing(
            self.db, http, self.registry, every=self.every, clock=lambda: time.time() + self.ahead, pause=0.0
        )
        self.collection_check = CollectionCheck(self.db, http, self.registry, self.stream.projector)
        self.stream.start()
        self.resolver.start()
        self.ingest.start()

    def store(self) -> None:
        """Return when SQL has all that was gathered until now."""
        projector, cursors = self.stream.projector, self.stream.cursors

        def stored() -> bool:
            waits = projector.pending.rows() or cursors.dirty
            return not waits and projector._rounds == projector._stored_round

        until(stored, 20)

    def heal(self) -> None:
        """Look at every account that is due now, once."""
        self.store()
        self.account_healing.run_once()
        self.account_healing.join()

    def compare(self) -> None:
        """Compare every host that is due now, once."""
        self.store()
        self.host_healing.run_once()
        self.host_healing.join()
        # What was noted is due some seconds later.
        self.ahead += 10

    def close(self) -> None:
        self.host_healing.stop()
        self.account_healing.stop()
        self.ingest.stop(1.0)
        self.stream.stop(5.0)
        self.resolver.stop()
        self.db.close()

    def restart(self) -> None:
        self.close()
        self._open()

    def crash(self) -> None:
        """Start again on what is in the log, and on what SQL has by now."""
        self.stream.projector._loop.stop()
        with mock.patch.object(self.stream.projector, "stop"):
            self.close()
        self._open()

    def host(self, url: str, *, account_limit: int = 100) -> Host:
        endpoint = parse_endpoint(url)
        row = self.db.write(
            hosts.insert, endpoint.hostname, no_ssl=not endpoint.tls, account_limit=account_limit, trusted=False
        )
        return self.registry.add(row)

    def repo(self, pds_url: str, curve: str = "k256") -> RepoBuilder:
        """A new account whose DID document names `pds_url`."""
        self._repos += 1
        repo = RepoBuilder(account_did(self._repos), SigningKey.create(curve, seed=self._repos))
        self.move(repo, pds_url)
        return repo

    def move(self, repo: RepoBuilder, pds_url: str, key: SigningKey | None = None) -> None:
        self.plc.documents[repo.did] = did_document(repo.did, key or repo.key, pds_url)

    def stored(self, did: str) -> tuple[AccountRow, RepoRow]:
        """What SQL says of an account that has sent a commit."""
        row, repo = self.db.read(accounts.many_by_did, [did])[did]
        return row, present(repo)

    def host_row(self, host: Host) -> HostRow:
        return present(self.db.read(hosts.by_id, host.id))

    def put(self, host: Host, frame: bytes) -> None:
        event = frames.decode(frame)
        assert isinstance(event, frames.Commit | frames.Sync | frames.Identity | frames.Account)
        self.ingest.lanes.put(host, event)

    def logged(self, count: int) -> list[frames.Event]:
        """All events in the log, once there are `count`."""
        until(lambda: self.stream.firehose.last_seq >= count)
        return self.events()

    def events(self) -> list[frames.Event]:
        reader, seq = LogReader(self.stream.log), 0
        events: list[frames.Event] = []
        while records := reader.read(seq):
            seq = records[-1].seq
            for record in records:
                event = frames.decode(record.frame)
                assert isinstance(event, frames.Event) and event.seq == record.seq
                events.append(event)
        return events


def commits(path: EventPath, count: int) -> list[frames.Commit | frames.Sync]:
    """The commits and syncs in the log, once it has `count` events."""
    return [event for event in path.logged(count) if isinstance(event, frames.Commit | frames.Sync)]


def revs(path: EventPath, count: int) -> list[str]:
    """Their revs."""
    return [event.rev for event in commits(path, count)]


def desynchronized(path: EventPath, repo: RepoBuilder) -> bool:
    """Whether something of the account is known to be missing."""
    path.stream.projector.flush()
    return path.stored(repo.did)[1].desynchronized


class DropCounter:
    """Drops by reason since the test began."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}

    def since(self, reason: str) -> int:
        value = metrics.EVENTS_DROPPED.labels(reason)._value.get()
        return int(value - self._before.setdefault(reason, value))

    def watch(self, *reasons: str) -> DropCounter:
        for reason in reasons:
            self.since(reason)
        return self


@pytest.fixture
def drops() -> DropCounter:
    return DropCounter()


@pytest.fixture
def plc() -> Iterator[FakePlc]:
    with FakePlc() as serving:
        yield serving


@pytest.fixture
def pds() -> Iterator[FakePds]:
    with FakePds() as serving:
        yield serving


@pytest.fixture
def other_pds() -> Iterator[FakePds]:
    with FakePds() as serving:
        yield serving


@pytest.fixture
def path(tmp_path: Path, database_url: str, plc: FakePlc) -> Iterator[EventPath]:
    """On SQLite events are verified in this process, on PostgreSQL in workers: neither asks how it is with the other,
    so each is there once, and not each with each.
    """
    processes = 0 if database_url.startswith("sqlite://") else 2
    opened = EventPath(tmp_path / "persist", database_url, plc, processes=processes)
    yield opened
    opened.close()

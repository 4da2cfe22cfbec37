"""Fixtures of every folder of tests: databases, each on SQLite and on PostgreSQL, a fake network, relays and their API.

A plugin of `tests/conftest.py`, so that promises, process and integration tests have the same ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from relay.store.database import Database
from relay.store.open import open_database
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.postgres import BINARIES, Cluster, Databases
from tests.support.relay_process import RelayProcess
from tests.support.web import Web

StartWeb = Callable[..., Web]


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Databases]:
    """A private PostgreSQL server for the whole run: that of `tests.side_by_side`, or one of this process."""
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed: `make test` does that")
    if port := os.environ.get("TESTS_POSTGRES_PORT"):
        yield Databases(int(port))
        return
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def network() -> Iterator[tuple[FakePlc, FakePds]]:
    """A PLC directory and a host, both fakes on loopback."""
    with FakePlc() as plc, FakePds() as pds:
        yield plc, pds


def sqlite_urls(folder: Path) -> Callable[[], str]:
    """Gives the address of another empty SQLite database in `folder` at each call."""
    numbers = count()
    return lambda: f"sqlite://{folder}/relay{next(numbers) or ''}.sqlite"


@pytest.fixture(params=["sqlite", "postgres"])
def new_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Gives the address of another empty database at each call, all of one engine."""
    if request.param == "sqlite":
        yield sqlite_urls(tmp_path)
        return
    cluster: Databases = request.getfixturevalue("postgres_cluster")
    given: list[str] = []

    def new() -> str:
        given.append(cluster.create())
        return given[-1]

    yield new
    for url in given:
        cluster.give_back(url)


@pytest.fixture
def database_url(new_database_url: Callable[[], str]) -> str:
    """The address of an empty database."""
    return new_database_url()


@pytest.fixture
def relay(tmp_path: Path, network: tuple[FakePlc, FakePds], database_url: str) -> Iterator[RelayProcess]:
    """A started relay that asks the directory of `network`."""
    process = RelayProcess(tmp_path, {"RELAY_PLC_HOST": network[0].url, "DATABASE_URL": database_url})
    process.start()
    yield process
    process.close()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open, migrated, empty database."""
    opened = open_database(database_url, max_connections=4)
    yield opened
    opened.close()


@pytest.fixture
def start_web(tmp_path: Path, new_database_url: Callable[[], str]) -> Iterator[StartWeb]:
    """Starts relays with settings of the test's choice."""
    started: list[Web] = []

    def start(db: Database | None = None, tail_bytes: int = 64 << 20, **settings: Any) -> Web:
        opened = db or open_database(new_database_url(), max_connections=4)
        web = Web(opened, tmp_path / str(len(started)), tail_bytes, **settings)
        web.start()
        started.append(web)
        return web

    yield start
    for web in started:
        web.stop()
        web.db.close()


@pytest.fixture
def web(start_web: StartWeb) -> Web:
    """A started relay on the default settings."""
    return start_web()

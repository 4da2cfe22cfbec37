"""Databases for integration tests: each test that asks for one runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store.database import Database
from tests.support.postgres import BINARIES, Cluster


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A private PostgreSQL server for the whole run."""
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed: `make test` does that")
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/relay.sqlite"
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    return cluster.create()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open, migrated, empty database."""
    opened = Database.open(database_url, max_connections=4)
    yield opened
    opened.close()

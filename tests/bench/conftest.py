"""Databases for the benches of SQL: each module that asks for one runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store.database import Database
from relay.store.open import open_database
from tests.support.postgres import BINARIES, Cluster


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An open, migrated, empty database for all tests of a module."""
    folder: Path = tmp_path_factory.mktemp("bench")
    cluster: Cluster | None = None
    url = f"sqlite://{folder}/relay.sqlite"
    if request.param == "postgres":
        if not BINARIES:
            pytest.skip("PostgreSQL is not installed: `make test` does that")
        cluster = Cluster()
        url = cluster.create()
    database = open_database(url, max_connections=4)
    yield database
    database.close()
    if cluster:
        cluster.close()

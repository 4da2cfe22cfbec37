"""Opening a database: from nothing, again, by two relays at once, and one that a newer relay has been at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent
import pytest

from relay.kit.errors import StoreError
from relay.store import installation
from relay.store import open as open_
from relay.store.database import Database
from relay.store.open import look_into, open_database


def versions(database: Database) -> list[int]:
    return [version for (version,) in query(database, "SELECT version FROM relay_schema ORDER BY 1")]


def query(database: Database, sql: str) -> list[tuple[Any, ...]]:
    return database.read(lambda tx: tx.rows(sql))


def test_every_migration_is_applied_once(database_url: str) -> None:
    for _ in range(2):
        database = open_database(database_url, max_connections=2)
        assert versions(database) == list(range(1, len(open_.migrations()) + 1))
        database.close()


def test_a_newer_database_is_refused_in_one_line(database_url: str) -> None:
    database = open_database(database_url, max_connections=2)
    database.write(lambda tx: tx.execute("INSERT INTO relay_schema (version, applied_at) VALUES (9999, 0)"))
    database.close()
    with pytest.raises(StoreError) as caught:
        open_database(database_url, max_connections=2)
    assert caught.value.reason == "store-schema"
    assert "9999" in str(caught.value) and "\n" not in str(caught.value)


def test_tables_of_another_program_are_told_in_one_line(database_url: str) -> None:
    database = look_into(database_url, max_connections=1)
    database.write(lambda tx: tx.execute("CREATE TABLE host (id int)"))
    database.close()
    with pytest.raises(StoreError) as caught:
        open_database(database_url, max_connections=2)
    assert caught.value.reason == "store-schema"
    assert "hostname" in str(caught.value) and "\n" not in str(caught.value)


def test_relays_that_start_at_once_take_turns(database_url: str) -> None:
    def start() -> list[int]:
        database = open_database(database_url, max_connections=2)
        try:
            return versions(database)
        finally:
            database.close()

    starts = [gevent.spawn(start) for _ in range(4)]
    gevent.joinall(starts, timeout=30, raise_error=True)
    assert {tuple(start.get()) for start in starts} == {tuple(range(1, len(open_.migrations()) + 1))}


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(database_url, max_connections=2).close()
    real = open_.migrations()
    broken = [*real, ("9999_broken.sql", "CREATE TABLE half (id {{int}});\nINSERT INTO nowhere (id) VALUES (1);\n")]
    with monkeypatch.context() as patched:
        patched.setattr(open_, "migrations", lambda: broken)
        with pytest.raises(Exception, match="nowhere"):
            open_database(database_url, max_connections=2)
    database = open_database(database_url, max_connections=2)
    try:
        assert versions(database) == list(range(1, len(real) + 1))
        with pytest.raises(Exception, match="half"):
            query(database, "SELECT * FROM half")
    finally:
        database.close()


def test_a_closed_database_says_so(database: Database) -> None:
    database.write(installation.put, "a", "b")
    database.close()
    with pytest.raises(StoreError, match="store-unavailable"):
        database.read(installation.get, "a")
    with pytest.raises(StoreError, match="store-unavailable"):
        database.write(installation.put, "a", "c")
    database.close()


@pytest.mark.parametrize("url", ["mysql://db", "postgres://relay:s3cret@[::1/x", "postgres://relay:s3cret@h/x?nope=1"])
def test_an_address_that_cannot_be_used(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_database(url, max_connections=2)
    assert "s3cret" not in str(caught.value)


def test_folders_are_made_and_relative_paths_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_database("sqlite://data/relay/relay.sqlite", max_connections=2).close()
    assert (tmp_path / "data/relay/relay.sqlite").exists()
    open_database(f"sqlite://{tmp_path}/other/relay.sqlite", max_connections=2).close()
    assert (tmp_path / "other/relay.sqlite").exists()

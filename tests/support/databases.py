"""What an operator does to a database behind the relay's back: copies it, puts an older copy in its place, empties it.

For both engines, by address; nothing may have the database open, but where it is said.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from relay.store.open import ADVISORY_LOCK


def save(url: str) -> None:
    """Keep a copy of the database as it is now."""
    if url.startswith("sqlite://"):
        shutil.copy(_file(url), f"{_file(url)}.saved")
    else:
        name = _name(url)
        _execute(url, f"CREATE DATABASE {name}_saved TEMPLATE {name}")


def bring_back(url: str) -> None:
    """Put the saved copy in the place of the database."""
    if url.startswith("sqlite://"):
        wipe(url)
        shutil.move(f"{_file(url)}.saved", _file(url))
    else:
        name = _name(url)
        _execute(url, f"DROP DATABASE {name} WITH (FORCE)", f"ALTER DATABASE {name}_saved RENAME TO {name}")


def bring_back_beneath(url: str) -> None:
    """Put the saved copy in the place of the database while a relay has it open, as a failover to a replica that lags
    does."""
    if url.startswith("sqlite://"):
        with closing(sqlite3.connect(f"{_file(url)}.saved")) as saved, closing(sqlite3.connect(_file(url))) as live:
            saved.backup(live)
        Path(f"{_file(url)}.saved").unlink()
    else:
        bring_back(url)


@contextmanager
def in_the_way(url: str) -> Iterator[Callable[[], bool]]:
    """Hold what makes a relay wait that is about to make its tables. Yields what tells that one has come to it."""
    if url.startswith("sqlite://"):
        with closing(sqlite3.connect(_file(url), isolation_level=None)) as file:
            file.execute("BEGIN EXCLUSIVE")
            yield Path(f"{_file(url)}.lock").exists
    else:
        with closing(psycopg2.connect(url)) as other, other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))

            def has_come() -> bool:
                cursor.execute(
                    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
                    " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
                )
                return bool(cursor.fetchone() == (1,))

            yield has_come


def wipe(url: str) -> None:
    """Leave an empty database."""
    if url.startswith("sqlite://"):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{_file(url)}{suffix}").unlink(missing_ok=True)
    else:
        _execute(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public", database=_name(url))


def _file(url: str) -> Path:
    return Path(url.removeprefix("sqlite://"))


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _execute(url: str, *statements: str, database: str = "postgres") -> None:
    connection = psycopg2.connect(url, dbname=database)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()

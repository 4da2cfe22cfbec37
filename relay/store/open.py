"""Opens the database that an address names and brings its schema up to date.

Called once by whoever needs a database. The schema is numbered SQL files, each applied once, all in one transaction. A
file says everything once for both engines; the few words that differ are `{{…}}` placeholders. The table
`relay_schema` holds what was applied. Must not know what the tables are for.
"""

from __future__ import annotations

import logging
import re
import time
from importlib.resources import files

from relay.kit.errors import StoreError
from relay.kit.values import POSTGRES
from relay.store.database import Database, Engine, Transaction

log = logging.getLogger(__name__)

# Any fixed number: two relays starting at once on one PostgreSQL take turns by it.
ADVISORY_LOCK = 0x617470726F746F
MIGRATION_SECONDS = 3600.0

# indigo's column types on each engine, and the two that only our tables use.
_WORDS: dict[Engine, dict[str, str]] = {
    "sqlite": {
        "serial": "integer PRIMARY KEY AUTOINCREMENT",
        "int": "integer",
        "bool": "numeric",
        "time": "datetime",
        "bytes": "blob",
        "keyed": " WITHOUT ROWID",
    },
    "postgres": {
        "serial": "bigserial PRIMARY KEY",
        "int": "bigint",
        "bool": "boolean",
        "time": "timestamptz",
        "bytes": "bytea",
        "keyed": "",
    },
}

_ADD_COLUMN = re.compile(r"ALTER TABLE (\w+) ADD COLUMN IF NOT EXISTS (\w+) ")


def open_database(url: str, *, max_connections: int, hold: bool = False, seize: bool = False) -> Database:
    """The database at a `sqlite://PATH` or `postgres://…` address, its schema brought up to date.

    `max_connections` bounds PostgreSQL only; SQLite has one writer and four readers. With `hold` no other relay may
    have it open, or open it from now on; with `seize` it is taken from one that does. Raises StoreError:
    `store-unavailable`, `store-schema` when a newer relay, or another program, has been here, `store-locked` when
    another relay is, or `store-pooled` where nothing can be held.
    """
    database = _engine(url, max_connections)
    try:
        if hold:
            # First: a newer relay must not change the schema beneath an older one that runs.
            database.hold(seize=seize)
        database.migrate(apply, MIGRATION_SECONDS)
    except BaseException:
        database.close()
        raise
    return database


def look_into(url: str, *, max_connections: int) -> Database:
    """The database at that address as it is, which another relay has open. Raises StoreError `store-unavailable`."""
    return _engine(url, max_connections)


def _engine(url: str, max_connections: int) -> Database:
    # Each engine is imported when it is asked for: a relay on SQLite runs without libpq.
    if url.startswith("sqlite://"):
        from relay.store.sqlite import SqliteDatabase

        return SqliteDatabase(url.removeprefix("sqlite://"))
    if url.startswith(POSTGRES):
        from relay.store.postgres import PostgresDatabase

        return PostgresDatabase(url, max_connections)
    raise StoreError("store-unavailable", "not a sqlite:// or postgres:// address")


def apply(tx: Transaction) -> None:
    """Apply what is missing. Raises StoreError `store-schema` when the database is newer than this code."""
    if tx.engine == "postgres":
        tx.row("SELECT pg_advisory_xact_lock(?)", (ADVISORY_LOCK,))
    tx.execute(
        "CREATE TABLE IF NOT EXISTS relay_schema (version integer PRIMARY KEY, applied_at double precision NOT NULL)"
    )
    found = tx.row("SELECT coalesce(max(version), 0) FROM relay_schema")
    current: int = found[0] if found else 0
    steps = migrations()
    if current > len(steps):
        raise StoreError(
            "store-schema",
            f"the database has schema {current} and this relay knows {len(steps)}: a newer relay has been here",
        )
    for version, (name, sql) in enumerate(steps[current:], current + 1):
        for statement in statements(sql, tx.engine):
            _execute(tx, statement)
        tx.execute("INSERT INTO relay_schema (version, applied_at) VALUES (?, ?)", (version, time.time()))
        log.debug("migration %s applied", name)
    if current < len(steps):
        log.info("the database is migrated from schema %d to %d", current, len(steps))


def migrations() -> list[tuple[str, str]]:
    """(name, SQL) of every migration, in order. Their numbers count up from 1."""
    folder = files("relay.store") / "migrations"
    found = sorted((item.name, item.read_text("utf-8")) for item in folder.iterdir() if item.name.endswith(".sql"))
    assert [int(name[:4]) for name, _ in found] == list(range(1, len(found) + 1))
    return found


def statements(sql: str, engine: Engine) -> list[str]:
    """The statements of a migration in the words of `engine`. A statement ends with `;` at the end of a line."""
    bare = re.sub(r"^\s*--.*\n", "", sql, flags=re.MULTILINE)
    worded = re.sub(r"\{\{(\w+)\}\}", lambda match: _WORDS[engine][match[1]], bare)
    return [part.strip() for part in re.split(r";\s*(?:\n|$)", worded) if part.strip()]


def _execute(tx: Transaction, statement: str) -> None:
    added = _ADD_COLUMN.match(statement)
    if added and tx.engine == "sqlite":
        # SQLite has no IF NOT EXISTS for columns.
        table, column = added.groups()
        if tx.row("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)):
            return
        statement = statement.replace(" IF NOT EXISTS", "", 1)
    tx.execute(statement)

"""SQLite alone: the hub stays free, faults of the disk are outages, and nothing needs gevent's patches."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from relay.kit.errors import StoreError
from relay.store import installation, sqlite
from relay.store.database import Database, Transaction, ping
from relay.store.open import open_database

SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) SELECT sum(i) FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite://{path}", max_connections=1)
    yield opened
    opened.close()


def pragma(tx: Transaction, name: str) -> object:
    row = tx.row(f"PRAGMA {name}")
    return row and row[0]


def test_writes_are_synced_and_readers_do_not_wait(database: Database) -> None:
    assert database.write(pragma, "journal_mode") == "wal"
    assert database.write(pragma, "synchronous") == 2


def test_the_hub_is_free_while_sql_runs(database: Database) -> None:
    """Reads and a write that take long leave other greenlets and other reads alone."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.005)
            ticks += 1

    ticking = gevent.spawn(tick)
    slow = [gevent.spawn(run, lambda tx: tx.rows(SLOW)) for run in (database.read, database.read, database.write)]
    gevent.sleep(0)
    database.read(ping)
    assert not any(greenlet.ready() for greenlet in slow)
    gevent.joinall(slow, timeout=60, raise_error=True)
    ticking.kill()
    assert ticks > 5


def test_many_rows_are_few_statements(database: Database) -> None:
    """After each the writer's thread has to wait for the interpreter."""
    ran: list[str] = []

    def write(tx: Transaction) -> None:
        assert isinstance(tx, sqlite.SqliteTransaction)
        tx._connection.set_trace_callback(ran.append)
        try:
            rows = [(f"{number}", "x") for number in range(10 * sqlite.ROWS_PER_STATEMENT + 1)]
            tx.many("INSERT INTO relay_setting (key, value) VALUES (?, ?)", rows)
        finally:
            tx._connection.set_trace_callback(None)

    database.write(write)
    assert len(ran) == 11


def test_a_read_sees_the_state_before_a_write_that_is_under_way(database: Database) -> None:
    database.write(installation.put, "a", "old")
    seen = []

    def write(tx: Transaction) -> None:
        installation.put(tx, "a", "new")
        # In the writer's thread: another connection of its own looks at the file.
        other = sqlite3.connect(database._path)  # type: ignore[attr-defined]
        seen.append(other.execute("SELECT value FROM relay_setting").fetchone()[0])
        other.close()

    database.write(write)
    assert seen == ["old"]
    assert database.read(installation.get, "a") == "new"


def test_a_read_must_not_write(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.read(installation.put, "a", "b")


def test_a_file_held_by_another_program_is_an_outage_and_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_MILLISECONDS", 50)
    database = open_database(f"sqlite://{path}", max_connections=1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked") as caught:
        database.write(installation.put, "a", "b")
    assert caught.value.reason == "store-unavailable"
    assert database.read(installation.get, "a") is None
    other.execute("ROLLBACK")
    other.close()
    database.write(installation.put, "a", "b")
    assert database.read(installation.get, "a") == "b"
    database.close()


def test_writes_in_line_wait_together_for_another_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_MILLISECONDS", 1000)
    database = open_database(f"sqlite://{path}", max_connections=1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    writes = [gevent.spawn(database.write, installation.put, "a", "b") for _ in range(10)]
    gevent.joinall(writes, timeout=30)
    assert {type(one.exception) for one in writes} == {StoreError}
    assert 0.9 < time.monotonic() - started < 8
    # The next one has all its time again.
    write = gevent.spawn(database.write, installation.put, "a", "b")
    gevent.sleep(0.4)
    assert not write.ready()
    other.execute("ROLLBACK")
    other.close()
    write.get(timeout=60)
    database.close()


def test_a_full_disk_is_an_outage_and_passes(database: Database) -> None:
    """A bound on the file's pages fails as a full disk does, also in the middle of a transaction."""
    pages = database.write(pragma, "page_count")
    database.write(pragma, f"max_page_count = {pages}")
    with pytest.raises(StoreError, match="full") as caught:
        database.write(installation.put, "a", "x" * 1_000_000)
    assert caught.value.reason == "store-unavailable"
    database.write(pragma, "max_page_count = 100000")
    assert database.read(installation.get, "a") is None
    database.write(installation.put, "a", "x" * 1_000_000)


def test_a_statement_that_never_ends_gives_its_caller_back(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAIT_SECONDS", 0.05)
    started = time.monotonic()
    with pytest.raises(StoreError, match="no answer"):
        database.write(lambda tx: tx.rows(SLOW))
    assert time.monotonic() - started < 15


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreError, match="not a database") as caught:
        open_database(f"sqlite://{path}", max_connections=1)
    assert caught.value.reason == "store-damaged"


def test_pages_of_garbage_are_told_with_what_to_do(path: Path) -> None:
    database = open_database(f"sqlite://{path}", max_connections=1)
    database.write(
        lambda tx: tx.many("INSERT INTO relay_setting VALUES (?, ?)", [(f"{n}", "x" * 99) for n in range(999)])
    )
    database.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: 4096 * 3] + b"\xa5" * (len(whole) - 4096 * 3))
    with pytest.raises(StoreError, match=r"store-damaged: .*put the newest backup in its place") as caught:
        open_database(f"sqlite://{path}", max_connections=1).read(lambda tx: tx.rows("SELECT * FROM relay_setting"))
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as caught:
        open_database(f"sqlite://{tmp_path}/file/relay.sqlite", max_connections=1)
    assert caught.value.reason == "store-unavailable"


def test_it_works_without_gevents_patches(path: Path) -> None:
    script = """
import sys
from relay.store import installation
from relay.store.open import open_database
from relay.store.database import Database
database = open_database(sys.argv[1], max_connections=2)
database.write(installation.put, "a", "b")
print(database.read(installation.get, "a"), database.read(installation.get, "c"))
database.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite://{path}"], capture_output=True, text=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == ("b None\n", "")


def test_turning_the_wal_on_waits_for_whoever_has_the_new_file(path: Path) -> None:
    """SQLite's own busy timeout does not cover this lock."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE somebody_elses (x)")
    other.execute("BEGIN IMMEDIATE")
    starting = gevent.spawn(open_database, f"sqlite://{path}", max_connections=1)
    starting.join(0.2)
    assert not starting.ready()
    other.execute("COMMIT")
    other.close()
    starting.get(timeout=60).close()


def test_a_write_that_reads_first_has_the_file_to_itself(database: Database, path: Path) -> None:
    """Another program that wrote between its read and its write would make it fail half-way."""

    def read_then_write(tx: Transaction) -> None:
        installation.get(tx, "a")
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO relay_setting (key, value) VALUES ('b', 'c')")
        other.close()
        installation.put(tx, "a", "b")

    database.write(read_then_write)

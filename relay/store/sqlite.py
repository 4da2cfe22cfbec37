"""The database in one SQLite file: the default, with nothing to set up.

One writer thread and up to four reader threads, all native, so that a disk that is slow or syncing never stops the
hub. Opened by `open_database`. A locked file beside it keeps a second relay away, and nobody else: other programs may
read and back up (WAL).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Concatenate

import gevent
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool

from relay.kit import metrics
from relay.kit.background import end_threads, in_thread
from relay.kit.errors import StoreError
from relay.store.database import ONE_ROW, Database, P, Row, T, Transaction, unusable
from relay.store.outage import Outage

READERS = 4
WAIT_SECONDS = 30.0
BUSY_MILLISECONDS = 10_000
STOOD_IN_LINE_MILLISECONDS = 100
WRITER_CACHE_KIB = 8 << 10
READER_CACHE_KIB = 2 << 10
CHECKPOINT_PAGES = 4000
WAL_LIMIT_BYTES = 64 << 20
# Rows of one statement. With each statement the thread lets go of the interpreter, and has to wait for it again.
ROWS_PER_STATEMENT = 64

# gevent's own sleep would make a hub in a thread that has none.
_thread_sleep = get_original("time", "sleep")

# The file or its disk fails, as opposed to SQL that is wrong: only these are worth waiting out.
_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)


_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteTransaction(Transaction):
    """Statements on one SQLite connection."""

    engine = "sqlite"
    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        return self._connection.execute(sql, args).fetchall()

    def row(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        # All rows are taken: an unfinished cursor would hold the read snapshot, and with it the WAL, open.
        found = self.rows(sql, args)
        return found[0] if found else None

    def execute(self, sql: str, args: Sequence[object] = ()) -> int:
        return self._connection.execute(sql, args).rowcount

    def many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        done = 0
        if len(rows) >= ROWS_PER_STATEMENT and (joined := _joined(sql)) is not None:
            done = len(rows) - len(rows) % ROWS_PER_STATEMENT
            for start in range(0, done, ROWS_PER_STATEMENT):
                self._connection.execute(joined, [*chain(*rows[start : start + ROWS_PER_STATEMENT])])
        self._connection.executemany(sql, rows[done:])


class SqliteDatabase(Database):
    """The file at `path`, made with its folders when it is not there."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._writer = ThreadPool(1)
        self._readers = ThreadPool(READERS)
        # Connections rest here between uses; as many are made as threads ask for at once.
        self._idle_writer: deque[sqlite3.Connection] = deque()
        self._idle_readers: deque[sqlite3.Connection] = deque()
        self._connections: set[sqlite3.Connection] = set()
        self._closed = False
        self._lock = -1
        self._outage = Outage()
        metrics.STORE_CONNECTIONS_CAPACITY.set(READERS + 1)
        metrics.STORE_CONNECTIONS.set_function(lambda: len(self._connections))
        metrics.STORE_CONNECTIONS_BUSY.set_function(
            lambda: len(self._connections) - len(self._idle_writer) - len(self._idle_readers)
        )

    def read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(self._readers, self._idle_readers, lambda tx: work(tx, *args, **kwargs), WAIT_SECONDS)

    def write(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(self._writer, self._idle_writer, lambda tx: work(tx, *args, **kwargs), WAIT_SECONDS)

    def migrate(self, work: Callable[[Transaction], None], limit: float) -> None:
        try:
            self._run(self._writer, self._idle_writer, work, limit)
        except sqlite3.Error as error:
            raise unusable(error) from error

    def hold(self, *, seize: bool = False) -> None:
        path = self._path.with_name(f"{self._path.name}.lock")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._let_go()
            words = "another relay uses this database: stop that one first, or give this one a database of its own"
            raise StoreError("store-locked", f"{self._path}: {words}") from None
        except OSError as error:
            self._let_go()
            raise StoreError("store-unavailable", f"{path}: {error}") from error

    def _let_go(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for pool, idle in ((self._readers, self._idle_readers), (self._writer, self._idle_writer)):
            # The last connection to close moves the WAL into the file, so that is done in the thread as well.
            with suppress(_Unanswered), gevent.Timeout(WAIT_SECONDS, _Unanswered):
                pool.apply(self._close_all, (idle,))
                pool.join()
            end_threads(pool)
        self._let_go()

    def _run(
        self,
        pool: ThreadPool,
        idle: deque[sqlite3.Connection],
        work: Callable[[Transaction], T],
        limit: float,
    ) -> T:
        if self._closed:
            raise StoreError("store-unavailable", "the database is closed")
        writes = pool is self._writer
        started = time.monotonic()
        try:
            with gevent.Timeout(limit, _Unanswered):
                result = in_thread(pool, self._attempt, idle, work, started, writes)
        except _Unanswered:
            words = f"no answer from {self._path} in {limit:.0f} s"
            raise self._outage.note(StoreError("store-unavailable", words)) from None
        except Exception as error:
            if not _is_outage(error, writes):
                raise
            raise self._outage.note(self._failure(error)) from error
        else:
            self._outage.end()
            return result
        finally:
            metrics.STORE_SECONDS.labels("write" if writes else "read").observe(time.monotonic() - started)

    def _failure(self, error: Exception) -> StoreError:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            advice = "put the newest backup in its place: the log brings it up to now"
            return StoreError("store-damaged", f"{self._path}: {error}: {advice}")
        return StoreError("store-unavailable", f"{self._path}: {error}")

    def _attempt(
        self, idle: deque[sqlite3.Connection], work: Callable[[Transaction], T], asked: float, writes: bool
    ) -> T:
        connection = self._take(idle, writes)
        try:
            if writes:
                with _waits_since(connection, asked):
                    result = _transact(connection, work)
            else:
                result = work(SqliteTransaction(connection))
        except BaseException:
            self._put_back(idle, connection)
            raise
        idle.append(connection)
        return result

    def _take(self, idle: deque[sqlite3.Connection], writes: bool) -> sqlite3.Connection:
        # Four threads share the readers' deque, so it may be empty by the time it is popped.
        try:
            return idle.pop()
        except IndexError:
            return self._connect(writes)

    def _connect(self, writes: bool) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Python's own transaction handling is off (isolation_level None): BEGIN and COMMIT are said here.
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (
                f"busy_timeout = {BUSY_MILLISECONDS}",
                # With NORMAL a power cut may take back the last transactions. The projection would be made again
                # from the log, but a takedown or a ban would be lost; a sync per transaction costs little, since
                # events come in batches.
                "synchronous = FULL",
                f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
                f"journal_size_limit = {WAL_LIMIT_BYTES}",
                f"cache_size = -{WRITER_CACHE_KIB if writes else READER_CACHE_KIB}",
                "temp_store = MEMORY",
                "foreign_keys = OFF",
                f"query_only = {'OFF' if writes else 'ON'}",
            ):
                connection.execute(f"PRAGMA {pragma}")
            _turn_wal_on(connection)
        except BaseException:
            connection.close()
            raise
        self._connections.add(connection)
        return connection

    def _put_back(self, idle: deque[sqlite3.Connection], connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # Its state is unknown now; the next use opens another.
            self._connections.discard(connection)
            connection.close()
        else:
            idle.append(connection)

    def _close_all(self, idle: deque[sqlite3.Connection]) -> None:
        while idle:
            connection = idle.pop()
            self._connections.discard(connection)
            connection.close()


class _Unanswered(BaseException):
    """Our own deadline, told apart from a caller's."""


def _turn_wal_on(connection: sqlite3.Connection) -> None:
    # While another connection does the same on a new file this fails at once, whatever the busy timeout.
    deadline = time.monotonic() + BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        _thread_sleep(0.02)


@lru_cache(maxsize=256)
def _joined(sql: str) -> str | None:
    """The statement for ROWS_PER_STATEMENT rows at once; None unless it has one row of values."""
    joined, found = ONE_ROW.subn(lambda row: f"VALUES {', '.join([row[1]] * ROWS_PER_STATEMENT)}", sql)
    return joined if found == 1 else None


@contextmanager
def _waits_since(connection: sqlite3.Connection, asked: float) -> Iterator[None]:
    """Count the time for which another program's lock is waited for from `asked` on (monotonic seconds).

    Writes that stand in line for the one thread would otherwise wait in turn, each for as long: how soon the last
    of them fails, and health is red, must not depend on how many there are.
    """
    waited = int((time.monotonic() - asked) * 1000)
    if waited <= STOOD_IN_LINE_MILLISECONDS:
        yield
        return
    connection.execute(f"PRAGMA busy_timeout = {max(BUSY_MILLISECONDS - waited, STOOD_IN_LINE_MILLISECONDS)}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")


def _transact(connection: sqlite3.Connection, work: Callable[[Transaction], T]) -> T:
    # IMMEDIATE: a transaction that reads first and writes later could otherwise fail half-way on another writer.
    connection.execute("BEGIN IMMEDIATE")
    result = work(SqliteTransaction(connection))
    connection.execute("COMMIT")
    return result


def _is_outage(error: BaseException, writes: bool) -> bool:
    if isinstance(error, OSError):
        return True
    # The low byte is the error's kind; errors of the sqlite3 module itself carry no code: they are bugs.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # For a reader, read-only is not the disk's state but a statement that does not belong there.
    return code in _UNAVAILABLE or (code == sqlite3.SQLITE_READONLY and writes)

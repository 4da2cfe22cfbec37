"""The database on PostgreSQL, through psycopg2 in the greenlet that asks: for the full network.

Opened by `open_database`. SQL is written with `?` and translated here; many rows go out as few statements. A lost
connection is StoreError to the caller; `postgres_pool` connects again by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Concatenate

import gevent
import psycopg2
from psycopg2.errors import InsufficientPrivilege, UndefinedTable
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class in lower case
from psycopg2.extensions import encodings
from psycopg2.extras import execute_batch, execute_values

from relay.kit import metrics
from relay.kit.errors import StoreError
from relay.store.database import ONE_ROW, Database, P, Row, T, Transaction, in_a_line, unusable
from relay.store.outage import Outage
from relay.store.postgres_lock import PostgresLock
from relay.store.postgres_pool import Pool, Unanswered

# Above the statement timeout of a session, below the minute that a call may take at most.
TRANSACTION_SECONDS = 30.0
ROWS_PER_STATEMENT = 1000


class PostgresTransaction(Transaction):
    """Statements on one PostgreSQL connection."""

    engine = "postgres"
    __slots__ = ("_codec", "_connection")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._codec = _codec_of(connection)

    def rows(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(_translated(sql), self._storable(args))
            return cursor.fetchall()

    def row(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        with self._connection.cursor() as cursor:
            cursor.execute(_translated(sql), self._storable(args))
            return cursor.fetchone()

    def execute(self, sql: str, args: Sequence[object] = ()) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(_translated(sql), self._storable(args))
            return cursor.rowcount

    def many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        joined, found = ONE_ROW.subn("VALUES %s", sql)
        if self._codec is not None:
            rows = [self._storable(row) for row in rows]
        with self._connection.cursor() as cursor:
            if found:
                execute_values(cursor, _translated(joined), rows, page_size=ROWS_PER_STATEMENT)
            else:
                execute_batch(cursor, _translated(sql), rows, page_size=ROWS_PER_STATEMENT)

    def _storable(self, args: Sequence[object]) -> tuple[object, ...]:
        """`args` without letters that the database lacks: one host's words must not keep others from being stored."""
        codec = self._codec
        if codec is None:
            return tuple(args)
        return tuple(arg.encode(codec, "replace").decode(codec) if isinstance(arg, str) else arg for arg in args)


class PostgresDatabase(Database):
    """The database at a `postgres://` address, on at most `max_connections` connections."""

    def __init__(self, url: str, max_connections: int) -> None:
        self._pool = pool = Pool(url, max_connections)
        self._lock: PostgresLock | None = None
        self._outage = Outage()
        metrics.STORE_CONNECTIONS_CAPACITY.set(max_connections)
        metrics.STORE_CONNECTIONS.set_function(lambda: pool.open)
        metrics.STORE_CONNECTIONS_BUSY.set_function(lambda: pool.open - pool.resting)

    def read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(lambda tx: work(tx, *args, **kwargs), writes=False, limit=TRANSACTION_SECONDS)

    def write(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(lambda tx: work(tx, *args, **kwargs), writes=True, limit=TRANSACTION_SECONDS)

    def migrate(self, work: Callable[[Transaction], None], limit: float) -> None:
        def patiently(tx: Transaction) -> None:
            tx.execute("SET LOCAL statement_timeout = 0")
            work(tx)

        try:
            self._run(patiently, writes=True, limit=limit)
        except psycopg2.Error as error:
            raise unusable(error) from error

    def hold(self, *, seize: bool = False) -> None:
        lock = PostgresLock(self._pool.connect)
        lock.take(seize=seize)
        self._lock = lock

    def close(self) -> None:
        self._pool.close()
        if self._lock is not None:
            self._lock.close()

    def _run(self, work: Callable[[Transaction], T], *, writes: bool, limit: float) -> T:
        started = time.monotonic()
        try:
            with gevent.Timeout(limit, Unanswered):
                result = self._attempt(work, writes)
        except Unanswered:
            words = f"no answer from the database in {limit:.0f} s"
            raise self._outage.note(StoreError("store-unavailable", words)) from None
        except StoreError as error:
            self._outage.note(error)
            raise
        else:
            self._outage.end()
            return result
        finally:
            metrics.STORE_SECONDS.labels("write" if writes else "read").observe(time.monotonic() - started)

    def _attempt(self, work: Callable[[Transaction], T], writes: bool) -> T:
        while True:
            if writes and self._lock is not None:
                self._lock.ensure()
            connection, used = self._pool.take()
            committing = False
            try:
                # A read has no transaction around it: that saves two round trips.
                connection.autocommit = not writes
                result = work(PostgresTransaction(connection))
                committing = writes
                if writes:
                    connection.commit()
            except BaseException as error:
                lost = self._settle(connection, error)
                # A connection that broke while it rested says nothing about the server now. Each pass drops all
                # that rest, so the next one connects, and its failure counts.
                if lost and used and not committing:
                    continue
                if isinstance(error, psycopg2.Error) and (lost or _is_outage(error)):
                    raise StoreError("store-unavailable", in_a_line(error)) from error
                raise
            self._pool.give_back(connection)
            return result

    def _settle(self, connection: Connection, error: BaseException) -> bool:
        """Roll the failed transaction back. True when that, or the work, found the connection lost."""
        if isinstance(error, Exception) and not connection.closed:
            try:
                connection.rollback()
            except psycopg2.Error:
                pass
            except BaseException:
                self._pool.discard(connection)
                raise
            else:
                self._pool.give_back(connection)
                return False
        self._pool.discard(connection)
        if not isinstance(error, Exception):
            return False
        self._pool.close_resting()
        if self._lock is not None:
            self._lock.doubt()
        return True


def _is_outage(error: psycopg2.Error) -> bool:
    # Timeouts, shutdowns, lock conflicts, a full disk; a server that became a standby under us, or whose files are
    # damaged; and tables that an operator has taken away, to put a backup there.
    return isinstance(
        error, psycopg2.OperationalError | psycopg2.InternalError | UndefinedTable | InsufficientPrivilege
    )


def _codec_of(connection: Connection) -> str | None:
    """The codec of a database that lacks some letters, None for any other."""
    encoding = connection.info.parameter_status("server_encoding")
    # SQL_ASCII takes the bytes as they are.
    return None if encoding in (None, "UTF8", "SQL_ASCII") else encodings.get(encoding, "ascii")


@lru_cache(maxsize=256)
def _translated(sql: str) -> str:
    return sql.replace("?", "%s")

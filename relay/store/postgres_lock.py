"""Holds a PostgreSQL database for one relay: an advisory lock that ends with the connection it was taken on.

Used by `postgres` alone. A lock that was lost with its connection is taken again before anything is written, and
refused when another relay was quicker. A pooler that has transactions take turns on the server's sessions cannot keep
a lock for anyone, and is refused. Must not know what is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import psycopg2
from gevent.lock import RLock
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class in lower case

from relay.kit.errors import StoreError
from relay.store.database import in_a_line, within

# Any fixed number but that of the migrations.
KEY = 0x72656C6179
# How long an idle connection is believed to hold the lock.
CHECK_AFTER_SECONDS = 5.0
ANSWER_SECONDS = 5.0
# A relay that was killed is gone from the server a moment later.
START_SECONDS = 5.0
RETRY_SECONDS = 0.25
# How often a pooler is asked whose session is whose: others may use it at the same time.
POOLER_ROUNDS = 3

# The server notices within half a minute when a machine vanishes, and lets the lock go; and it does not end a
# connection for being idle. `idle_session_timeout` is unknown to old servers.
_SESSION = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;"
    " SET tcp_user_timeout = 15000;"
    " SELECT set_config('idle_session_timeout', '0', false) WHERE current_setting('idle_session_timeout', true) <> ''"
)
_SESSION_NUMBER = "SELECT pg_backend_pid()"
# All connections of the process that has the lock: one that stands still may hold locks on rows as well. The halves of
# KEY are as the server shows them.
_HOLDER_GOES = (
    "SELECT count(pg_terminate_backend(one.pid)) FROM pg_stat_activity AS one"
    " WHERE one.datname = current_database() AND one.pid <> pg_backend_pid() AND one.application_name IN ("
    " SELECT holder.application_name FROM pg_locks JOIN pg_stat_activity AS holder USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    f" AND classid = {KEY >> 32} AND objid = {KEY & 0xFFFFFFFF} AND holder.datname = current_database())"
)


class PostgresLock:
    """The lock on the database that `connect` connects to."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._checked_at = 0.0
        # One at a time takes it again; the others wait for the outcome.
        self._turn = RLock()

    def take(self, *, seize: bool = False) -> None:
        """Take the lock. Raises StoreError: `store-locked` when another relay keeps it for some seconds; as `ensure`.

        With `seize` whoever has it is disconnected first, which the server does for those of the same user.
        """
        if seize:
            self._disconnect_holder()
        give_up = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.ensure()
            except StoreError as error:
                if error.reason != "store-locked" or time.monotonic() > give_up:
                    raise
            gevent.sleep(RETRY_SECONDS)

    def doubt(self) -> None:
        """A connection to the server was lost, and maybe this one with it."""
        self._checked_at = 0.0

    def ensure(self) -> None:
        """Return once the lock is held. Raises StoreError: `store-locked`, `store-pooled`, or `store-unavailable`."""
        if time.monotonic() - self._checked_at < CHECK_AFTER_SECONDS:
            return
        with self._turn:
            if time.monotonic() - self._checked_at < CHECK_AFTER_SECONDS:
                return
            if self._connection is None or not self._holds(self._connection):
                self._connection = self._taken()
            self._checked_at = time.monotonic()

    def close(self) -> None:
        """Let the lock go."""
        self._checked_at = 0.0
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _disconnect_holder(self) -> None:
        connection = self._connect()
        try:
            _ask(connection, _HOLDER_GOES)
        finally:
            connection.close()

    def _holds(self, connection: Connection) -> bool:
        try:
            _ask(connection, "SELECT 1")
        except StoreError:
            self.close()
            return False
        return True

    def _taken(self) -> Connection:
        connection = self._connect()
        try:
            self._refuse_shared_sessions(connection)
            _ask(connection, _SESSION)
            free = _ask(connection, f"SELECT pg_try_advisory_lock({KEY})")
        except BaseException:
            connection.close()
            raise
        if not free:
            connection.close()
            raise StoreError(
                "store-locked",
                "another relay uses this database: stop that one first, or give this one a database of its own",
            )
        return connection

    def _refuse_shared_sessions(self, connection: Connection) -> None:
        """Raise StoreError `store-pooled` where the server has no session for this connection alone."""
        # A pooler cannot know the server's number for a session when it answers a client.
        if _ask(connection, _SESSION_NUMBER) == connection.info.backend_pid:
            return
        beside = self._connect()
        try:
            # One that hands out the session that came free last gives both the same, any other gives one now this, now
            # that.
            rounds = [(_ask(connection, _SESSION_NUMBER), _ask(beside, _SESSION_NUMBER)) for _ in range(POOLER_ROUNDS)]
        finally:
            beside.close()
        own, others = map(set, zip(*rounds, strict=True))
        if len(own) > 1 or own & others:
            raise StoreError(
                "store-pooled",
                "a pooler before PostgreSQL has transactions share sessions, so that nothing keeps a second relay away:"
                " let it pool sessions (PgBouncer: pool_mode = session), or name the server itself in DATABASE_URL",
            )


def _ask(connection: Connection, sql: str) -> object:
    """The first value of the last statement's first row, None without one."""
    try:
        with within(ANSWER_SECONDS), connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    except psycopg2.Error as error:
        raise StoreError("store-unavailable", in_a_line(error)) from error
    except StoreError:
        connection.close()
        raise

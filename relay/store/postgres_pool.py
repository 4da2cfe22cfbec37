"""A bounded pool of PostgreSQL connections for greenlets: checked before use, made again after an outage.

Used by `postgres` alone. A connection belongs to one greenlet from `take` to `give_back` or `discard`; waiting on it,
also to connect, never stops the hub. When a server gives no more connections, those that there are have to do. Must not
know what is run on them.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

import gevent
import gevent.socket
import psycopg2
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from psycogreen.gevent import patch_psycopg
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class in lower case
from psycopg2.extensions import get_wait_callback

from relay.kit.errors import StoreError
from relay.store.database import in_a_line
from relay.store.postgres_address import parameters_of

CONNECT_SECONDS = 5.0
WAIT_SECONDS = 10.0
# A connection that rested longer is asked for a sign of life before it is used.
CHECK_AFTER_SECONDS = 10.0
# After a failed connect everyone fails at once for this long, instead of queueing up to fail one by one.
RETRY_AFTER_SECONDS = 0.5

_DEFAULTS: dict[str, object] = {
    # Of this process alone, so that all of a relay's connections can be told from another's.
    "application_name": f"atproto-relay {os.getpid()} {socket.gethostname()}"[:63],
    # A server that vanished without a word is noticed by these, also while a statement waits for it.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_SESSION = (
    "SET statement_timeout = '15s'; SET idle_in_transaction_session_timeout = '60s'; SET timezone = 'UTC';"
    " SET client_min_messages = 'warning'; SET default_transaction_isolation = 'read committed';"
    # A commit that a crash may take back does not count: the log's position in SQL, and what admins were told, depend
    # on it. Any other choice of the server's operator, such as whether to wait for a replica, stays.
    " SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)


class Unanswered(BaseException):
    """A deadline of the store's own, told apart from a caller's."""


class Resting(NamedTuple):
    """A connection at rest since `since` on the monotonic clock."""

    connection: Connection
    since: float


class Pool:
    """At most `capacity` connections to the server that `url` names. Raises StoreError when `url` cannot be read."""

    def __init__(self, url: str, capacity: int) -> None:
        self._parameters: dict[str, object] = {**_DEFAULTS, **parameters_of(url)}
        if get_wait_callback() is None:
            patch_psycopg()
        # libpq does not always say which server it speaks of.
        hosts = str(self._parameters.get("host", ""))
        self._server = f"{hosts}: " if hosts else ""
        self._room = BoundedSemaphore(capacity)
        self._resting: deque[Resting] = deque()
        self._down_until = 0.0
        self._down_reason = ""
        # The server itself refused the last connection that was asked for, and did not just stay silent.
        self._refused = False
        # Each is handed a connection that comes back, or None when one is closed.
        self._waiting: deque[AsyncResult[Connection | None]] = deque()
        self._closed = False
        self.open = 0

    @property
    def resting(self) -> int:
        """Open connections that nobody uses."""
        return len(self._resting)

    def take(self) -> tuple[Connection, bool]:
        """A connection, and whether it was used before. Raises StoreError when none is free in time."""
        if not self._room.acquire(timeout=WAIT_SECONDS):
            raise StoreError("store-unavailable", f"no database connection was free for {WAIT_SECONDS:.0f} s")
        give_up = time.monotonic() + WAIT_SECONDS
        try:
            while True:
                while self._resting:
                    connection, since = self._resting.pop()
                    if time.monotonic() - since < CHECK_AFTER_SECONDS or _answers(connection):
                        return connection, True
                    self._close(connection)
                try:
                    return self._connect(), False
                except StoreError:
                    # Where the server is away, those that it gave are soon closed.
                    if not (self._refused and self.open and time.monotonic() < give_up):
                        raise
                if not self._resting and (handed := self._handed(give_up)) is not None:
                    return handed, True
        except BaseException:
            self._room.release()
            raise

    def give_back(self, connection: Connection) -> None:
        """The connection is sound and outside a transaction: let others use it."""
        self._pass_on(connection)
        self._room.release()

    def discard(self, connection: Connection) -> None:
        """The connection is lost or in a state unknown: close it."""
        self._close(connection)
        self._wake()
        self._room.release()

    def close_resting(self) -> None:
        """Close what nobody uses: when the server went away, it took them all along."""
        while self._resting:
            self._close(self._resting.pop().connection)

    def close(self) -> None:
        """Close resting connections now and the others when they are given back; `take` raises from now on."""
        self._closed = True
        self.close_resting()
        self._wake()

    def connect(self) -> Connection:
        """A connection beside the pool, which is the caller's to close. Raises StoreError."""
        connection = self._connect()
        self.open -= 1
        return connection

    def _handed(self, give_up: float) -> Connection | None:
        """The next connection that comes back; None when one is closed instead, or none comes in time."""
        waiter: AsyncResult[Connection | None] = AsyncResult()
        self._waiting.append(waiter)
        try:
            waiter.wait(timeout=max(0.0, give_up - time.monotonic()))
        except BaseException:
            if waiter.value is not None:
                self._pass_on(waiter.value)
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiter)
        return waiter.value

    def _pass_on(self, connection: Connection) -> None:
        if self._closed:
            self._close(connection)
        elif self._waiting:
            self._waiting.popleft().set(connection)
        else:
            self._resting.append(Resting(connection, time.monotonic()))

    def _wake(self) -> None:
        """Have those that wait for a connection look again whether they can make one."""
        while self._waiting:
            self._waiting.popleft().set(None)

    def _connect(self) -> Connection:
        if self._closed:
            raise StoreError("store-unavailable", "the database is closed")
        if time.monotonic() < self._down_until:
            raise StoreError("store-unavailable", self._down_reason)
        try:
            with gevent.Timeout(CONNECT_SECONDS, Unanswered):
                connection = psycopg2.connect(**_resolved(self._parameters))  # type: ignore[call-overload]
                self.open += 1
                try:
                    connection.autocommit = True
                    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
                        # A database without an encoding of its own takes any, and that of its locale has few letters.
                        connection.set_client_encoding("UTF8")
                    with connection.cursor() as cursor:
                        cursor.execute(_SESSION)
                except BaseException:
                    self._close(connection)
                    raise
        except (psycopg2.Error, OSError) as error:
            raise self._down(self._server + in_a_line(error), refused=isinstance(error, psycopg2.Error)) from error
        except Unanswered:
            raise self._down(f"no answer from the server in {CONNECT_SECONDS:.0f} s", refused=False) from None
        checked: Connection = connection
        return checked

    def _down(self, reason: str, *, refused: bool) -> StoreError:
        self._refused = refused
        self._down_until = time.monotonic() + RETRY_AFTER_SECONDS
        self._down_reason = reason
        return StoreError("store-unavailable", reason)

    def _close(self, connection: Connection) -> None:
        self.open -= 1
        connection.close()


def _answers(connection: Connection) -> bool:
    try:
        with gevent.Timeout(CONNECT_SECONDS, Unanswered), connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("SELECT 1")
            return True
    except (psycopg2.Error, Unanswered):
        return False


def _resolved(parameters: dict[str, object]) -> dict[str, object]:
    """`parameters` with the addresses of their hosts, since libpq would look names up without yielding."""
    hosts = str(parameters.get("host", ""))
    if not hosts or "hostaddr" in parameters or any(host.startswith(("/", "@")) for host in hosts.split(",")):
        return parameters
    ports = str(parameters.get("port", "")).split(",")
    if len(ports) == 1:
        ports *= hosts.count(",") + 1
    found = [
        (host, str(address[0]), port)
        for host, port in zip(hosts.split(","), ports, strict=True)
        for *_, address in gevent.socket.getaddrinfo(host, None, type=gevent.socket.SOCK_STREAM)
    ]
    names = ("host", "hostaddr", "port")
    return {**parameters, **{name: ",".join(part) for name, part in zip(names, zip(*found, strict=True), strict=True)}}

"""What every SQL function is written against: a Transaction, and the Database that runs work inside one.

All rooms above the store call `db.read(function, …)` and `db.write(function, …)`; the engines in `sqlite` and
`postgres` implement both. SQL is written once, with `?` for values and no literal `?` or percent sign, in the dialect
that the two share. Must not know of any table.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import gevent

from relay.kit.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")
Row = tuple[Any, ...]
Engine = Literal["sqlite", "postgres"]

# Values in one `IN (…)`: far under SQLite's 32,766 variables, and a statement that is quick to parse.
VALUES_PER_QUERY = 1000
# The values of one row, for which an engine may put those of many.
ONE_ROW = re.compile(r"VALUES (\(\?(?:, \?)*\))")


class Transaction(ABC):
    """One connection inside one transaction; valid only while the work it was given to runs."""

    engine: Engine

    @abstractmethod
    def rows(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """All rows of a query."""

    @abstractmethod
    def row(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        """The first row of a query, or None."""

    @abstractmethod
    def execute(self, sql: str, args: Sequence[object] = ()) -> int:
        """Run a statement; the number of rows it touched."""

    @abstractmethod
    def many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement for each of `rows`, batched.

        Many rows go at once where the statement has a `VALUES (?, …)`: they must not name a key twice.
        """

    def rows_in(self, sql: str, values: Sequence[object]) -> list[Row]:
        """All rows of a query whose `IN ({})` takes any number of `values`."""
        found: list[Row] = []
        for start in range(0, len(values), VALUES_PER_QUERY):
            part = list(values[start : start + VALUES_PER_QUERY])
            # SQLite keeps what it compiled by the text: few lengths, filled up with the last value.
            part += part[-1:] * ((1 << (len(part) - 1).bit_length()) - len(part))
            found += self.rows(sql.format(", ".join("?" * len(part))), part)
        return found


class Database(ABC):
    """Runs work against one SQL database. Safe to use from any greenlet; every call ends within a minute."""

    @abstractmethod
    def read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(tx, …)` returns. Each of its statements sees the newest state; it must not write.

        Raises StoreError `store-unavailable`.
        """

    @abstractmethod
    def write(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(tx, …)` returns, run in one transaction: all of it is durable on return, or nothing is stored.

        `work` may be run a second time on a fresh connection, so it must not change anything but SQL. Raises
        StoreError `store-unavailable`; only when the connection was lost in the commit itself may the work be stored.
        """

    @abstractmethod
    def migrate(self, work: Callable[[Transaction], None], limit: float) -> None:
        """Like `write`, for `limit` seconds at most: an index on a large table takes its time.

        Raises StoreError `store-schema` where the database refuses a statement.
        """

    @abstractmethod
    def hold(self, *, seize: bool = False) -> None:
        """Keep every other relay away from the database until this one is closed or its process ends.

        From now on `write` fails while that is not so. Raises StoreError: `store-locked` when another relay uses it;
        with `seize` it is taken from that one, where the engine can do so. `store-pooled` where no lock would be kept.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all connections; later calls raise StoreError."""


def ping(tx: Transaction) -> None:
    """Touch the database, for health checks: `db.read(ping)` raises StoreError when it does not answer."""
    tx.row("SELECT 1")


def unusable(error: Exception) -> StoreError:
    """What a migration raises where the database refuses a statement: tables of the same names, no schema for them."""
    return StoreError("store-schema", f"the tables cannot be made: {in_a_line(error)}")


def in_a_line(error: Exception) -> str:
    """What an error says, in one line: what libpq says has several, and tabs."""
    return " ".join(str(error).split())


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """For callers who cannot wait as long as the store does: StoreError `store-unavailable` after `seconds`.

    The connection in use is dropped then: gevent.Timeout is not an Exception, on which a transaction would be rolled
    back, and a server that hangs would not answer that either.
    """
    timeout = gevent.Timeout(seconds)
    try:
        with timeout:
            yield
    except gevent.Timeout as ended:
        if ended is not timeout:
            raise
        # A local of the frames that its traceback holds: a circle.
        ended.__traceback__ = None
        raise StoreError("store-unavailable", f"no answer from the database in {seconds:.0f} s") from None

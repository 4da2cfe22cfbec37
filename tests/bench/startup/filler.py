"""What a relay knows after some time: rows that make the tables as large as the network's.

Used by `tests.bench.startup`. Accounts that are silent now are made by the database itself, so a million takes seconds.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing

import psycopg2

from tests.bench.network.traffic import Account

# Above every uid that the relay gave out before, far below what it may give out later.
FIRST_UID = 10_000_000
CID = "bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
KEY_CODE = "02" + "02" * 33

NUMBERS = {
    "sqlite": "WITH RECURSIVE filler(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM filler WHERE n < {count})",
    "postgres": "WITH filler(n) AS (SELECT generate_series(1, {count}))",
}
# A hash spreads the DIDs over the index as real ones are.
DID = {
    "sqlite": "'did:plc:' || printf('%08x%016x', n * 2654435761 % 4294967291, n)",
    "postgres": "'did:plc:' || lpad(to_hex(n::bigint * 2654435761 % 4294967291), 8, '0') || lpad(to_hex(n), 16, '0')",
}
BYTES = {"sqlite": "x'{}'", "postgres": "'\\x{}'::bytea"}
INSERTS = (
    "INSERT INTO account (uid, did, host_id, status, upstream_status)"
    " {numbers} SELECT {uid} + n, {did}, 1 + n % {hosts}, 'active', 'active' FROM filler",
    "INSERT INTO account_repo (uid, rev, commit_cid, commit_data_cid)"
    " {numbers} SELECT {uid} + n, '3lrzqqzqqzk2a', '{cid}', '{cid}' FROM filler",
    "INSERT INTO identity (did, pds, key_code, handle, resolved_at)"
    " {numbers} SELECT {did}, 'https://pds.example.com', {key}, 'user.test', 1750000000 FROM filler",
)


IDENTITY = "INSERT INTO identity (did, pds, key_code, handle, resolved_at) VALUES ({0}, {0}, {0}, 'user.test', {0})"
CURVES = {"p256": b"\x01", "k256": b"\x02"}


def fill_identities(database: str, accounts: Iterable[tuple[Account, str]]) -> None:
    """Add accounts and their hosts' addresses, as resolved just now."""
    now = time.time()
    rows = [(one.did, url, CURVES[one.curve] + one.key().public, now) for one, url in accounts]
    if database.startswith("sqlite:"):
        with closing(sqlite3.connect(database.removeprefix("sqlite://"))) as connection, connection:
            connection.executemany(IDENTITY.format("?"), rows)
    else:
        with closing(psycopg2.connect(database)) as server, server, server.cursor() as cursor:
            cursor.executemany(IDENTITY.format("%s"), rows)


def fill(database: str, accounts: int, hosts: int) -> None:
    """Add `accounts` to a relay's database, spread over the first `hosts` of the host table."""
    dialect = "sqlite" if database.startswith("sqlite:") else "postgres"
    statements = [
        insert.format(
            numbers=NUMBERS[dialect].format(count=accounts),
            uid=FIRST_UID,
            did=DID[dialect],
            hosts=hosts,
            cid=CID,
            key=BYTES[dialect].format(KEY_CODE),
        )
        for insert in INSERTS
    ]
    if dialect == "sqlite":
        with closing(sqlite3.connect(database.removeprefix("sqlite://"))) as connection, connection:
            for statement in statements:
                connection.execute(statement)
    else:
        with closing(psycopg2.connect(database)) as server, server, server.cursor() as cursor:
            for statement in (*statements, "ANALYZE"):
                cursor.execute(statement)

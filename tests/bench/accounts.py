"""A database with as many accounts as a network has: what the benches of SQL and of the API look for things in.

Half of the accounts are inactive, in one run, and the few that are taken down or throttled come last: a query that
walks the table shows. `RELAY_BENCH_ACCOUNTS` makes it smaller.
"""

from __future__ import annotations

import base64
import os
import random
import time

from relay.atproto.cid import Cid
from relay.store import hosts, projection
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Database
from relay.store.projection import ProjectionBatch

ACCOUNTS = int(os.environ.get("RELAY_BENCH_ACCOUNTS", "1000000"))
HOSTS = 3000
BATCH = 2000
QUERY_LIMIT_SECONDS = 0.05
COMMIT = Cid.of_dag_cbor(b"\xa0")
DATA = Cid.of_dag_cbor(b"\x80")


def did(uid: int) -> str:
    return "did:plc:" + base64.b32encode(random.Random(uid).randbytes(15)).decode().lower()


def account(uid: int) -> AccountRow:
    upstream = "deactivated" if ACCOUNTS // 4 < uid <= 3 * ACCOUNTS // 4 else "active"
    status = "active"
    if uid > ACCOUNTS - 1000:
        status = "takendown" if uid % 2 else "host-throttled"
    return AccountRow(uid, did(uid), 1 + uid % HOSTS, status, upstream)


def batch(uids: range | list[int], rev: str, position: int) -> ProjectionBatch:
    return ProjectionBatch(
        position,
        position,
        accounts={uid: account(uid) for uid in uids},
        repos={uid: RepoRow(uid, rev, COMMIT, DATA) for uid in uids},
        cursors={1 + uid % HOSTS: position for uid in uids},
    )


def fill(database: Database) -> float:
    """Write all hosts and accounts; the seconds that SQL took for the accounts."""
    for number in range(HOSTS):
        database.write(hosts.insert, f"pds{number}.example.com", no_ssl=False, account_limit=1000, trusted=False)
    spent = 0.0
    for start in range(1, ACCOUNTS + 1, BATCH):
        rows = batch(range(start, min(start + BATCH, ACCOUNTS + 1)), "3k2a", start)
        started = time.perf_counter()
        database.write(projection.write, rows)
        spent += time.perf_counter() - started
    return spent

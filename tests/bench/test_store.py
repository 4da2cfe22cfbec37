"""The store with a million accounts, on both engines: every list query, the lookups, and the projection's batches."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from relay.store import accounts, hosts, identities, installation, projection
from relay.store.database import Database, Transaction
from relay.store.identities import IdentityRow
from tests.bench.accounts import ACCOUNTS, BATCH, HOSTS, QUERY_LIMIT_SECONDS, batch, did, fill


@pytest.fixture(scope="module")
def full(empty: Database) -> Database:
    """A database with all the accounts."""
    spent = fill(empty)
    engine, size = empty.read(_size)
    print(
        f"\n{engine}: {ACCOUNTS:,} new accounts with repos in {spent:.1f} s of SQL,"
        f" {spent / ACCOUNTS * BATCH * 1000:.0f} ms for {BATCH}; {size / ACCOUNTS:.0f} bytes each"
    )
    return empty


def _size(tx: Transaction) -> tuple[str, int]:
    """The engine and the bytes of its database."""
    row = tx.row(
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        if tx.engine == "sqlite"
        else "SELECT pg_database_size(current_database())"
    )
    assert row
    return tx.engine, row[0]


QUERIES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "list_repos from the start": (accounts.list_repos, (0, 1000)),
    "list_repos before the inactive": (accounts.list_repos, (ACCOUNTS // 4 - 10, 1000)),
    "list_repos at the end": (accounts.list_repos, (ACCOUNTS - 1000, 1000)),
    "takedowns": (accounts.takedowns, (0, 500)),
    "throttled_oldest": (accounts.throttled_oldest, (1 + (ACCOUNTS - 2) % HOSTS, 100)),
    "many_by_did": (accounts.many_by_did, ([did(ACCOUNTS // 2)],)),
    "many_by_did unknown": (accounts.many_by_did, (["did:plc:unknown"],)),
    "many_by_did of 500": (accounts.many_by_did, ([did(uid * 7 % ACCOUNTS + 1) for uid in range(500)],)),
    "max_uid": (accounts.max_uid, ()),
    "position": (projection.position, ()),
    "suppressions": (projection.suppressions, ()),
    "list_hosts": (hosts.list_hosts, (0, 1000)),
    "all hosts": (hosts.all_rows, ()),
    "host by name": (hosts.by_hostname, ("pds7.example.com",)),
    "ban_of": (hosts.ban_of, ("pds7.example.com",)),
    "setting": (installation.get, ("crawl",)),
}


@pytest.mark.parametrize("name", QUERIES)
def test_query(full: Database, benchmark: Any, name: str) -> None:
    work, args = QUERIES[name]
    benchmark.pedantic(full.read, (work, *args), rounds=20, warmup_rounds=2)
    assert benchmark.stats.stats.median < QUERY_LIMIT_SECONDS


def test_projection_of_changed_accounts(full: Database, benchmark: Any) -> None:
    rng = random.Random(1)
    revs = iter(range(100))

    def changed() -> tuple[tuple[Any, ...], dict[str, Any]]:
        uids = sorted(rng.sample(range(1, ACCOUNTS + 1), BATCH))
        return (projection.write, batch(uids, f"3k2b{next(revs):02}", ACCOUNTS)), {}

    benchmark.pedantic(full.write, setup=changed, rounds=20)


def test_identities(full: Database, benchmark: Any) -> None:
    rng = random.Random(2)

    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        now = time.time()
        rows = [
            IdentityRow(did(uid), "https://pds7.example.com", "k256", b"\x02" * 33, "name.example.com", now)
            for uid in rng.sample(range(1, ACCOUNTS + 1), BATCH)
        ]
        return (identities.upsert_many, rows), {}

    benchmark.pedantic(full.write, setup=fresh, rounds=20)

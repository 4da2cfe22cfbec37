"""The collection index: what it adds to an event, and its pages and size with a million accounts on both engines.

Half of the accounts are inactive, in one run. `RELAY_BENCH_ACCOUNTS` makes it smaller.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from relay.atproto import car, frames
from relay.atproto.cid import Cid
from relay.atproto.commit import touched
from relay.atproto.mst_read import open_tree
from relay.kit.generations import RecentSet
from relay.store import accounts, collection_imports, collections
from relay.store.accounts import AccountRow, RepoRow
from relay.store.collection_imports import Step
from relay.store.database import Database, Transaction
from relay.stream.changes import changes_of
from relay.stream.pending import KNOWN_PAIRS
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete

ACCOUNTS = int(os.environ.get("RELAY_BENCH_ACCOUNTS", "1000000"))
BATCH = 10_000
PAGE = 2000
QUERY_LIMIT_SECONDS = 0.05
POST, RARE = "app.bsky.feed.post", "com.example.rare"


@pytest.mark.parametrize("action", ["create", "delete"])
def test_what_a_commit_pays(action: str) -> None:
    """Telling what the event says, and finding the pair known: all that the event path does for most events."""
    repo = RepoBuilder(account_did(1), SigningKey.create())
    repo.commit(*(create(f"{POST}/3k{n:04}", {"n": n}) for n in range(2000)))
    built = repo.commit(create(f"{POST}/3kaaaa", {}) if action == "create" else delete(f"{POST}/3k1000"))
    event = frames.decode(built.frame(1))
    assert isinstance(event, frames.Commit) and repo.data
    opened = open_tree(Cid(repo.data), car.parse(event.blocks).blocks)
    row = RepoRow(1, event.rev, event.commit, Cid(repo.data))
    known = RecentSet(KNOWN_PAIRS)
    rounds = 20_000

    def once() -> None:
        told = touched(event.ops, row.data, opened)
        for name, present in changes_of(event, 1, event.commit, row.data, told, row).collections.items():
            if present:
                known.add((1, name))

    took = min(_seconds(once, rounds) for _ in range(5))
    print(f"\n{action}: {took / rounds * 1e6:.2f} us an event")


def _seconds(work: Callable[[], None], rounds: int) -> float:
    started = time.perf_counter()
    for _ in range(rounds):
        work()
    return time.perf_counter() - started


def status(uid: int) -> str:
    return "deactivated" if ACCOUNTS // 4 < uid <= 3 * ACCOUNTS // 4 else "active"


@pytest.fixture(scope="module")
def full(empty: Database) -> Database:
    """A database in which every account has posts, and one in a thousand a rare collection."""
    ranges = [range(start, min(start + BATCH, ACCOUNTS + 1)) for start in range(1, ACCOUNTS + 1, BATCH)]
    for uids in ranges:
        rows = [AccountRow(uid, f"did:plc:{uid:024d}", 1, "active", status(uid)) for uid in uids]
        empty.write(accounts.insert_many, rows)
    before = empty.read(_size)
    started = time.perf_counter()
    for uids in ranges:
        empty.write(collections.write, {(uid, POST): True for uid in uids})
    spent = time.perf_counter() - started
    size = empty.read(_size) - before
    for uids in ranges:
        empty.write(collections.write, {(uid, RARE): True for uid in uids if uid % 1000 == 0})
    print(
        f"\n{empty.read(lambda tx: tx.engine)}: {size / ACCOUNTS * 1e6:,.0f} bytes per million pairs,"
        f" {spent / ACCOUNTS * 1e6:.1f} us to write one"
    )
    return empty


def _size(tx: Transaction) -> int:
    """Bytes of the database, or of the one table on PostgreSQL, where the catalogue grows by itself."""
    row = tx.row(
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        if tx.engine == "sqlite"
        else "SELECT pg_total_relation_size('collection_repo')"
    )
    assert row
    size: int = row[0]
    return size


@pytest.mark.parametrize("nsid", [POST, RARE, "com.example.unknown"])
@pytest.mark.parametrize(
    "after", [0, ACCOUNTS // 4, ACCOUNTS // 2, ACCOUNTS - 100], ids=["start", "inactive", "middle", "end"]
)
def test_page(full: Database, benchmark: Any, nsid: str, after: int) -> None:
    benchmark.pedantic(full.read, (collections.list_repos, nsid, after, PAGE), rounds=20, warmup_rounds=2)
    assert benchmark.stats.stats.median < QUERY_LIMIT_SECONDS


def test_a_page_of_an_import(full: Database, benchmark: Any) -> None:
    """2,000 accounts of another relay's list, as `relay backfill-collections` takes five times a second."""
    source, nsid = "https://relay.example", "com.example.imported"
    full.write(collection_imports.begin, source, [nsid], named=True, now=1.0)
    starts = iter(range(1, ACCOUNTS + 1, PAGE))
    steps = (Step(nsid, "next" if number else "", number * PAGE) for number in count())

    def page() -> tuple[tuple[Any, ...], dict[str, Any]]:
        start = next(starts)
        dids = [f"did:plc:{uid:024d}" for uid in range(start, start + PAGE)]
        return (collection_imports.take_page, source, next(steps), dids, PAGE, "next"), {}

    benchmark.pedantic(full.write, setup=page, rounds=min(50, ACCOUNTS // PAGE))
    print(f"\n{benchmark.stats.stats.median * 1000:.1f} ms for a page of {PAGE}")

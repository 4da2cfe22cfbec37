"""The collection index on both engines: what is listed, what a check may take away, and what an event knows better."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from relay.store import accounts, collections, projection
from relay.store.accounts import AccountRow
from relay.store.collections import ALL, Marked, Page
from relay.store.database import Database, Transaction
from relay.store.projection import ProjectionBatch

POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"


def did(uid: int) -> str:
    return f"did:plc:{uid:024d}"


def store(database: Database, pairs: dict[tuple[int, str], bool | None]) -> None:
    database.write(projection.write, ProjectionBatch(1, 1, collections=pairs))


def listed(database: Database, nsid: str) -> list[int]:
    return [uid for uid, _ in database.read(collections.list_repos, nsid, 0, 1000).repos]


@pytest.fixture
def filled(database: Database) -> Database:
    """Ten accounts, all of which have posts."""
    rows = {uid: AccountRow(uid, did(uid), 1, "active", "active") for uid in range(1, 11)}
    pairs: dict[tuple[int, str], bool | None] = {(uid, POST): True for uid in rows}
    for _ in range(2):
        database.write(projection.write, ProjectionBatch(1, 1, accounts=rows, collections=pairs))
    return database


def test_pages_by_key(filled: Database) -> None:
    assert filled.read(collections.list_repos, POST, 0, 4) == Page([(uid, did(uid)) for uid in (1, 2, 3, 4)], 4)
    assert filled.read(collections.list_repos, POST, 8, 4) == Page([(9, did(9)), (10, did(10))], None)
    assert filled.read(collections.list_repos, LIKE, 0, 4) == Page([], None)
    assert filled.read(collections.names) == [POST]


def test_who_is_not_active_is_left_out(filled: Database) -> None:
    filled.write(accounts.set_statuses, {2: "takendown"})
    gone = {3: AccountRow(3, did(3), 1, "active", "deactivated")}
    filled.write(projection.write, ProjectionBatch(1, 1, accounts=gone))
    assert filled.read(collections.list_repos, POST, 0, 2) == Page([(1, did(1)), (4, did(4))], 4)


def test_a_run_of_inactive_accounts_ends_a_page_and_not_the_list(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collections, "MAX_SCANNED", 4)
    for uid in range(1, 10):
        filled.write(accounts.set_statuses, {uid: "takendown"})
    pages: list[list[int]] = []
    after: int | None = 0
    while after is not None:
        page = filled.read(collections.list_repos, POST, after, 2)
        pages.append([uid for uid, _ in page.repos])
        after = page.next_uid
    assert pages == [[], [], [10]]


def test_removed_and_added_again(filled: Database) -> None:
    store(filled, {(1, POST): False, (2, LIKE): False, (2, POST): True, (3, LIKE): True})
    assert listed(filled, POST) == list(range(2, 11)) and listed(filled, LIKE) == [3]
    store(filled, {(1, POST): True})
    assert listed(filled, POST) == list(range(1, 11))


def test_a_check_takes_away_what_the_host_does_not_list(filled: Database) -> None:
    store(filled, {(1, POST): None, (2, POST): None, (2, LIKE): None})
    assert filled.read(collections.marked, 0, 10) == [Marked(1, did(1), 1), Marked(2, did(2), 1)]
    assert filled.read(collections.marked, 1, 10) == [Marked(2, did(2), 1)]
    assert filled.write(collections.spread, 1) == [POST]
    filled.write(collections.settle, 1, {LIKE})
    filled.write(collections.settle, 2, {POST})
    assert listed(filled, POST) == list(range(2, 11)) and listed(filled, LIKE) == [1]
    assert filled.read(collections.marked, 0, 10) == []


@pytest.mark.parametrize("present", [True, False])
def test_an_event_that_tells_meanwhile_knows_better(filled: Database, present: bool) -> None:
    store(filled, {(1, POST): None})
    filled.write(collections.spread, 1)
    store(filled, {(1, POST): present})
    filled.write(collections.settle, 1, set())
    assert (1 in listed(filled, POST)) is present
    assert filled.read(collections.marked, 0, 10) == []


def test_an_account_in_doubt_as_a_whole(filled: Database) -> None:
    store(filled, {(1, LIKE): True, (1, ALL): None, (2, LIKE): True})
    for _ in range(2):
        assert sorted(filled.write(collections.spread, 1)) == [LIKE, POST]
    filled.write(collections.settle, 1, {LIKE, "new.collection.name"})
    assert listed(filled, POST) == list(range(2, 11))
    assert listed(filled, LIKE) == [1, 2] and listed(filled, "new.collection.name") == [1]
    assert filled.read(collections.marked, 0, 10) == []


def test_a_host_that_does_not_say_changes_nothing(filled: Database) -> None:
    store(filled, {(1, ALL): None, (1, POST): None})
    filled.write(collections.settle, 1, None)
    assert listed(filled, POST) == list(range(1, 11)) and filled.read(collections.marked, 0, 10) == []


def test_another_relays_list(filled: Database) -> None:
    taken = filled.write(collections.add_listed, LIKE, [did(3), did(3), did(4), did(99)])
    assert taken == 2 and listed(filled, LIKE) == [3, 4]


def left_out(bound: str) -> Callable[[], float]:
    """How many were left out since now."""

    def count() -> float:
        return REGISTRY.get_sample_value("relay_collections_left_out_total", {"bound": bound}) or 0.0

    before = count()
    return lambda: count() - before


def pairs_of(uid: int, names: list[str]) -> dict[tuple[int, str], bool | None]:
    return {(uid, name): True for name in names}


def test_an_account_has_so_many_collections(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "MAX_PER_ACCOUNT", 5)
    since = left_out("account")
    names = [f"x.made.up{number}" for number in range(8)]
    # Whether one by one or at once, and whether events or the host tell.
    for name in names:
        store(filled, pairs_of(1, [name]))
    store(filled, pairs_of(2, names))
    store(filled, pairs_of(3, names[:2]))
    store(filled, {(3, ALL): None})
    filled.write(collections.spread, 3)
    filled.write(collections.settle, 3, {POST, *names})
    assert since() == 3 * 4
    found = {name: listed(filled, name) for name in [POST, *names]}
    assert [sum(uid in uids for uids in found.values()) for uid in (1, 2, 3)] == [5, 5, 5]
    # What it has may go, and makes room.
    store(filled, {(1, names[0]): False, (1, names[7]): True})
    assert 1 not in listed(filled, names[0]) and 1 in listed(filled, names[7])
    store(filled, pairs_of(2, [POST, *names[:4]]))
    assert since() == 3 * 4, "what is there already is not left out"


def test_accounts_with_few_and_with_many_collections_are_told_together(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collections, "MAX_PER_ACCOUNT", 5)
    since = left_out("account")
    names = [f"x.made.up{number}" for number in range(9)]
    # Each has posts already.
    store(filled, {**pairs_of(1, names[:3]), **pairs_of(3, names[:2])})
    # One is at its limit before its second name, one is far from it, one just reaches it.
    store(filled, {**pairs_of(1, names[3:5]), **pairs_of(2, names[:2]), **pairs_of(3, names[2:4])})
    assert since() == 1
    assert [sum(uid in listed(filled, name) for name in names) for uid in (1, 2, 3)] == [4, 2, 4]


def test_a_host_brings_up_so_many_names_a_day(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "MAX_NEW_NAMES", 10)
    other = AccountRow(11, did(11), 2, "active", "active")
    filled.write(projection.write, ProjectionBatch(1, 1, accounts={11: other}))
    since, now = left_out("host"), 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    for number in range(8):
        store(filled, pairs_of(1 + number % 3, [f"x.made.up{number}.a", f"x.made.up{number}.b"]))
    assert len(filled.read(collections.names)) == 1 + 10 and since() == 6
    store(filled, {(2, "x.made.up99.gone"): False, (2, "x.made.up98.doubtful"): None})
    assert len(filled.read(collections.names)) == 1 + 10
    # Others may, and names that are there are no matter of whose they are.
    store(filled, pairs_of(11, ["x.other.name"]))
    store(filled, pairs_of(4, ["x.made.up0.a"]))
    assert 11 in listed(filled, "x.other.name")
    assert 4 in listed(filled, "x.made.up0.a")
    now += collections.DAY_SECONDS
    store(filled, pairs_of(1, ["x.made.tomorrow"]))
    assert listed(filled, "x.made.tomorrow") == [1]


def test_the_check_of_an_account_looks_at_its_own_collections(filled: Database) -> None:
    queries: list[str] = []

    def plan(tx: Transaction) -> None:
        explain = "EXPLAIN QUERY PLAN" if tx.engine == "sqlite" else "EXPLAIN"
        if tx.engine == "postgres":
            tx.execute("SET LOCAL enable_seqscan = off")
        rows = tx.rows(f"{explain} SELECT collection_id FROM collection_repo WHERE uid = ?", (1,))
        queries.extend(str(row) for row in rows)

    filled.write(plan)
    assert "collection_repo_uid" in " ".join(queries)

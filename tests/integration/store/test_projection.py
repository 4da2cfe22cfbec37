"""What the projection promises, attacked on both engines: whole or not at all, again without harm, never backwards."""

import random

import pytest

from relay.atproto.cid import Cid
from relay.store import accounts, hosts, projection
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Database, Transaction
from relay.store.projection import ProjectionBatch
from tests.support.tables import account, by_uid

OLD = Cid.of_dag_cbor(b"\xa0")
NEW = Cid.of_dag_cbor(b"\x80")


@pytest.fixture
def host_ids(database: Database) -> list[int]:
    return [
        database.write(hosts.insert, f"pds{number}.example.com", no_ssl=False, account_limit=9, trusted=False).id
        for number in range(3)
    ]


def counts(database: Database) -> list[int]:
    return [row.account_count for row in database.read(hosts.all_rows)]


def test_a_new_database_is_at_the_beginning(database: Database) -> None:
    assert database.read(projection.position) == (0, 0)
    assert database.read(projection.suppressions) == {}


def test_a_batch_is_stored_whole_and_again_without_harm(database: Database, host_ids: list[int]) -> None:
    batch = ProjectionBatch(
        70,
        60,
        accounts={1: account(1, host_ids[0]), 2: account(2, host_ids[1], "host-throttled", "deactivated")},
        repos={1: RepoRow(1, "3k2a", OLD, NEW)},
        cursors={host_ids[0]: 500, host_ids[2]: 7},
        suppressed={2: 65},
    )
    for _ in range(2):
        database.write(projection.write, batch)
        assert database.read(projection.position) == (70, 60)
        assert database.read(by_uid, 1) == (batch.accounts[1], batch.repos[1])
        assert database.read(by_uid, 2) == (batch.accounts[2], None)
        assert [row.last_seq for row in database.read(hosts.all_rows)] == [500, -1, 7]
        assert counts(database) == [1, 1, 0]
        assert database.read(projection.suppressions) == {2: 65}


def test_a_batch_that_fails_leaves_no_trace(database: Database, host_ids: list[int]) -> None:
    def fail_after(tx: Transaction) -> None:
        projection.write(tx, ProjectionBatch(9, 9, accounts={1: account(1, host_ids[0])}, cursors={host_ids[0]: 3}))
        raise OSError("no space left")

    with pytest.raises(Exception, match="no space left"):
        database.write(fail_after)
    assert database.read(projection.position) == (0, 0)
    assert database.read(by_uid, 1) is None
    assert counts(database) == [0, 0, 0]


def test_rev_never_goes_back(database: Database, host_ids: list[int]) -> None:
    def store(rev: str, cid: Cid) -> str:
        batch = ProjectionBatch(1, 1, {1: account(1, host_ids[0])}, {1: RepoRow(1, rev, cid, cid)})
        database.write(projection.write, batch)
        found = database.read(by_uid, 1)
        assert found is not None and found[1] is not None
        return found[1].rev

    # A Danish database, as the test server is, takes `aa` for the last letter of the alphabet.
    assert store("3kab", OLD) == "3kab"
    assert store("3kaa", NEW) == "3kab"
    assert store("3kz2", NEW) == "3kz2"
    assert store("3kaa", OLD) == "3kz2"
    assert store("3kz2", NEW) == "3kz2"


def test_nothing_is_stored_where_sql_is_not_where_it_was_left(database: Database) -> None:
    database.write(projection.write, ProjectionBatch(5, 3), {0})
    with pytest.raises(projection.PositionMoved) as caught:
        database.write(projection.write, ProjectionBatch(9, 9), {6, 7})
    assert (caught.value.found, caught.value.replay_from) == (5, 3)
    assert database.read(projection.position) == (5, 3)
    database.write(projection.write, ProjectionBatch(9, 9), {5, 7})
    assert database.read(projection.position) == (9, 9)


def test_position_never_goes_back(database: Database) -> None:
    database.write(projection.write, ProjectionBatch(70, 60))
    database.write(projection.write, ProjectionBatch(50, 40))
    assert database.read(projection.position) == (70, 60)
    database.write(projection.write, ProjectionBatch(70, 65))
    assert database.read(projection.position) == (70, 65)


def test_an_old_row_neither_lifts_a_takedown_nor_brings_it_back(database: Database, host_ids: list[int]) -> None:
    database.write(projection.write, ProjectionBatch(1, 1, {1: account(1, host_ids[0])}))
    database.write(projection.write, ProjectionBatch(2, 2, own_statuses={1: "takendown"}))
    database.write(projection.write, ProjectionBatch(3, 3, {1: account(1, host_ids[1], "active", "deactivated")}))
    assert database.read(by_uid, 1) == (account(1, host_ids[1], "takendown", "deactivated"), None)
    database.write(projection.write, ProjectionBatch(4, 4, own_statuses={1: "active"}))
    database.write(projection.write, ProjectionBatch(5, 5, {1: account(1, host_ids[1], "takendown", "active")}))
    assert database.read(by_uid, 1) == (account(1, host_ids[1]), None)


def test_a_takedown_may_come_with_the_account(database: Database, host_ids: list[int]) -> None:
    batch = ProjectionBatch(1, 1, {1: account(1, host_ids[0])}, own_statuses={1: "takendown"})
    database.write(projection.write, batch)
    assert database.read(by_uid, 1) == (account(1, host_ids[0], "takendown"), None)
    stored = database.read(hosts.by_id, host_ids[0])
    assert stored is not None and stored.account_count == 1


def test_counts_follow_accounts_between_hosts(database: Database, host_ids: list[int]) -> None:
    """Whatever moves in whatever batches, repeated or not: the counts are what a count of the accounts gives."""
    rng = random.Random(8)
    home: dict[int, int] = {}
    for position in range(1, 30):
        batch = ProjectionBatch(position, position)
        for uid in rng.sample(range(1, 25), 8):
            home[uid] = rng.choice(host_ids)
            batch.accounts[uid] = account(uid, home[uid])
        for _ in range(rng.choice((1, 1, 2))):
            database.write(projection.write, batch)
    assert counts(database) == [list(home.values()).count(host_id) for host_id in host_ids]


def test_a_cursor_of_a_banned_host_leaves_it_banned(database: Database, host_ids: list[int]) -> None:
    database.write(hosts.set_status, host_ids[0], "banned")
    batch = ProjectionBatch(5, 5, {1: account(1, host_ids[0])}, cursors={host_ids[0]: 77})
    database.write(projection.write, batch)
    stored = database.read(hosts.by_id, host_ids[0])
    assert stored is not None and (stored.status, stored.last_seq) == ("banned", 77)


def test_suppressions_are_set_moved_and_lifted(database: Database) -> None:
    database.write(projection.write, ProjectionBatch(1, 1, suppressed={1: 10, 2: 20}))
    database.write(projection.write, ProjectionBatch(2, 2, suppressed={2: 25}, unsuppressed={1, 99}))
    assert database.read(projection.suppressions) == {2: 25}


def test_indigo_could_go_on_numbering(database: Database, host_ids: list[int]) -> None:
    """We give the uids; the engine's own counter, which indigo uses, is kept above them."""
    database.write(projection.write, ProjectionBatch(1, 1, {uid: account(uid, host_ids[0]) for uid in (5, 41)}))
    database.write(
        lambda tx: tx.execute("INSERT INTO account (did, host_id) VALUES (?, ?)", ("did:plc:next", host_ids[0]))
    )
    found = database.read(accounts.many_by_did, ["did:plc:next"]).get("did:plc:next")
    assert found is not None
    assert found[0] == AccountRow(42, "did:plc:next", host_ids[0], "active", "active")


def test_a_large_batch(database: Database, host_ids: list[int]) -> None:
    uids = range(1, 3001)
    batch = ProjectionBatch(
        1,
        1,
        accounts={uid: account(uid, host_ids[uid % 3]) for uid in uids},
        repos={uid: RepoRow(uid, "3k2a", OLD, NEW) for uid in uids},
    )
    for _ in range(2):
        database.write(projection.write, batch)
    assert counts(database) == [1000, 1000, 1000]
    assert len(database.read(accounts.list_repos, 0, 5000).repos) == 3000

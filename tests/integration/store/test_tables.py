"""Every table's functions, on both engines."""

from datetime import UTC, datetime

import pytest

from relay.atproto.cid import Cid
from relay.store import accounts, hosts, identities, installation, projection
from relay.store.accounts import AccountRow, ListedRepo, RepoRow
from relay.store.database import Database, Transaction, ping
from relay.store.hosts import HostRow
from relay.store.identities import IdentityRow
from relay.store.projection import ProjectionBatch
from tests.support.tables import account, by_uid

COMMIT = Cid.of_dag_cbor(b"\xa0")
DATA = Cid.of_dag_cbor(b"\x80")


def add_host(database: Database, hostname: str = "pds.example.com", account_limit: int = 100) -> HostRow:
    return database.write(hosts.insert, hostname, no_ssl=False, account_limit=account_limit, trusted=False)


def add_accounts(database: Database, *rows: AccountRow, repos: bool = True) -> None:
    batch = ProjectionBatch(1, 1, accounts={row.uid: row for row in rows})
    if repos:
        batch.repos = {row.uid: RepoRow(row.uid, "3k2a", COMMIT, DATA) for row in rows}
    database.write(projection.write, batch)


def test_an_open_database_answers(database: Database) -> None:
    database.read(ping)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 2 * 64, 1_100])
def test_many_rows_are_written_as_each_by_itself(database: Database, count: int) -> None:
    """However many go as one statement: new rows, rows over others, changes of rows and rows that are gone."""
    names = [f"{number:05}" for number in range(count)]

    def write(tx: Transaction) -> None:
        tx.many("INSERT INTO relay_setting (key, value) VALUES (?, ?)", [(name, "new") for name in names])
        over = [(name, name) for name in [*names, "another"]]
        tx.many(
            "INSERT INTO relay_setting (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE"
            " SET value = excluded.value",
            over,
        )
        tx.many(
            "WITH new (key, value) AS (VALUES (?, ?)) UPDATE relay_setting SET value = new.value FROM new"
            " WHERE relay_setting.key = new.key",
            [(name, f"{name} changed") for name in [*names[1:], "unknown"]],
        )
        tx.many("DELETE FROM relay_setting WHERE key = ?", [(name,) for name in names[2:]])

    before = len(database.read(lambda tx: tx.rows("SELECT key FROM relay_setting")))
    database.write(write)
    found: dict[str, str] = dict(database.read(lambda tx: tx.rows("SELECT key, value FROM relay_setting")))
    assert {name: found[name] for name in (*names[:2], "another")} == {
        **{name: name for name in names[:1]},
        **{name: f"{name} changed" for name in names[1:2]},
        "another": "another",
    }
    assert len(found) == before + min(count, 2) + 1


def test_no_rows_are_nothing_to_write(database: Database) -> None:
    database.write(lambda tx: tx.many("INSERT INTO relay_setting (key, value) VALUES (?, ?)", []))


def test_a_host_is_stored_with_indigos_defaults(database: Database) -> None:
    before = datetime.now(UTC)
    host = database.write(hosts.insert, "pds.example.com", no_ssl=True, account_limit=7, trusted=True)
    assert host == database.read(hosts.by_id, host.id) == database.read(hosts.by_hostname, "pds.example.com")
    assert (host.no_ssl, host.trusted, host.account_limit) == (True, True, 7)
    assert (host.status, host.last_seq, host.account_count, host.failures) == ("active", -1, 0, 0)
    assert before <= host.created_at <= datetime.now(UTC)
    assert host.alert_state == "ok" and host.alert_sent_at is None and host.alerts_silenced is False


def test_a_host_known_already_is_returned_unchanged(database: Database) -> None:
    first = add_host(database)
    again = database.write(hosts.insert, "pds.example.com", no_ssl=True, account_limit=1, trusted=True)
    assert again == first
    assert database.read(hosts.all_rows) == [first]


def test_a_host_that_is_not_known_is_not_found(database: Database) -> None:
    assert database.read(hosts.by_id, 1) is None
    assert database.read(hosts.by_hostname, "pds.example.com") is None


def test_hosts_are_listed_by_id_when_they_sent_something(database: Database) -> None:
    rows = [add_host(database, f"pds{number}.example.com") for number in range(5)]
    sent = {row.id: 10 * row.id for row in rows if row.hostname != "pds2.example.com"}
    database.write(projection.write, ProjectionBatch(1, 1, cursors=sent))
    database.write(hosts.set_status, rows[3].id, "banned")
    first = database.read(hosts.list_hosts, 0, 3)
    assert [(row.id, row.last_seq, row.status) for row in first] == [
        (rows[0].id, 10 * rows[0].id, "active"),
        (rows[1].id, 10 * rows[1].id, "active"),
        (rows[3].id, 10 * rows[3].id, "banned"),
    ]
    assert [row.id for row in database.read(hosts.list_hosts, first[-1].id, 3)] == [rows[4].id]
    assert database.read(hosts.list_hosts, rows[4].id, 3) == []


def test_admin_changes_of_a_host(database: Database) -> None:
    host = add_host(database)
    sent_at = datetime(2026, 8, 1, 12, 30, 15, 250000, UTC)
    database.write(hosts.set_account_limit, host.id, 5000)
    database.write(hosts.set_status, host.id, "banned")
    database.write(hosts.set_rates, host.id, {"per_second": 9, "per_day": 90})
    database.write(hosts.set_rates, host.id, {"per_second": None, "per_hour": 19})
    database.write(hosts.set_alert, host.id, silenced=True, state="warning", sent_at=sent_at)
    stored = database.read(hosts.by_id, host.id)
    assert stored is not None
    assert (stored.account_limit, stored.status) == (5000, "banned")
    assert (stored.per_second, stored.per_hour, stored.per_day) == (None, 19, 90)
    assert (stored.alerts_silenced, stored.alert_state, stored.alert_sent_at) == (True, "warning", sent_at)


def test_what_was_seen_of_hosts_leaves_their_limits_alone(database: Database) -> None:
    first, second = add_host(database), add_host(database, "pds.example.org")
    database.write(hosts.set_rates, first.id, {"per_hour": 19})
    first.failures, first.last_error, first.last_error_at = 3, "connection refused", 1700000000.25
    first.status, first.last_seq, first.account_limit = "banned", 999, 1
    second.last_connected_at = 1700000001.5
    for _ in range(2):
        database.write(hosts.save_states, [first, second])
    stored = database.read(hosts.by_id, first.id)
    assert stored is not None
    assert (stored.failures, stored.last_error, stored.last_error_at) == (3, "connection refused", 1700000000.25)
    assert (stored.status, stored.last_seq, stored.account_limit, stored.per_hour) == ("active", -1, 100, 19)
    assert database.read(hosts.by_id, second.id) == second
    database.write(hosts.save_states, [])


def test_an_account_is_found_with_its_repo_in_one_query(database: Database) -> None:
    host = add_host(database)
    with_repo, without = account(1, host.id), account(2, host.id, "host-throttled", "deactivated")
    add_accounts(database, with_repo)
    add_accounts(database, without, repos=False)
    repo = RepoRow(1, "3k2a", COMMIT, DATA)
    assert database.read(accounts.many_by_did, [with_repo.did]).get(with_repo.did) == (with_repo, repo)
    assert database.read(by_uid, 2) == (without, None)
    assert database.read(accounts.many_by_did, ["did:plc:unknown"]).get("did:plc:unknown") is None
    assert database.read(by_uid, 3) is None
    asked = [with_repo.did, "did:plc:unknown", without.did]
    assert database.read(accounts.many_by_did, asked) == {
        with_repo.did: (with_repo, repo),
        without.did: (without, None),
    }
    assert database.read(accounts.many_by_did, []) == {}
    assert database.read(accounts.max_uid) == 2


def test_any_number_of_accounts_is_found_at_once(database: Database) -> None:
    add_accounts(database, *map(account, range(1, 2502)))
    asked = [account(uid).did for uid in range(1, 2502)]
    assert len(database.read(accounts.many_by_did, asked)) == 2501


def test_no_account_yet(database: Database) -> None:
    assert database.read(accounts.max_uid) == 0


def test_list_repos_shows_active_accounts_with_a_repo(database: Database) -> None:
    shown = [account(uid) for uid in (1, 4, 6)]
    add_accounts(
        database, *shown, account(2, status="takendown"), account(3, upstream_status="deleted"), account(7, status="x")
    )
    add_accounts(database, account(5), repos=False)
    page = database.read(accounts.list_repos, 0, 2)
    assert page.repos == [ListedRepo(row.uid, row.did, str(COMMIT), "3k2a") for row in shown[:2]]
    assert page.next_uid == 4
    last = database.read(accounts.list_repos, 4, 2)
    assert [row.uid for row in last.repos] == [6] and last.next_uid is None


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_list_repos_looks_at_few_accounts_and_comes_to_the_end(
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(accounts, "MAX_SCANNED", 40)
    monkeypatch.setattr(accounts, "MAX_STEP", 20)
    # Runs of accounts without a repo, of inactive ones, and of both in turn.
    add_accounts(database, *(account(uid) for uid in (1, 2, 500, 900, 901)))
    add_accounts(database, *(account(uid) for uid in range(3, 500)), repos=False)
    add_accounts(database, *(account(uid, upstream_status="deleted") for uid in range(502, 700)))
    add_accounts(database, *(account(uid, status="takendown") for uid in range(700, 900, 2)))
    add_accounts(database, *(account(uid) for uid in range(701, 900, 2)), repos=False)
    found: list[int] = []
    after: int | None = 0
    pages = 0
    while after is not None:
        page = database.read(accounts.list_repos, after, limit)
        assert page.next_uid is None or page.next_uid > after
        found += (row.uid for row in page.repos)
        after, pages = page.next_uid, pages + 1
    assert found == [1, 2, 500, 900, 901]
    assert pages <= 20


def test_takedowns_by_page(database: Database) -> None:
    add_accounts(database, *(account(uid, status="takendown" if uid % 2 else "active") for uid in range(1, 8)))
    assert database.read(accounts.takedowns, 0, 3) == [(uid, account(uid).did) for uid in (1, 3, 5)]
    assert database.read(accounts.takedowns, 5, 3) == [(7, account(7).did)]


def test_the_oldest_throttled_accounts_of_a_host(database: Database) -> None:
    rows = [
        account(1, 1, "host-throttled"),
        account(2, 2, "host-throttled"),
        account(3, 1, "host-throttled", "deactivated"),
        account(4, 1, "active"),
        account(5, 1, "host-throttled"),
        account(6, 1, "host-throttled"),
    ]
    add_accounts(database, *rows)
    assert database.read(accounts.throttled_oldest, 1, 2) == [rows[0], rows[4]]


def test_own_status_of_an_account(database: Database) -> None:
    add_accounts(database, account(1))
    database.write(accounts.set_statuses, {1: "takendown", 2: "takendown"})
    found = database.read(by_uid, 1)
    assert found is not None and found[0].status == "takendown"
    assert database.read(by_uid, 2) is None


def test_a_ban_is_of_a_domain_and_all_below_it(database: Database) -> None:
    assert database.write(hosts.add_ban, "example.com") is True
    assert database.write(hosts.add_ban, "example.com") is False
    assert database.write(hosts.add_ban, "bad.example.org") is True
    assert database.read(hosts.all_bans) == ["example.com", "bad.example.org"]
    assert database.read(hosts.ban_of, "pds.deep.example.com") == "example.com"
    assert database.read(hosts.ban_of, "example.com") == "example.com"
    assert database.read(hosts.ban_of, "notexample.com") is None
    assert database.read(hosts.ban_of, "good.example.org") is None
    assert database.write(hosts.remove_ban, "example.com") is True
    assert database.write(hosts.remove_ban, "example.com") is False
    assert database.read(hosts.ban_of, "example.com") is None


def test_what_was_put_last_is_there(database: Database) -> None:
    assert database.read(installation.get, "crawl") is None
    database.write(installation.put, "crawl", "on")
    database.write(installation.put, "crawl", "off")
    assert database.read(installation.get, "crawl") == "off"
    database.write(installation.remove, "crawl")
    assert database.read(installation.get, "crawl") is None


def test_identities_are_read_as_they_were_written(database: Database) -> None:
    rows = [
        IdentityRow("did:plc:a", "https://pds.example.com", "k256", b"\x02" + b"k" * 32, "a.example.com", 100.5),
        IdentityRow("did:web:example.com", None, "p256", b"\x03" + b"p" * 32, None, 101.0),
        IdentityRow("did:plc:gone", None, None, None, None, 102.0, tombstone=True),
    ]
    database.write(identities.upsert_many, rows, 200.0)
    database.write(identities.upsert_many, [], 200.0)
    assert database.read(identities.load_many, [row.did for row in rows] + ["did:plc:x"]) == {
        row.did: row for row in rows
    }
    newer = IdentityRow("did:plc:a", "https://pds.example.org", "p256", b"\x02" + b"n" * 32, None, 200.0)
    older = IdentityRow("did:plc:a", None, None, None, None, 50.0, tombstone=True)
    database.write(identities.upsert_many, [newer], 200.0)
    database.write(identities.upsert_many, [older], 200.0)
    assert database.read(identities.load_many, ["did:plc:a"]) == {"did:plc:a": newer}


def test_a_failed_write_stores_nothing(database: Database) -> None:
    def half_way(tx: Transaction) -> None:
        installation.put(tx, "crawl", "on")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        database.write(half_way)
    assert database.read(installation.get, "crawl") is None
    database.write(installation.put, "crawl", "on")


def test_wrong_sql_is_a_bug_and_not_an_outage(database: Database) -> None:
    for run in (database.read, database.write):
        with pytest.raises(Exception, match="nowhere") as caught:
            run(lambda tx: tx.rows("SELECT nowhere FROM account"))
        assert type(caught.value).__module__.split(".")[0] in ("sqlite3", "psycopg2")
    database.read(ping)

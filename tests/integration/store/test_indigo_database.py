"""An existing database of indigo is taken over as it is: its rows are ours, its tables stay usable by it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from relay.atproto.cid import Cid
from relay.store import accounts, hosts, projection
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Database
from relay.store.hosts import HostRow
from relay.store.open import open_database
from relay.store.projection import ProjectionBatch
from tests.support.tables import by_uid

COMMIT = "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua"
DATA = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"

ALERT_COLUMNS = {
    "sqlite": ",`account_limit_alerts_silenced` numeric DEFAULT false,`account_limit_alert_state` text DEFAULT"
    ' "ok",`account_limit_alert_sent_at` datetime',
    "postgres": ",account_limit_alerts_silenced boolean DEFAULT false,account_limit_alert_state text DEFAULT"
    " 'ok',account_limit_alert_sent_at timestamptz",
}

# The tables as GORM, which indigo makes them with, writes them; and some rows.
INDIGO = Path(__file__).parent / "indigo"

Run = Callable[[str], Sequence[tuple[Any, ...]]]


def runner(url: str) -> Run:
    """Runs SQL on the database as any other program would."""

    def sqlite_run(sql: str) -> Sequence[tuple[Any, ...]]:
        connection = sqlite3.connect(url.removeprefix("sqlite://"))
        try:
            if sql.lstrip().upper().startswith("SELECT"):
                return connection.execute(sql).fetchall()
            connection.executescript(sql)
            return []
        finally:
            connection.close()

    def postgres_run(sql: str) -> Sequence[tuple[Any, ...]]:
        connection = psycopg2.connect(url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    return sqlite_run if url.startswith("sqlite") else postgres_run


@pytest.fixture(params=["current", "before alerts"])
def indigo(request: pytest.FixtureRequest, database_url: str) -> str:
    """The address of a database as indigo leaves it, with rows."""
    engine = "sqlite" if database_url.startswith("sqlite") else "postgres"
    alerts = ALERT_COLUMNS[engine] if request.param == "current" else ""
    run = runner(database_url)
    run(_tables(engine, alerts))
    run((INDIGO / "rows.sql").read_text())
    return database_url


def test_its_rows_are_ours(indigo: str) -> None:
    database = open_database(indigo, max_connections=2)
    try:
        first, second = database.read(hosts.all_rows)
        assert (first.hostname, first.account_limit, first.trusted, first.status) == (
            "pds.example.com",
            1000,
            True,
            "active",
        )
        assert (first.last_seq, first.account_count, first.no_ssl, first.alerts_silenced) == (4711, 2, False, False)
        assert first.created_at == datetime(2025, 3, 4, 5, 6, 7, 123456, UTC) or (
            first.created_at.microsecond == 123457  # PostgreSQL rounds the nanoseconds
        )
        assert second.created_at == datetime(2025, 3, 4, 23, 0, 0, 0, UTC)
        assert second.status == "banned"
        assert database.read(by_uid, 1) == (
            AccountRow(1, "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", 1, "active", "active"),
            RepoRow(1, "3ljqmdqb2sk2a", Cid.parse(COMMIT), Cid.parse(DATA)),
        )
        assert database.read(accounts.takedowns, 0, 10) == [(2, "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")]
        assert database.read(accounts.max_uid) == 2
        assert database.read(hosts.ban_of, "pds.example.net") == "Example.NET"
        assert database.write(hosts.remove_ban, "example.net") is True
        assert database.read(projection.position) == (0, 0)
    finally:
        database.close()


def test_odd_rows_are_read_as_far_as_they_can_be(indigo: str) -> None:
    """Columns that are empty, a status of another relay's, and what a host called its commit."""
    run = runner(indigo)
    run("INSERT INTO host (hostname, status, trusted, no_ssl) VALUES ('bare.example.com', NULL, NULL, NULL)")
    run("UPDATE host SET last_seq = NULL, account_count = NULL WHERE hostname = 'bare.example.com'")
    run("UPDATE host SET status = 'exhausted' WHERE hostname = 'bad.example.org'")
    run("INSERT INTO domain_bans (created_at) VALUES (NULL)")
    run("INSERT INTO account (did, host_id) VALUES ('did:plc:cccccccccccccccccccccccc', 3)")
    run(f"INSERT INTO account_repo (uid, rev, commit_cid, commit_data_cid) VALUES (3, '3ljqmdqb2sk2a', 'Qm', '{DATA}')")
    database = open_database(indigo, max_connections=2)
    try:
        _, second, third = _hosts(database)
        assert (second.status, third.status) == ("exhausted", "active")
        assert (third.account_limit, third.account_count, third.last_seq) == (0, 0, -1)
        assert third.created_at == datetime.fromtimestamp(0, UTC)
        assert database.read(hosts.all_bans) == ["Example.NET"]
        # The others of the same read are not affected.
        dids = [f"did:plc:{letter * 24}" for letter in "ac"]
        (_, known), (account, unknown) = (database.read(accounts.many_by_did, dids)[did] for did in dids)
        assert (known is not None, account.host_id, unknown) == (True, 3, None)
        new = AccountRow(4, "did:plc:dddddddddddddddddddddddd", 3, "active", "active")
        batch = ProjectionBatch(9, 9, {4: new}, missed={(3, new.did): "frame-time"}, now=1.0)
        database.write(projection.write, batch)
        assert _hosts(database)[2].account_count == 1
        assert database.read(accounts.places_taken, 3) == (1, 0)
    finally:
        database.close()


def test_rows_that_name_one_host_become_one(indigo: str) -> None:
    """As it is looked up: otherwise its events are those of another host than its accounts' documents name."""
    run = runner(indigo)
    spelt = {
        "PDS.example.com": "'active', 99, 3",
        "pds.Example.com.": "'active', 98, NULL",
        "Bad.example.org.": "'active', 7, 1",
        "Alone.example.com.": "'active', 5, 1",
        "twice.example.com.": "'banned', 6, 1",
        "TWICE.example.com": "'active', 8, 1",
    }
    for name, rest in spelt.items():
        run(f"INSERT INTO host (hostname, status, last_seq, account_count) VALUES ('{name}', {rest})")
    did = f"did:plc:{'c' * 24}"
    run(f"INSERT INTO account (did, host_id) SELECT '{did}', id FROM host WHERE last_seq = 99")
    database = open_database(indigo, max_connections=2)
    try:
        assert {row.hostname: (row.status, row.last_seq, row.account_count) for row in _hosts(database)} == {
            "pds.example.com": ("active", 4711, 5),
            "bad.example.org": ("banned", 7, 1),
            "alone.example.com": ("active", 5, 1),
            "twice.example.com": ("banned", 6, 2),
        }
        assert database.read(accounts.many_by_did, [did])[did][0].host_id == 1
    finally:
        database.close()


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("2025-03-04 05:06:07", datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)),
        ("2025-03-04 05:06:07.5+02:00", datetime(2025, 3, 4, 3, 6, 7, 500_000, UTC)),
        ("2025-03-04T05:06:07.123456789Z", datetime(2025, 3, 4, 5, 6, 7, 123_456, UTC)),
        ("0001-01-01 00:00:00+00:00", datetime(1, 1, 1, tzinfo=UTC)),
        ("some day", None),
        (1741064767, None),
        (None, None),
    ],
)
def test_the_times_of_sqlite(stored: object, read: datetime | None) -> None:
    assert hosts._time(stored) == read


def test_indigo_could_take_it_back(indigo: str) -> None:
    """After we wrote hosts, accounts and bans, indigo's own statements still work on the same tables."""
    database = open_database(indigo, max_connections=2)
    host = database.write(hosts.insert, "new.example.com", no_ssl=False, account_limit=5, trusted=False)
    row = AccountRow(3, "did:plc:cccccccccccccccccccccccc", host.id, "active", "active")
    repo = RepoRow(3, "3ljqmdqb2sk2b", Cid.parse(COMMIT), Cid.parse(DATA))
    database.write(projection.write, ProjectionBatch(9, 9, {3: row}, {3: repo}, {host.id: 12}))
    database.close()
    run = runner(indigo)
    run(
        "INSERT INTO host (created_at,hostname,no_ssl,account_limit,trusted,status,last_seq,account_count)"
        " VALUES ('2026-01-01 00:00:00+00:00','back.example.com',false,1,false,'active',-1,0)"
    )
    run("INSERT INTO account (did,host_id) VALUES ('did:plc:dddddddddddddddddddddddd',4)")
    run("INSERT INTO domain_bans (created_at,domain) VALUES ('2026-01-01 00:00:00+00:00','example.org')")
    assert run("SELECT uid, status FROM account WHERE did = 'did:plc:dddddddddddddddddddddddd'") == [(4, "active")]
    assert run("SELECT rev, commit_cid, commit_data_cid FROM account_repo WHERE uid = 3") == [
        ("3ljqmdqb2sk2b", COMMIT, DATA)
    ]
    assert run("SELECT id, last_seq, account_count, status FROM host WHERE hostname = 'new.example.com'") == [
        (host.id, 12, 1, "active")
    ]
    assert run("SELECT path, seq_start FROM log_file_refs") == [("evts-0", 0)]


def test_our_tables_have_its_columns(database_url: str) -> None:
    """A database we make has indigo's columns, in its order, with its types."""
    engine = "sqlite" if database_url.startswith("sqlite") else "postgres"
    run = runner(database_url)
    shapes = []
    for make in (
        lambda: run(_tables(engine, ALERT_COLUMNS[engine])),
        lambda: open_database(database_url, max_connections=2).close(),
    ):
        make()
        shapes.append([_columns(run, engine, table) for table in _ITS_TABLES])
        for table in _ITS_TABLES:
            run(f"DROP TABLE {table}")
    assert shapes[0] == shapes[1]
    assert all(shapes[0])


def test_the_table_of_accounts_has_one_index_of_their_dids(indigo: str) -> None:
    """With millions of accounts a second one takes gigabytes, and time at each new account."""
    run = runner(indigo)
    assert _indexes_of_dids(run, indigo) == ["idx_account_d_id"]
    open_database(indigo, max_connections=2).close()
    assert _indexes_of_dids(run, indigo) == ["idx_account_d_id"]
    # As a former release left it.
    for former in ("", "DROP INDEX idx_account_d_id; "):
        run(f"{former}CREATE UNIQUE INDEX idx_account_did ON account (did)")
        run("DELETE FROM relay_schema WHERE version >= 9")
        open_database(indigo, max_connections=2).close()
        assert _indexes_of_dids(run, indigo) == ["idx_account_d_id"]


def _indexes_of_dids(run: Run, url: str) -> list[str]:
    """The names of the indexes that begin with the DID."""
    if url.startswith("sqlite"):
        found = run("SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '%account%(%did%)'")
    else:
        found = run("SELECT indexname FROM pg_indexes WHERE tablename = 'account' AND indexdef LIKE '%(did)'")
    return sorted(name for (name,) in found)


def _hosts(database: Database) -> list[HostRow]:
    return database.read(hosts.all_rows)


def _tables(engine: str, alerts: str) -> str:
    return (INDIGO / f"{engine}.sql").read_text().replace("{alerts}", alerts)


_ITS_TABLES = ("host", "account", "account_repo", "domain_bans", "log_file_refs")


def _columns(run: Run, engine: str, table: str) -> Sequence[tuple[Any, ...]]:
    if engine == "sqlite":
        return [
            (name, kind, notnull, (default or "").replace('"', "'"), key)
            for _, name, kind, notnull, default, key in run(f"SELECT * FROM pragma_table_info('{table}')")
        ]
    return run(
        "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        f" WHERE table_name = '{table}' ORDER BY ordinal_position"
    )

"""PostgreSQL alone: a pool with a bound, a server that dies, hangs and comes back, and callers that give up."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import gevent
import psycopg2
import pytest

from relay.kit.errors import StoreError
from relay.store import accounts, hosts, installation, postgres, postgres_pool, projection
from relay.store.accounts import AccountRow
from relay.store.database import Database, Transaction, ping
from relay.store.hosts import HostRow
from relay.store.open import open_database
from relay.store.projection import ProjectionBatch
from tests.support.postgres import Cluster
from tests.support.repo import account_did
from tests.support.wait import PATIENCE

CONNECTIONS = 4


@pytest.fixture(scope="module")
def cluster(postgres_cluster: Cluster) -> Iterator[Cluster]:
    """A server of this module's own, to be stopped and hung. The session's is asked for so that both are skipped."""
    own = Cluster()
    yield own
    own.close()


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    opened = open_database(cluster.create(), max_connections=CONNECTIONS)
    yield opened
    opened.close()


def sleep(tx: Transaction, seconds: float) -> None:
    tx.rows("SELECT pg_sleep(?)", (seconds,))


def backend(tx: Transaction) -> int:
    row = tx.row("SELECT pg_backend_pid()")
    assert row
    pid: int = row[0]
    return pid


def sessions(database: Database) -> int:
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    row = database.read(lambda tx: tx.row(count))
    assert row
    found: int = row[0]
    return found


def test_greenlets_share_a_bounded_number_of_connections(database: Database) -> None:
    started = time.monotonic()
    waiting = [gevent.spawn(database.read, sleep, 0.1) for _ in range(5 * CONNECTIONS)]
    gevent.joinall(waiting, timeout=60, raise_error=True)
    assert time.monotonic() - started >= 0.5
    assert sessions(database) == CONNECTIONS


def test_a_caller_waits_for_a_connection_no_longer_than_it_should(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_pool, "WAIT_SECONDS", 0.05)
    holding = [gevent.spawn(database.read, sleep, 1) for _ in range(CONNECTIONS)]
    gevent.sleep(0.2)
    with pytest.raises(StoreError, match="free") as caught:
        database.read(ping)
    assert caught.value.reason == "store-unavailable"
    gevent.joinall(holding, timeout=60, raise_error=True)
    database.read(ping)


@pytest.fixture
def scanty(cluster: Cluster) -> Iterator[Database]:
    """A database of which the server gives three connections, and the relay would have eight."""
    cluster.execute("CREATE ROLE scanty LOGIN CONNECTION LIMIT 3")
    cluster.execute("CREATE DATABASE scanty OWNER scanty")
    opened = open_database(cluster.url("scanty").replace("relay@", "scanty@"), max_connections=2 * CONNECTIONS)
    yield opened
    opened.close()
    cluster.execute("DROP DATABASE scanty WITH (FORCE)")
    cluster.execute("DROP ROLE scanty")


def test_a_server_that_gives_fewer_connections_is_served_with_those(scanty: Database, cluster: Cluster) -> None:
    started = time.monotonic()
    waiting = [gevent.spawn(scanty.read, sleep, 0.1) for _ in range(5 * CONNECTIONS)]
    gevent.joinall(waiting, timeout=60, raise_error=True)
    assert time.monotonic() - started >= 0.6
    # One that leaves while it waits takes no connection along, one that breaks leaves its place to another.
    holding = [gevent.spawn(scanty.read, sleep, 1) for _ in range(3)]
    gevent.sleep(0.3)
    leaving = [gevent.spawn(scanty.read, sleep, 20) for _ in range(2)]
    staying = gevent.spawn(scanty.read, backend)
    gevent.sleep(0.1)
    gevent.killall(leaving, timeout=60)
    holding[0].kill()
    assert staying.get(timeout=60)
    gevent.joinall(holding, timeout=60, raise_error=False)
    # Nobody waits for one that will not come.
    holding = [gevent.spawn(scanty.read, sleep, 20) for _ in range(3)]
    gevent.sleep(0.3)
    failing: list[gevent.Greenlet[..., None]] = [*holding, gevent.spawn(scanty.read, ping)]
    gevent.sleep(0.1)
    cluster.stop()
    started = time.monotonic()
    gevent.joinall(failing, timeout=60)
    assert all(isinstance(one.exception, StoreError) for one in failing)
    assert time.monotonic() - started < 5 * PATIENCE
    cluster.start()
    gevent.sleep(postgres_pool.RETRY_AFTER_SECONDS)
    scanty.read(ping)


def test_callers_that_give_up_leave_the_pool_whole(database: Database) -> None:
    """A connection in the middle of a statement must not go to the next caller, and must not be lost to the pool."""
    for run in (database.read, database.write):
        leaving = [gevent.spawn(run, sleep, 20) for _ in range(2 * CONNECTIONS)]
        gevent.sleep(0.1)
        gevent.killall(leaving, timeout=60)
        again = [gevent.spawn(run, lambda tx: tx.row("SELECT 7")) for _ in range(3 * CONNECTIONS)]
        gevent.joinall(again, timeout=60, raise_error=True)
        assert {greenlet.value for greenlet in again} == {(7,)}
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        database.write(sleep, 20)
    assert database.write(lambda tx: tx.row("SELECT 8")) == (8,)


def test_a_statement_that_never_ends_gives_its_caller_back(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "TRANSACTION_SECONDS", 0.1)
    with pytest.raises(StoreError, match="no answer"):
        database.read(sleep, 20)
    database.read(ping)


def test_a_connection_that_died_at_rest_is_not_noticed(database: Database, cluster: Cluster) -> None:
    gevent.joinall([gevent.spawn(database.read, sleep, 0.05) for _ in range(CONNECTIONS)], raise_error=True)
    cluster.stop()
    cluster.start()
    runs = []

    def put(tx: Transaction) -> None:
        runs.append(1)
        installation.put(tx, "a", "b")

    database.write(put)
    assert database.read(installation.get, "a") == "b"
    # Once on a dead connection; that tells of all the others.
    assert len(runs) == 2


def test_a_connection_that_dies_in_a_transaction_is_an_outage_or_all_is_done_again(
    database: Database, cluster: Cluster
) -> None:
    def dying(tx: Transaction) -> None:
        installation.put(tx, "count", str(int(installation.get(tx, "count") or "0") + 1))
        pids.append(backend(tx))
        if len(pids) == 1:
            cluster.execute(f"SELECT pg_terminate_backend({pids[0]})")
        ping(tx)

    pids: list[int] = []
    database.write(dying)
    assert len(pids) == 2 and pids[0] != pids[1]
    assert database.read(installation.get, "count") == "1"


def test_nothing_is_done_again_once_the_commit_was_sent(database: Database) -> None:
    """The server dies in the commit: whether it is stored is not known, so only the caller may try again."""
    database.write(
        lambda tx: tx.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
    )
    database.write(
        lambda tx: tx.execute(
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON relay_setting DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION die()"
        )
    )
    runs = []

    def put(tx: Transaction) -> None:
        runs.append(1)
        installation.put(tx, "a", "b")

    with pytest.raises(StoreError) as caught:
        database.write(put)
    assert caught.value.reason == "store-unavailable"
    assert runs == [1]
    assert database.read(installation.get, "a") is None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_an_outage_fails_fast_and_ends_by_itself(database: Database, cluster: Cluster, how: signal.Signals) -> None:
    host: HostRow = database.write(hosts.insert, "pds.example.com", no_ssl=False, account_limit=1, trusted=False)
    stored = 0
    cluster.stop(how)
    try:
        started = time.monotonic()
        calls = [gevent.spawn(database.write, installation.put, str(number), "x") for number in range(100)]
        gevent.joinall(calls, timeout=60)
        assert time.monotonic() - started < 5 * PATIENCE
        reasons = {call.exception.reason for call in calls if isinstance(call.exception, StoreError)}
        assert reasons == {"store-unavailable"} and not any(call.successful() for call in calls)
    finally:
        cluster.start()
    deadline = time.monotonic() + 60
    while not stored:
        assert time.monotonic() < deadline
        try:
            database.write(projection.write, ProjectionBatch(5, 5, cursors={host.id: 5}))
            stored = 1
        except StoreError:
            gevent.sleep(0.05)
    assert database.read(projection.position) == (5, 5)


def test_a_server_that_hangs_fails_in_time_and_is_used_again(
    database: Database, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The postmaster is stopped in its tracks: it takes connections and never answers."""
    monkeypatch.setattr(postgres_pool, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(postgres_pool, "CHECK_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(postgres, "TRANSACTION_SECONDS", 0.5)
    server = cluster._server
    assert server
    pid = database.read(backend)
    for stopped in (server.pid, pid):
        os.kill(stopped, signal.SIGSTOP)
    try:
        started = time.monotonic()
        calls = [gevent.spawn(database.read, ping) for _ in range(40)]
        gevent.joinall(calls, timeout=60)
        assert time.monotonic() - started < 5 * PATIENCE
        assert all(isinstance(call.exception, StoreError) for call in calls)
    finally:
        for stopped in (server.pid, pid):
            os.kill(stopped, signal.SIGCONT)
    gevent.sleep(postgres_pool.RETRY_AFTER_SECONDS)
    database.read(ping)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(StoreError) as caught:
        open_database("postgres://relay:s3cret@127.0.0.1:1/relay", max_connections=2)
    assert caught.value.reason == "store-unavailable"
    assert "s3cret" not in str(caught.value)


def test_a_server_that_takes_connections_and_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_pool, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(StoreError, match="no answer") as caught:
            open_database(f"postgres://relay@127.0.0.1:{silent.getsockname()[1]}/relay", max_connections=2)
    assert caught.value.reason == "store-unavailable"
    assert time.monotonic() - started < 5 * PATIENCE


def test_names_are_looked_up_without_stopping_the_hub(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = gevent.socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> object:
        # Others in this process may look up names as well.
        if host != "database.invalid":
            return real(host, *args, **kwargs)
        asked.append(host)
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(gevent.socket, "getaddrinfo", getaddrinfo)
    address = cluster.create().replace("127.0.0.1", "database.invalid")
    database = open_database(address, max_connections=2)
    database.read(ping)
    database.close()
    assert asked == ["database.invalid"]


def test_a_broken_rule_of_the_schema_is_a_bug_and_not_an_outage(database: Database) -> None:
    with pytest.raises(psycopg2.IntegrityError):
        database.write(lambda tx: tx.execute("INSERT INTO relay_position VALUES (2, 1, 1)"))
    database.read(ping)


def test_it_works_without_gevents_patches(cluster: Cluster) -> None:
    script = """
import sys
from relay.store import installation
from relay.store.open import open_database
from relay.store.database import Database
database = open_database(sys.argv[1], max_connections=2)
database.write(installation.put, "a", "b")
print(database.read(installation.get, "a"), database.read(installation.get, "c"))
database.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, cluster.create()], capture_output=True, text=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == ("b None\n", "")


def test_a_session_relies_on_nothing_that_a_server_may_have_set_otherwise(cluster: Cluster) -> None:
    url = cluster.create()
    name = url.rpartition("/")[2]
    for setting in ("synchronous_commit = off", "default_transaction_isolation = 'serializable'"):
        cluster.execute(f"ALTER DATABASE {name} SET {setting}")
    database = open_database(url, max_connections=2)
    assert database.read(lambda tx: tx.row("SHOW synchronous_commit")) == ("on",)
    assert database.read(lambda tx: tx.row("SHOW default_transaction_isolation")) == ("read committed",)
    database.close()
    cluster.execute(f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    database = open_database(url, max_connections=2)
    assert database.read(lambda tx: tx.row("SHOW synchronous_commit")) == ("remote_apply",), "an operator's choice"
    database.close()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
@pytest.mark.parametrize("word", ["d\xe9sactiv\xe9", "\u505c\u7528"])
def test_words_that_the_database_has_no_letters_for_spoil_nothing(cluster: Cluster, encoding: str, word: str) -> None:
    """A host's word on an account may be any text, and is stored together with what is said of others."""
    name = f"{encoding}_{len(word)}".lower()
    cluster.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'")
    database = open_database(cluster.url(name), max_connections=1)
    rows = {uid: AccountRow(uid, account_did(uid), 1, "active", status) for uid, status in ((1, word), (2, "active"))}
    database.write(projection.write, ProjectionBatch(1, 1, accounts=rows))
    known = database.read(accounts.many_by_did, [account_did(1), account_did(2)])
    assert known[account_did(2)][0] == rows[2]
    stored = known[account_did(1)][0].upstream_status
    assert len(stored) == len(word) and (stored == word or (encoding == "LATIN1" and "?" in stored))
    assert database.read(lambda tx: tx.rows("SELECT did FROM account WHERE upstream_status = ?", (word,)))
    database.close()


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("ALTER TABLE host RENAME TO away", "ALTER TABLE away RENAME TO host"),
        ("ALTER SCHEMA public RENAME TO away", "ALTER SCHEMA away RENAME TO public"),
        ("ALTER TABLE host OWNER TO relay", "ALTER TABLE host OWNER TO owner_{}"),
    ],
)
def test_tables_that_cannot_be_used_for_now_are_an_outage(cluster: Cluster, broken: str, mended: str) -> None:
    """While an operator puts a backup in their place, for one: events must wait for that."""
    url = cluster.create()
    name = url.rpartition("/")[2]
    cluster.execute(f"CREATE ROLE owner_{name} LOGIN")
    cluster.execute(f"ALTER DATABASE {name} OWNER TO owner_{name}")
    database = open_database(url.replace("relay@", f"owner_{name}@"), max_connections=1)
    execute(url, broken)
    for call in (database.read, database.write):
        with pytest.raises(StoreError) as error:
            call(hosts.all_rows)
        assert error.value.reason == "store-unavailable"
    execute(url, mended.format(name))
    assert database.read(hosts.all_rows) == []
    database.close()


@pytest.mark.parametrize("code", ["XX000", "XX001", "XX002", "25006", "40001", "40P01", "53100", "57P03", "58030"])
def test_trouble_of_the_servers_own_is_an_outage(database: Database, code: str) -> None:
    statement = f"DO $$ BEGIN RAISE 'trouble' USING ERRCODE = '{code}'; END $$"
    with pytest.raises(StoreError) as error:
        database.write(lambda tx: tx.execute(statement))
    assert error.value.reason == "store-unavailable"
    database.read(ping)


def execute(url: str, statement: str) -> None:
    """Run one statement as the superuser."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()

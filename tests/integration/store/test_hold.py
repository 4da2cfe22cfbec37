"""One relay for one database, on both engines: the second is refused, and the lock ends with whoever held it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import gevent
import psycopg2
import pytest

from relay.kit.errors import StoreError
from relay.store import installation, postgres_lock
from relay.store.database import ping
from relay.store.open import open_database
from tests.support.postgres import Cluster
from tests.support.wait import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_lock, "START_SECONDS", 0.3)


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        work()
    return caught.value.reason


def test_a_second_relay_is_refused_and_others_are_not(database_url: str) -> None:
    first = open_database(database_url, max_connections=2, hold=True)
    assert refused(lambda: open_database(database_url, max_connections=2, hold=True)) == "store-locked"
    command = open_database(database_url, max_connections=2)
    command.write(installation.put, "beside", "yes")
    assert first.read(installation.get, "beside") == "yes"
    command.close()
    first.write(installation.put, "still", "here")
    first.close()
    second = open_database(database_url, max_connections=2, hold=True)
    second.write(installation.put, "now", "the second")
    second.close()


def test_the_lock_ends_with_the_process(database_url: str) -> None:
    script = """
import sys, time
from relay.store.open import open_database
database = open_database(sys.argv[1], max_connections=2, hold=True)
print("held", flush=True)
time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script, database_url], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert refused(lambda: open_database(database_url, max_connections=2, hold=True)) == "store-locked"
    finally:
        holder.kill()
        holder.wait()
    give_up = time.monotonic() + 20
    while True:
        try:
            open_database(database_url, max_connections=2, hold=True).close()
            break
        except StoreError:
            assert time.monotonic() < give_up
            gevent.sleep(0.05)


def test_who_lost_the_lock_with_its_connection_takes_it_again_before_it_writes(
    postgres_cluster: Cluster, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("a file's lock ends with the process alone")
    monkeypatch.setattr(postgres_lock, "CHECK_AFTER_SECONDS", 0.0)
    first = open_database(database_url, max_connections=2, hold=True)
    _end_sessions(database_url)
    until(lambda: _writes(lambda: first.write(installation.put, "again", "held")))
    assert refused(lambda: open_database(database_url, max_connections=2, hold=True)) == "store-locked"
    monkeypatch.setattr(postgres_lock, "CHECK_AFTER_SECONDS", 60.0)
    _end_sessions(database_url)
    second = open_database(database_url, max_connections=2, hold=True)
    # Its connections were lost as well, which is what makes it doubt the lock.
    reasons = set()
    for _ in range(3):
        try:
            first.write(installation.put, "two", "writers")
        except StoreError as error:
            reasons.add(error.reason)
    assert "store-locked" in reasons and second.read(installation.get, "two") is None
    first.read(ping)
    second.close()
    until(lambda: _writes(lambda: first.write(installation.put, "alone", "again")))
    first.close()


def _writes(write: Callable[[], object]) -> bool:
    try:
        write()
    except StoreError:
        return False
    return True


def _end_sessions(url: str) -> None:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    finally:
        connection.close()


def test_the_lock_is_taken_from_one_that_stands_still(postgres_cluster: Cluster) -> None:
    """With what it had begun: a row that it holds in a transaction is free as well. Others stay connected."""
    url = postgres_cluster.create()
    first = open_database(url, max_connections=2, hold=True)
    first.write(installation.put, "row", "first")
    # In a process of its own, whose connections have another name.
    script = """
import sys, time
from relay.store.open import open_database
db = open_database(sys.argv[1], max_connections=2, hold=True, seize=True)
def stand_still(tx):
    tx.execute("UPDATE relay_setting SET value = 'held' WHERE key = 'row'")
    print("held", flush=True)
    time.sleep(60)
db.write(stand_still)
"""
    with subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        until(
            lambda: refused_or_none(lambda: first.write(installation.put, "other", "1")) == "store-locked", timeout=30
        )
        beside = open_database(url, max_connections=2)
        assert beside.read(installation.get, "row") == "first"
        second = open_database(url, max_connections=2, hold=True, seize=True)
        second.write(installation.put, "row", "second")
        assert beside.read(installation.get, "row") == "second"
        process.kill()
    for db in (first, second, beside):
        db.close()
    postgres_cluster.give_back(url)


def refused_or_none(work: Callable[[], object]) -> str | None:
    try:
        work()
    except StoreError as error:
        return error.reason
    return None

"""A backup that `relay-backup` makes of a running relay's database, and its restore as docs/operations.md says."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import subprocess
from psycopg2.extensions import parse_dsn

from relay.store import projection
from relay.store.database import Transaction
from relay.store.open import open_database
from relay.store.postgres_address import parameters_of
from relay.store.projection import ProjectionBatch
from tests.support import databases
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.postgres import Databases
from tests.support.relay_process import ROOT, RelayProcess
from tests.support.through import ResumingConsumer, Writer, check_whole


@pytest.fixture
def relay(tmp_path: Path, network: tuple[FakePlc, FakePds], database_url: str) -> Iterator[RelayProcess]:
    tool = "sqlite3" if database_url.startswith("sqlite") else "pg_dump"
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    process = RelayProcess(tmp_path, {"RELAY_PLC_HOST": network[0].url, "DATABASE_URL": database_url})
    process.start()
    yield process
    process.close()


def back_up(url: str, folder: Path, **settings: str) -> Path:
    folder.mkdir(exist_ok=True)
    environment = {"DATABASE_URL": url, "BACKUP_DIR": str(folder), **settings}
    return Path(run([ROOT / "systemd" / "relay-backup"], environment).strip())


def restore(url: str, backup: Path) -> None:
    if url.startswith("sqlite://"):
        databases.wipe(url)
        shutil.copy(backup, url.removeprefix("sqlite://"))
    else:
        run(["pg_restore", "--clean", "--if-exists", f"--dbname={url}", backup])


def run(command: list[str | Path], environment: dict[str, str] | None = None) -> str:
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(command, env=path | (environment or {}), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("log_is_lost", [False, True], ids=["beside the log", "onto a new machine"])
def test_a_backup_under_load_is_restored(
    relay: RelayProcess, network: tuple[FakePlc, FakePds], database_url: str, tmp_path: Path, log_is_lost: bool
) -> None:
    writer, consumer = Writer(*network), ResumingConsumer(relay.firehose)
    relay.crawl(network[1].url)
    relay.lift_limits(network[1].hostname)
    writer.write(100)
    relay.wait_until(lambda: len(consumer.events) >= 100)
    relay.wait_until(lambda: relay.metric("relay_projection_lag_events") == 0)
    writing = gevent.spawn(writer.write, 100_000)
    backup = back_up(database_url, tmp_path / "backups")
    writer.sign_up()
    gevent.sleep(1)
    writing.kill()
    relay.wait_until(lambda: relay.metric("relay_events_logged_total", kind="commit") == writer.total)
    newest = int(relay.metric("relay_log_last_seq"))
    assert relay.stop() == 0

    restore(database_url, backup)
    if log_is_lost:
        shutil.rmtree(tmp_path / "persist")
        relay.settings["RELAY_INITIAL_SEQ_NUMBER"] = str(newest + 1_000_000)
    relay.start()
    relay.wait_connected(1)
    before = writer.total
    writer.sign_up()
    writer.write(100)
    if log_is_lost:
        check_after_loss(relay, consumer, writer, newest, before)
    else:
        relay.wait_until(lambda: len(consumer.events) >= writer.total)
        check_whole(consumer, writer)
    newest_revs = {did: revs[-1] for did, revs in writer.written.items()}
    relay.wait_until(lambda: newest_revs == {did: latest_rev(relay, did) for did in newest_revs})
    consumer.stop()


def latest_rev(relay: RelayProcess, did: str) -> str | None:
    rev = relay.xrpc("getLatestCommit", f"did={did}").json.get("rev")
    return rev if isinstance(rev, str) else None


def check_after_loss(relay: RelayProcess, consumer: ResumingConsumer, writer: Writer, newest: int, before: int) -> None:
    """What came after the backup is asked of the hosts again, and nothing has a seq that was used."""
    revs = {rev for revs in writer.written.values() for rev in revs}
    relay.wait_until(lambda: {event.rev for event in consumer.events} == revs)
    assert consumer.infos == ["OutdatedCursor"]
    seqs = [event.seq for event in consumer.events]
    assert seqs == sorted(set(seqs))
    assert all(seq >= newest + 1_000_000 for seq in seqs[before:]), "seqs go on above all that were sent"


# Commits all the time, until it is killed.
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
number = 0
while True:
    connection.execute("INSERT INTO filler VALUES (?)", (bytes(10),))
    number += 1
    if number == 10:
        print("busy", flush=True)
"""


def address(file: Path) -> str:
    """SQLite alone: pg_dump sees one moment by itself."""
    return "://".join(("sqlite", str(file)))


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="sqlite3 is not installed")
def test_a_backup_ends_however_much_is_committed(tmp_path: Path) -> None:
    file = tmp_path / "relay.sqlite"
    database = open_database(address(file), max_connections=1)
    database.write(projection.write, ProjectionBatch(position=4711, replay_from=1))

    def fill(tx: Transaction) -> None:
        tx.execute("CREATE TABLE filler (data blob)")
        tx.many("INSERT INTO filler VALUES (?)", [(bytes(50_000),) for _ in range(1000)])

    database.write(fill)
    database.close()
    with subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"busy\n"
        (tmp_path / "textfile").mkdir()
        backup = back_up(address(file), tmp_path / "backups", TEXTFILE_DIR=str(tmp_path / "textfile"))
        writer.kill()
    restored = open_database(address(backup), max_connections=1)
    assert restored.read(projection.position)[0] == 4711
    restored.close()
    told = (tmp_path / "textfile" / "relay-backup.prom").read_text()
    assert re.search(r"^relay_backup_last_success_timestamp_seconds \d{10}$", told, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="sqlite3 is not installed")
def test_paths_may_have_any_characters(tmp_path: Path) -> None:
    file = tmp_path / "100% of #1" / "relay.sqlite"
    database = open_database(address(file), max_connections=1)
    database.write(projection.write, ProjectionBatch(position=4711, replay_from=1))
    database.close()
    folder = tmp_path / "the relay's back ups"
    folder.mkdir()
    for year in (2020, 2021):
        (folder / f"relay-{year}0101T000000Z.sqlite").touch()
    backup = back_up(address(file), folder, BACKUPS_KEPT="2")
    assert sorted(folder.iterdir()) == [folder / "relay-20210101T000000Z.sqlite", backup]
    restored = open_database(address(backup), max_connections=1)
    assert restored.read(projection.position)[0] == 4711
    restored.close()


@pytest.mark.skipif(not shutil.which("pg_dump"), reason="pg_dump is not installed")
def test_every_address_that_the_relay_takes_can_be_backed_up(postgres_cluster: Databases, tmp_path: Path) -> None:
    """libpq refuses parameters of the session, which the relay and indigo take."""
    url = postgres_cluster.create()
    opened = open_database(url, max_connections=1)
    opened.close()
    known = parse_dsn(url)
    listed = "postgres=" + "  ".join(f"{name}={value}" for name, value in known.items())
    more = ("search_path=public", "pool_max_conns=3", "TimeZone=UTC", "application_name=relay")
    quoted = "search_path='public, \"$user\"' application_name='the relay\\'s' options = '-c geqo=off'"
    bare = listed.removeprefix("postgres=").replace("dbname=", "database = ")
    forms = (
        url,
        f"{url}?{'&'.join(more)}",
        f"{url}?search_path=a%2Cb",
        f"{url}?search_path='a',\"b\"",
        url.replace("relay@", "relay:p@s@s@"),
        listed,
        f"{listed} {' '.join(more)}",
        f"postgres={quoted} {bare}",
        f"postgres={bare}  {quoted}",
    )
    for form in forms:
        assert parameters_of(form)["dbname"] == known["dbname"]
        dump = back_up(form, tmp_path / "backups")
        assert "TABLE DATA public host " in run(["pg_restore", "--list", dump]), form
    postgres_cluster.give_back(url)

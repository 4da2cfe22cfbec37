"""A backup that `relay-backup` makes of a running relay's database, and its restore as docs/operations.md says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import subprocess

from tests.support import databases
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
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


def back_up(url: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    environment = {"DATABASE_URL": url, "BACKUP_DIR": str(folder)}
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


@pytest.mark.timeout(120)
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

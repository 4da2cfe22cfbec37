"""The units as systemd itself judges them, and the backup that one of them makes."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from relay.app import DRAIN_SECONDS
from relay.config import Settings

FOLDER = Path(__file__).parents[3] / "systemd"
SERVICES = sorted(FOLDER.glob("*.service"))
TIMERS = sorted(FOLDER.glob("*.timer"))
MAX_EXPOSURE = 2.0

with_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def analyze(*arguments: str | Path) -> str:
    done = subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_all_units_are_there() -> None:
    assert [unit.stem for unit in SERVICES] == ["relay-backup", "relay-pull-hosts", "relay"]
    assert [unit.stem for unit in TIMERS] == ["relay-backup", "relay-pull-hosts"]


@with_systemd
@pytest.mark.parametrize("unit", SERVICES + TIMERS, ids=lambda unit: unit.name)
def test_the_unit_is_well_formed(unit: Path, tmp_path: Path) -> None:
    for source in SERVICES + TIMERS:
        # The commands are not installed here; nothing else is changed.
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", source.read_text(), flags=re.MULTILINE)
        (tmp_path / source.name).write_text(text)
    said = [line for line in analyze("verify", tmp_path / unit.name).splitlines() if "relay" in line]
    assert said == []


@with_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_the_service_is_hardened(unit: Path) -> None:
    report = analyze("security", "--offline=yes", unit)
    match = re.search(rf"Overall exposure level for {unit.name}: ([\d.]+)", report)
    assert match, report
    assert float(match[1]) <= MAX_EXPOSURE


def directives(unit: str) -> dict[str, list[str]]:
    """The words of each directive of a unit."""
    lines = re.findall(r"^(\w+)=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)
    return {name: [word for named, words in lines if named == name for word in words.split()] for name, _ in lines}


def test_the_relay_begins_after_what_it_needs_and_has_time_to_end() -> None:
    relay = directives("relay.service")
    assert {"network-online.target", "time-sync.target", "postgresql.service"} <= set(relay["After"])
    # As systemd.special(7) says: who needs the time does not pull that target in, who sets it does.
    assert relay["Wants"] == ["network-online.target"]
    assert int(relay["TimeoutStopSec"][0]) > DRAIN_SECONDS + 10
    # 3,000 hosts and as many consumers as RELAY_MAX_CONSUMERS lets in, and as many again.
    assert int(relay["LimitNOFILE"][0]) > 2 * (3_000 + Settings().max_consumers)


def test_the_relay_sees_the_files_that_its_metrics_are_read_from() -> None:
    """prometheus_client leaves all of process_* out when /proc/stat is not there."""
    assert not re.search(r"^ProcSubset=", (FOLDER / "relay.service").read_text(), re.MULTILINE)


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="sqlite3 is not installed")
@pytest.mark.parametrize("form", ["sqlite://{}/relay.sqlite", "sqlite={}/relay.sqlite", "sqlite://{}/relay.sqlite?a=b"])
def test_the_backup_of_a_database_in_use_is_whole_and_old_ones_go(tmp_path: Path, form: str) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    for day in (1, 2, 3):
        (backups / f"relay-2020010{day}T000000Z.sqlite").touch()
    with sqlite3.connect(tmp_path / "relay.sqlite") as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE account (did TEXT)")
        database.execute("INSERT INTO account VALUES ('did:plc:aaa')")
        database.commit()
        done = backup(form.format(tmp_path), backups)
    assert done.returncode == 0, done.stderr
    made = Path(done.stdout.strip())
    assert sorted(path.name for path in backups.iterdir()) == ["relay-20200103T000000Z.sqlite", made.name]
    with sqlite3.connect(made) as copy:
        assert copy.execute("SELECT did FROM account").fetchall() == [("did:plc:aaa",)]


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="sqlite3 is not installed")
def test_a_backup_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    kept = tmp_path / "relay-20200101T000000Z.sqlite"
    kept.touch()
    assert backup(f"sqlite://{tmp_path}/missing.sqlite", tmp_path).returncode != 0
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == [kept]


def backup(database_url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"DATABASE_URL": database_url, "BACKUP_DIR": str(folder), "BACKUPS_KEPT": "2"}
    return subprocess.run(
        [FOLDER / "relay-backup"], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )

"""The files that docs/operations.md names exist, and tests/process/follow_operations.py can follow it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from relay.eventlog.segment import VERSION
from tests.process import follow_operations
from tests.process.follow_operations import blocks, script

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_files_exist() -> None:
    named = re.findall(r"`((?:conf|tests)/[\w./-]+)`|/opt/relay/src/((?:conf|systemd)/[\w*.-]+)", DOCS)
    assert named
    for conf, installed in named:
        assert list(ROOT.glob(conf or installed)), conf or installed


def test_every_command_is_in_a_block_that_is_run_or_said_to_be_an_example() -> None:
    prose = re.sub(r"^```.*?^```$", "", DOCS, flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"^(?:    |\t)\S.*", prose, re.MULTILINE), "an indented block is not run"
    assert sum(block.example for block in blocks(DOCS)) < len(blocks(DOCS)) / 4
    with pytest.raises(ValueError, match="line 3"):
        blocks("# Title\n\n```bash\nls\n```\n")


def test_it_can_be_followed() -> None:
    subprocess.run(["bash", "-n"], input=script(DOCS), text=True, check=True, timeout=30)
    for stand_in in (ROOT / "tests" / "process" / "stand_ins").iterdir():
        text = stand_in.read_text(encoding="utf-8")
        if "python3" in text.splitlines()[0]:
            ast.parse(text)
        else:
            subprocess.run(["sh", "-n", stand_in], check=True, timeout=30)


def test_a_check_without_its_block_is_noticed() -> None:
    with pytest.raises(ValueError, match="pg_restore"):
        script(DOCS.replace("pg_restore", "pg_dump"))


def test_a_whole_machine_is_left_alone() -> None:
    if follow_operations.in_chroot():
        pytest.skip("this is a root made by debootstrap")
    done = subprocess.run([sys.executable, follow_operations.__file__], capture_output=True, text=True, timeout=30)
    assert done.returncode == follow_operations.EXIT_SKIPPED
    assert re.fullmatch(r"not followed: .*debootstrap\n", done.stdout)


def test_the_settings_file_is_read_by_no_shell() -> None:
    assert not re.search(r"(?:^|[;&\s])(?:\.|source) \S*relay\.env", DOCS, re.MULTILINE)


def test_the_newest_release_is_told_with_what_it_reads() -> None:
    """The table of docs/operations.md against the code, by the version that is being made."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    version = setup["metadata"]["version"]
    release = re.sub(r"\.dev\d+$", "", version)
    rows = re.findall(r"^\| ([\d.]+) \| (\d+) \| up to (\d+) \|$", DOCS, re.MULTILINE)
    migrations = list((ROOT / "relay" / "store" / "migrations").glob("*.sql"))
    assert rows[-1] == (release, str(VERSION), str(len(migrations)))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(.+)\]", changes, re.MULTILINE)[0]
    assert newest == (version if version == release else "Unreleased")

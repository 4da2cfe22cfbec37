"""What docs/operations.md has an operator type exists, and it can be followed by tests/process/follow_operations.py."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import click
import pytest

from relay.cli import main
from relay.config import setting_lines
from relay.eventlog.segment import VERSION
from tests.process import follow_operations
from tests.process.follow_operations import blocks, script

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def commands() -> Iterator[str]:
    """Every `relay …` in a code span or block."""
    yield from (match[1] for match in re.finditer(r"`relay ([a-z-][^`]*)`", DOCS))
    for block in blocks(DOCS):
        yield from (match[1] for match in re.finditer(r"^relay ([a-z-].*)$", block.text, re.MULTILINE))


@pytest.mark.parametrize("words", sorted(set(commands())))
def test_the_command_exists(words: str) -> None:
    command: click.Command = main
    context = click.Context(command)
    rest = words.split()
    while isinstance(command, click.Group) and not rest[0].startswith("-"):
        found = command.get_command(context, rest.pop(0))
        assert found is not None, words
        command = found
        assert rest or not isinstance(command, click.Group), f"{words}: a group alone does nothing"
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= options


def test_the_settings_exist() -> None:
    known = {name for name, _, _ in setting_lines()}
    assert set(re.findall(r"\b(?:RELAY_[A-Z_]+|DATABASE_URL|MAX_DB_CONNECTIONS)\b", DOCS)) <= known


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

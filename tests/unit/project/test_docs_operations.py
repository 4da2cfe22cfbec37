"""What docs/operations.md has an operator type exists: the relay's commands, its settings, the repository's files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from relay.cli import main
from relay.config import setting_lines

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def commands() -> Iterator[str]:
    """Every `relay …` in a code span or block."""
    yield from (match[1] for match in re.finditer(r"`relay ([a-z][^`]*)`", DOCS))
    yield from (match[1] for match in re.finditer(r"^    relay ([a-z].*)$", DOCS, re.MULTILINE))


@pytest.mark.parametrize("words", sorted(set(commands())))
def test_the_command_exists(words: str) -> None:
    command: click.Command = main
    context = click.Context(command)
    rest = words.split()
    while isinstance(command, click.Group):
        assert rest, f"{words}: a group alone does nothing"
        found = command.get_command(context, rest.pop(0))
        assert found is not None, words
        command = found
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= options


def test_the_settings_exist() -> None:
    known = {name for name, _, _ in setting_lines()}
    assert set(re.findall(r"\b(?:RELAY_[A-Z_]+|DATABASE_URL|MAX_DB_CONNECTIONS)\b", DOCS)) <= known


def test_the_files_exist() -> None:
    named = re.findall(r"`(conf/[\w.-]+)`|/opt/relay/src/((?:conf|systemd)/[\w*.-]+)", DOCS)
    assert named
    for conf, installed in named:
        assert list(ROOT.glob(conf or installed)), conf or installed

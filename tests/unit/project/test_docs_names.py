"""What documents name exists: commands with their options, settings, metrics, files, modules, make targets."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from relay.cli import main
from relay.config import GONE, INDIGO_ONLY, OPTIONS, Settings

ROOT = Path(__file__).parents[3]
# The changelog also names what is gone.
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")} - {ROOT / "CHANGELOG.md"})
ROOMS = {path.name for path in (ROOT / "relay").iterdir() if path.is_dir()}
SETTINGS = {name for item in fields(Settings) for name in item.metadata["names"]} | OPTIONS | INDIGO_ONLY | GONE.keys()
# A variable of the tests, and a folder that a test makes.
ELSEWHERE = {"RELAY_INTEROP_DIR", "tests/e2e/pictures/"}
# Metrics of indigo's, which docs/migrating-from-indigo.md says what takes the place of.
FOREIGN_METRICS = {"relay_connected_inbound", "relay_new_users_discovered"}
# `docs/dash.png` is not of the room of that name.
PICTURES = {"dash.png"}

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def commands(text: str) -> set[str]:
    """Every `relay …` in a code span, or at the begin of a line of a block."""
    fenced = "\n".join(re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL))
    indented = "\n".join(re.findall(r"^ {4,}.*", text, re.MULTILINE))
    spans = re.findall(r"`(?:\.venv/bin/)?relay ([a-z-][^`]*)`", text)
    lines = re.findall(r"^ *(?:\.venv/bin/)?relay ([a-z-].*)$", f"{fenced}\n{indented}", re.MULTILINE)
    return {words.partition("  #")[0].strip() for words in [*spans, *lines]}


def wrong_with(words: str) -> str | None:
    """What the command line does not know of a command, None when it knows all."""
    command: click.Command = main
    context = click.Context(command)
    rest = words.split()
    while isinstance(command, click.Group):
        if not rest or rest[0].startswith("-"):
            return None if command is main else f"{words}: a group alone does nothing"
        found = command.get_command(context, name := rest.pop(0))
        if found is None:
            return f"{words}: no command {name}"
        command = found
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return next((f"{words}: no option {word}" for word in rest if word.startswith("-") and word not in options), None)


def exists(name: str) -> bool:
    return name in ELSEWHERE or (ROOT / name).exists()


@each_document
def test_commands_exist(path: Path) -> None:
    found = commands(path.read_text(encoding="utf-8"))
    assert [wrong for words in sorted(found) if (wrong := wrong_with(words))] == []


def test_a_command_that_is_not_there_is_noticed() -> None:
    assert wrong_with("hosts list --status active") is None
    assert [wrong_with(words) for words in ("hosts", "hosts lists", "log tail --fallow")] == [
        "hosts: a group alone does nothing",
        "hosts lists: no command lists",
        "log tail --fallow: no option --fallow",
    ]
    assert commands("`relay status`\n\n    relay log tail   # the last ten\n") == {"status", "log tail"}


@each_document
def test_settings_and_metrics_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(RELAY_[A-Z_]*[A-Z]|DATABASE_URL|MAX_DB_CONNECTIONS)\b", text))
    assert named - SETTINGS - ELSEWHERE == set()
    metrics = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(relay_[a-z_]+)", text))
    assert {name for name in named - FOREIGN_METRICS if name not in metrics} == set()


@each_document
def test_files_modules_and_targets_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    files = re.findall(r"`((?:relay|tests|conf|docs|systemd|\.ci)/[\w./-]+)", text)
    files += [f"relay/{room}/{name}.py" for room, name in re.findall(r"`([a-z]+)/([a-z_]+)\b", text) if room in ROOMS]
    dotted = re.findall(r"`(?:relay\.)?([a-z]+)\.([a-z_]+)\b", text)
    files += [f"relay/{a}/{b}.py" for a, b in dotted if a in ROOMS and f"{a}.{b}" not in PICTURES]
    assert [name for name in files if not exists(name)] == []
    modules = [name.replace(".", "/") for name in re.findall(r"`python -m (tests(?:\.\w+)+)[ `]", text)]
    assert [name for name in modules if not exists(f"{name}.py") and not exists(f"{name}/__main__.py")] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets

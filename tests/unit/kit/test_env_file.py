from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.kit.env_file import environment_with, read_env_file, take_env_file
from relay.kit.errors import ConfigError


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_text("# a comment\nexport LOG_LEVEL='debug'\nRELAY_HOSTS=a.example,b.example # two\n\n")
    assert read_env_file(path) == {"LOG_LEVEL": "debug", "RELAY_HOSTS": "a.example,b.example"}
    monkeypatch.setenv("LOG_LEVEL", "warn")
    assert environment_with(path)["LOG_LEVEL"] == "warn"
    # As compose files set what nobody gave a value to.
    monkeypatch.setenv("LOG_LEVEL", "")
    assert environment_with(path)["LOG_LEVEL"] == "debug"
    take_env_file(path)
    assert os.environ["LOG_LEVEL"] == "debug"
    take_env_file(None)
    path.write_text("nonsense\n")
    with pytest.raises(ConfigError, match=r"\.env:1"):
        read_env_file(path)
    with pytest.raises(ConfigError):
        read_env_file(tmp_path / "missing")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('"two words" # and why', "two words"),
        ("'a # b'  # c", "a # b"),
        ("plain\t# after a tab", "plain"),
        (" # nothing but a comment", ""),
        ("#secret", "#secret"),
        ("p#q=r", "p#q=r"),
        (r'"say \"x\" for \$5 \\ \n"', r'say "x" for $5 \ \n'),
        (r"'as \"it\" is'", r"as \"it\" is"),
        ('""', ""),
        ("a\x85b", "a\x85b"),
        ("d\u00e9j\u00e0 vu", "d\u00e9j\u00e0 vu"),
    ],
)
def test_quotes_and_comments_are_those_of_a_shell(tmp_path: Path, line: str, value: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"NAME={line}\n", encoding="utf-8")
    assert read_env_file(path) == {"NAME": value}


def test_a_file_from_windows(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"\xef\xbb\xbfRELAY_ADMIN_PASSWORD=secret\r\nexport\tLOG_LEVEL=debug \r\nexporter=export this\r\n")
    assert read_env_file(path) == {"RELAY_ADMIN_PASSWORD": "secret", "LOG_LEVEL": "debug", "exporter": "export this"}


@pytest.mark.parametrize("line", ["=value", "export =value", "NAME=a\0b", "NA\0ME=value"])
def test_what_no_environment_can_hold_is_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"# first\n{line}\n")
    with pytest.raises(ConfigError, match=r"\.env:2: not a NAME=value line"):
        take_env_file(path)


@pytest.mark.parametrize("value", ['"no end', "'no end", '"two" "parts"', '"ends in a backslash\\"'])
def test_a_quote_that_does_not_end_is_told(tmp_path: Path, value: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"# first\nNAME={value}\n")
    with pytest.raises(ConfigError, match=r"\.env:2: .*quote"):
        read_env_file(path)

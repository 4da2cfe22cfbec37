"""Env files: `NAME=value` lines, as systemd and shells read them, beside the environment of the process.

Used by `cli`, the commands and `app`. Must not know of any name.
"""

from __future__ import annotations

import os
from pathlib import Path

from relay.kit.errors import ConfigError


def read_env_file(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of an env file: comments, `export` and matching quotes are taken off.

    Raises ConfigError when the file cannot be read or a line has no `=`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    values = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(f"{path}:{number}: not a NAME=value line")
        values[name.strip()] = _unquoted(value.strip())
    return values


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value.split(" #", 1)[0].rstrip()


def environment_with(env_file: Path | None) -> dict[str, str]:
    """The process environment over what `env_file` says: a variable that is set wins over the file."""
    return {**(read_env_file(env_file) if env_file else {}), **os.environ}


def take_env_file(path: Path | None) -> None:
    """Put what an env file says into the process environment, where variables that are set win. Raises ConfigError."""
    if path is not None:
        for name, value in read_env_file(path).items():
            os.environ.setdefault(name, value)

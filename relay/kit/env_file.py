"""Env files: `NAME=value` lines, as systemd and shells read them, beside the environment of the process.

Used by `cli`, the commands and `app`. Must not know of any name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from relay.kit.errors import ConfigError

_EXPORT = re.compile(r"^export\s+")
# A value in quotes, and what may follow it. Between double quotes a backslash escapes the character after it.
_QUOTED = re.compile(r"""(?:"((?:[^"\\]|\\.)*)"|'([^']*)')(?:\s+#.*)?""")
_ESCAPED = re.compile(r'\\(["\\$`])')
_COMMENT = re.compile(r"\s#.*")


def read_env_file(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of an env file: comments, `export` and matching quotes are taken off.

    Raises ConfigError when the file cannot be read, a line has no `=`, or a quote does not end on its line.
    """
    try:
        # Editors on Windows put a byte order mark first, which is not part of the first name.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    values = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = _EXPORT.sub("", name).strip()
        # Nor could the environment take it.
        if not equals or not name or "\0" in line:
            raise ConfigError(f"{path}:{number}: not a NAME=value line")
        try:
            values[name] = _plain(value)
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: {error}") from None
    return values


def _plain(value: str) -> str:
    """A value without its quotes, and without the comment behind it. Raises ValueError."""
    if not value.lstrip().startswith(("'", '"')):
        return _COMMENT.sub("", value, count=1).strip()
    quoted = _QUOTED.fullmatch(value.strip())
    if quoted is None:
        raise ValueError("a quoted value must end with the same quote, and only a comment may follow it")
    literal = quoted[2]
    return literal if literal is not None else _ESCAPED.sub(r"\1", quoted[1])


def environment_with(env_file: Path | None) -> dict[str, str]:
    """What `env_file` says, under the process environment: a variable that is set there, and not empty, wins."""
    said = read_env_file(env_file) if env_file else {}
    return {**os.environ, **{name: value for name, value in said.items() if not os.environ.get(name)}}


def take_env_file(path: Path | None) -> None:
    """Add what an env file says to the process environment, as `environment_with` does. Raises ConfigError."""
    if path is not None:
        os.environ.update(environment_with(path))

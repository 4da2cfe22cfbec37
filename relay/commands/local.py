"""What the commands share that work on the relay's own database and log, without a running relay.

Standard library and settings only: the relay's rooms are imported by the commands, after the patch for gevent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click

from relay.commands.client import EXIT_REFUSED, EXIT_USAGE, fail
from relay.config import Settings, environment_with
from relay.kit.errors import ConfigError, RelayError


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--env-file` and the settings as its first argument."""

    @click.option("--env-file", type=click.Path(path_type=Path), help="NAME=value lines; variables that are set win.")
    @wraps(function)
    def command(*args: Any, env_file: Path | None, **rest: Any) -> None:
        try:
            settings = Settings.from_environment(environment_with(env_file))
        except ConfigError as error:
            fail(EXIT_USAGE, str(error))
        with errors_told():
            function(settings, *args, **rest)

    return command


@contextmanager
def errors_told() -> Iterator[None]:
    """End the command with one line and an exit code when the relay's own errors, or the disk's, come up."""
    try:
        yield
    except (RelayError, OSError) as error:
        fail(EXIT_REFUSED, str(error))

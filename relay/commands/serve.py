"""`relay serve`: the relay itself.

Patches for gevent before it imports the application. What a setting means is `relay.config`'s.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from relay.commands.client import EXIT_USAGE, fail
from relay.commands.indigo_options import IGNORED, ROOT, SERVE, SWITCHES, indigo_options
from relay.config import setting_lines
from relay.kit.errors import ConfigError


class ServeCommand(click.Command):
    """A command whose help lists every setting."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The settings with their defaults."""
        with formatter.section("Settings, from the environment or the env file"):
            formatter.write_dl(
                [(name, f"{text} [{default}]" if default else text) for name, default, text in setting_lines()]
            )


@click.command(cls=ServeCommand)
@click.option(
    "--env-file", type=click.Path(path_type=Path), help="File of NAME=value lines; variables that are set win."
)
@indigo_options(ROOT | SERVE, SWITCHES, IGNORED)
def serve(env_file: Path | None) -> None:
    """Run the relay until SIGTERM or SIGINT."""
    from relay.patched import patch

    patch()
    from relay import app

    try:
        code = app.main(env_file)
    except ConfigError as error:
        fail(EXIT_USAGE, str(error))
    sys.exit(code)

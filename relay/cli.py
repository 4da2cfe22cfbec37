"""The `relay` command: `serve`, tools that work on files and tables, and thin clients of the admin API.

Commands live in `relay.commands` and are imported when they are called, so that `--help` and the small ones start at
once and `serve` can patch the standard library before the relay is imported.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

# Name to module, attribute and the line in `--help`.
COMMANDS = {
    "serve": ("serve", "serve", "Run the relay."),
    "status": ("admin", "status", "Show how the running relay is doing."),
    "hosts": ("admin", "hosts", "List, add, disconnect, block and limit hosts."),
    "crawl": ("admin", "crawl", "Open and close crawl requests, limit new hosts."),
    "accounts": ("admin", "accounts", "Show accounts, take them down, restore them."),
    "bans": ("admin", "bans", "List, add and remove domain bans."),
    "consumers": ("admin", "consumers", "List who consumes the firehose."),
    "backfill-collections": (
        "backfill_collections",
        "backfill_collections",
        "Import which accounts have which collections from another relay.",
    ),
    "cluster": ("cluster", "cluster", "Show and change which node of a cluster is active."),
    "log": ("log", "log", "Inspect, verify and follow the event log on disk."),
    "edge": ("edge", "edge", "Make a relay of an edge whose upstream is lost."),
    "pull-hosts": ("tools", "pull_hosts", "Add the hosts that another relay knows."),
    "compare": ("compare", "compare", "Compare what another relay has with what this one has."),
    "conform": ("conform", "conform", "Test any relay against the rules of the protocol."),
    "prime-identities": ("tools", "prime_identities", "Fill the identity table from the PLC directory."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called or asked for its own help."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its own options, and those that indigo's command line has before a command."""
        options: list[click.Parameter] = import_module("relay.commands.indigo_options").root_options()
        return [*super().get_params(ctx), *options]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in the order above."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(import_module(f"relay.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (*_, summary) in COMMANDS.items()])


def show_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    """Print version and revision, and end."""
    if not asked:
        return
    from relay.kit.version import package_version, revision

    click.echo(f"relay {package_version()}, revision {revision()}")
    context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version and the git revision, and exit.",
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    help="File of NAME=value lines, for any command; variables that are set win.",
)
def main(env_file: Path | None) -> None:
    """An AT Protocol relay: one verified firehose of the whole network."""
    if env_file is None:
        return
    from relay.kit.env_file import take_env_file
    from relay.kit.errors import ConfigError

    try:
        take_env_file(env_file)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None

"""`relay pull-hosts` and `prime-identities`: tools that work on the relay's own database, without a running relay.

Standard library and settings only: the relay's rooms are imported after the patch for gevent. What `log` and `edge`
share with them is here as well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click

from relay.commands.client import EXIT_REFUSED, EXIT_USAGE, fail
from relay.commands.indigo_options import PULL_HOSTS, ROOT, indigo_options
from relay.config import Settings
from relay.kit.env_file import take_env_file
from relay.kit.errors import ConfigError, RelayError
from relay.kit.values import parse_http_url


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--env-file` and the settings as its first argument."""

    @click.option(
        "--env-file",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_take_env_file,
        help="File of NAME=value lines; variables that are set win.",
    )
    @wraps(function)
    def command(*args: Any, **rest: Any) -> None:
        try:
            settings = Settings.from_environment(os.environ)
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
    except BrokenPipeError:
        # Whoever reads has enough, and click ends in silence.
        raise
    except (RelayError, OSError) as error:
        fail(EXIT_REFUSED, str(error))


def log_directory(settings: Settings) -> Path:
    """Where the log is; ends the command when nothing is there."""
    if not settings.persist_dir.is_dir():
        fail(EXIT_USAGE, f"there is no log in {settings.persist_dir}: is RELAY_PERSIST_DIR the relay's?")
    return settings.persist_dir


def _take_env_file(_context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    """Before the other options, some of which have a variable of their own."""
    try:
        take_env_file(path)
    except ConfigError as error:
        fail(EXIT_USAGE, str(error))


def checked_url(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """An http(s) address, as a parameter's callback."""
    try:
        return parse_http_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("pull-hosts")
@click.option(
    "--relay",
    "--relay-host",
    "source",
    metavar="URL",
    envvar="RELAY_HOST",
    default="https://bsky.network",
    show_default=True,
    callback=checked_url,
    help="The relay to ask. [RELAY_HOST]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    envvar="RELAY_PULL_HOSTS_BATCH_SIZE",
    default=500,
    show_default=True,
    help="Hosts per page. [RELAY_PULL_HOSTS_BATCH_SIZE]",
)
@click.option(
    "--skip-host-checks",
    type=click.BOOL,
    is_flag=False,
    flag_value="true",
    metavar="[BOOL]",
    help="Do not ask each host for describeServer. [RELAY_SKIP_HOST_CHECKS]",
)
@with_settings
@indigo_options(ROOT | PULL_HOSTS)
def pull_hosts(settings: Settings, source: str, batch_size: int, skip_host_checks: bool | None) -> None:
    """Add the hosts that another relay knows. A running relay connects to them after its next start.

    Each host has to answer describeServer, unless that is skipped. Called again after a stop, it goes on where it was.
    """
    from relay.patched import patch

    patch()
    from relay.hosts.pull_hosts import pull_hosts as pull
    from relay.hosts.pull_hosts import store_host
    from relay.net.http import SERVER, GuardedHttp
    from relay.store.open import open_database

    db = open_database(settings.database_url, max_connections=settings.max_db_connections)
    try:
        taken = pull(
            db,
            GuardedHttp(SERVER, allow_insecure=False),
            source,
            lambda endpoint: store_host(db, settings, endpoint),
            batch=batch_size,
            check=not (settings.skip_host_checks if skip_host_checks is None else skip_host_checks),
            progress=lambda seen, taken: click.echo(f"{seen} hosts seen, {taken} added", err=True),
        )
    finally:
        db.close()
    click.echo(f"{taken} hosts added from {source}")


@click.command("prime-identities")
@with_settings
def prime_identities(settings: Settings) -> None:
    """Fill the identity table from the PLC directory, so that a new relay does not have to ask for each DID.

    Takes hours for the whole network. Stop it when you like: called again, it goes on where it was. May run beside
    the relay.
    """
    from relay.patched import patch

    patch()
    from relay.identity.prime import FIRST_OPERATION, prime
    from relay.net.http import SERVER, GuardedHttp
    from relay.store.open import open_database

    db = open_database(settings.database_url, max_connections=settings.max_db_connections)
    started = time.time()
    try:
        with click.progressbar(length=int(started - FIRST_OPERATION), label="operations", width=0) as bar:

            def show(reached: float, _lines: int) -> None:
                bar.update(int(min(reached, started) - FIRST_OPERATION) - bar.pos)

            lines = prime(db, GuardedHttp(SERVER, allow_insecure=False), settings.plc_hosts[0], show)
    finally:
        db.close()
    click.echo(f"{lines} operations read from {settings.plc_hosts[0]}")

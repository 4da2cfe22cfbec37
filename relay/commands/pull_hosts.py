"""`relay pull-hosts`: adds the hosts that another relay knows to this relay's database."""

from __future__ import annotations

import click

from relay.commands.local import with_settings
from relay.config import Settings


@click.command("pull-hosts")
@with_settings
def command(settings: Settings) -> None:
    """Add the hosts that another relay knows. A running relay connects to them after its next start.

    Asks RELAY_HOST, RELAY_PULL_HOSTS_BATCH_SIZE hosts at a time. Each host has to answer describeServer unless
    RELAY_SKIP_HOST_CHECKS is set. Called again after a stop, it goes on where it was.
    """
    from relay.patched import patch

    patch()
    from relay.hosts.pull_hosts import pull_hosts, store_host
    from relay.net.http import SERVER, GuardedHttp
    from relay.store.database import Database

    db = Database.open(settings.database_url, max_connections=settings.max_db_connections)
    try:
        taken = pull_hosts(
            db,
            GuardedHttp(SERVER, allow_insecure=False),
            settings.pull_hosts_from,
            lambda endpoint: store_host(db, settings, endpoint),
            batch=settings.pull_hosts_batch_size,
            check=not settings.skip_host_checks,
            progress=lambda seen, taken: click.echo(f"{seen} hosts seen, {taken} added", err=True),
        )
    finally:
        db.close()
    click.echo(f"{taken} hosts added from {settings.pull_hosts_from}")

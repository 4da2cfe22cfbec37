"""`relay prime-identities`: fills the identity table from the PLC directory's export."""

from __future__ import annotations

import time

import click

from relay.commands.local import with_settings
from relay.config import Settings


@click.command("prime-identities")
@with_settings
def command(settings: Settings) -> None:
    """Fill the identity table from the PLC directory, so that a new relay need not ask for each DID.

    Takes hours for the whole network. Stop it when you like: called again, it goes on where it was. May run beside
    the relay.
    """
    from relay.patched import patch

    patch()
    from relay.identity.prime import FIRST_OPERATION, prime
    from relay.net.http import SERVER, GuardedHttp
    from relay.store.database import Database

    db = Database.open(settings.database_url, max_connections=settings.max_db_connections)
    started = time.time()
    done = 0
    try:
        with click.progressbar(length=int(started - FIRST_OPERATION), label="operations", width=0) as bar:

            def show(reached: float, _lines: int) -> None:
                nonlocal done
                now_done = int(min(reached, started) - FIRST_OPERATION)
                bar.update(now_done - done)
                done = now_done

            lines = prime(db, GuardedHttp(SERVER, allow_insecure=False), settings.plc_hosts[0], show)
    finally:
        db.close()
    click.echo(f"{lines} operations read from {settings.plc_hosts[0]}")

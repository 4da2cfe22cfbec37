"""`relay edge`: makes a relay of an edge whose upstream relay is lost. On files and tables, with the edge stopped."""

from __future__ import annotations

import click

from relay.commands.tools import log_directory, with_settings
from relay.config import Settings


@click.group("edge")
def edge() -> None:
    """Make a relay of an edge."""


@edge.command("promote")
@click.option(
    "--beyond",
    metavar="SEQ",
    type=click.IntRange(0),
    default=0,
    help="A seq that the lost relay is known to have given out, if this edge may be far behind it.",
)
@with_settings
def promote(settings: Settings, beyond: int) -> None:
    """Turn this edge's log into a relay's, in place of its upstream relay, which is lost for good.

    With the edge stopped. DATABASE_URL is what the relay is to have: the lost relay's database, a backup of it, a new
    one, or the edge's own. Broken off, it is run again. docs/edge.md says what comes before and after.
    """
    from relay.patched import patch

    patch()
    from relay.edge import promote as promotion
    from relay.eventlog import spare
    from relay.eventlog.log import SegmentLog
    from relay.hosts import crawl_checks
    from relay.store.open import open_database

    def first_limit(hostname: str, accounts: int) -> tuple[int, bool]:
        limit = crawl_checks.first_account_limit(settings, hostname, accounts)
        return limit, crawl_checks.is_trusted(settings, hostname)

    def progress(done: int, of: int) -> None:
        click.echo(f"segment {done} of {of}", err=True)

    directory = log_directory(settings)
    spare.give_back(directory)
    db = open_database(settings.database_url, max_connections=2, hold=True)
    try:
        segment_log = SegmentLog(directory)
        try:
            done = promotion.promote(segment_log, db, first_limit, progress, beyond=beyond)
        finally:
            segment_log.close()
    finally:
        db.close()
    click.echo(f"{done.events} events up to seq {done.last_seq}; the next event gets seq {done.next_seq}")
    click.echo(f"{done.new_accounts} accounts that the database did not have, {done.taken_down} taken down")
    if done.ahead:
        click.echo(f"the database is {done.ahead} events ahead of this edge: consumers will not get those")
    if done.hosts:
        click.echo(f"{done.hosts} hosts go on where the lost relay was")
    else:
        click.echo("this edge has not noted its upstream's hosts: add them with `relay pull-hosts`")
    click.echo("start the relay with RELAY_MODE=relay")

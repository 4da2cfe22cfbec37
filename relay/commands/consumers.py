"""`relay consumers`: who consumes the firehose now, through the admin API."""

from __future__ import annotations

import click

from relay.commands.client import Client, with_client
from relay.commands.output import print_json, print_table


@click.command("consumers")
@with_client
def command(client: Client) -> None:
    """Every connected consumer of the firehose."""
    rows = client.get("/admin/consumers/list")
    if client.as_json:
        return print_json(rows)
    columns = ("id", "remote_addr", "user_agent", "cursor", "events_consumed", "connected_at")
    titles = ("ID", "ADDRESS", "USER AGENT", "CURSOR", "EVENTS", "CONNECTED")
    return print_table(titles, [[row[name] for name in columns] for row in rows])

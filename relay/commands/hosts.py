"""`relay hosts`: what an operator does with hosts, through the admin API."""

from __future__ import annotations

import click

from relay.commands.client import EXIT_USAGE, Client, fail, with_client
from relay.commands.output import print_json, print_table


@click.group("hosts")
def command() -> None:
    """List, add, block and limit hosts."""


@command.command("list")
@click.option("--status", help="Only hosts of this status: active, idle, offline, throttled or banned.")
@click.option("--search", default="", help="Only hosts with this in their name.")
@with_client
def list_hosts(client: Client, status: str | None, search: str) -> None:
    """Every host the relay knows."""
    rows = [
        row
        for row in client.get("/admin/pds/list")
        if search in row["Host"] and (status is None or row["Status"] == status)
    ]
    if client.as_json:
        return print_json(rows)
    columns = ("Host", "Status", "HasActiveConnection", "UserCount", "RepoLimit", "Cursor", "EventsSeenSinceStartup")
    titles = ("HOST", "STATUS", "CONNECTED", "ACCOUNTS", "LIMIT", "CURSOR", "EVENTS", "LAST ERROR")
    return print_table(titles, [[*(row[name] for name in columns), row["LastError"]] for row in rows])


@command.command("add")
@click.argument("host")
@with_client
def add(client: Client, host: str) -> None:
    """Subscribe to HOST now, past the checks that only the public has to pass."""
    _done(client, client.post("/admin/pds/requestCrawl", {"hostname": host}), f"{host} is subscribed to")


@command.command("block")
@click.argument("host")
@with_client
def block(client: Client, host: str) -> None:
    """Disconnect HOST and keep it out."""
    _done(client, client.post("/admin/pds/block", host=host), f"{host} is blocked")


@command.command("unblock")
@click.argument("host")
@with_client
def unblock(client: Client, host: str) -> None:
    """Let HOST in again."""
    _done(client, client.post("/admin/pds/unblock", host=host), f"{host} is unblocked")


@command.command("limits")
@click.argument("host")
@click.option("--accounts", "repo_limit", type=click.IntRange(0), help="Accounts it may have.")
@click.option("--per-second", type=click.IntRange(0), help="Events it may send in a second.")
@click.option("--per-hour", type=click.IntRange(0), help="Events it may send in an hour.")
@click.option("--per-day", type=click.IntRange(0), help="Events it may send in a day.")
@click.option(
    "--silence-alerts/--hear-alerts",
    "account_limit_alerts_silenced",
    default=None,
    help="Whether to be alerted when it comes near its account limit.",
)
@with_client
def limits(client: Client, host: str, **limits: int | None) -> None:
    """Change what HOST may send."""
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        fail(EXIT_USAGE, "name at least one limit")
    _done(client, client.post("/admin/pds/changeLimits", {"host": host, **given}), f"the limits of {host} are changed")


def _done(client: Client, answer: object, message: str) -> None:
    if client.as_json:
        print_json(answer)
    else:
        click.echo(message)

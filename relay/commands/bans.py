"""`relay bans`: domains none of whose hosts are crawled, through the admin API."""

from __future__ import annotations

import click

from relay.commands.client import Client, with_client
from relay.commands.output import print_json


@click.group("bans")
def command() -> None:
    """List, add and remove domain bans."""


@command.command("list")
@with_client
def list_bans(client: Client) -> None:
    """Every banned domain."""
    domains = client.get("/admin/subs/listDomainBans")["banned_domains"]
    if client.as_json:
        return print_json(domains)
    for domain in domains:
        click.echo(domain)
    return None


@command.command("add")
@click.argument("domain")
@with_client
def add(client: Client, domain: str) -> None:
    """Ban DOMAIN with all hosts under it."""
    _change(client, "/admin/subs/banDomain", domain, "is banned")


@command.command("remove")
@click.argument("domain")
@with_client
def remove(client: Client, domain: str) -> None:
    """Lift the ban of DOMAIN."""
    _change(client, "/admin/subs/unbanDomain", domain, "is not banned any more")


def _change(client: Client, path: str, domain: str, done: str) -> None:
    answer = client.post(path, {"Domain": domain})
    if client.as_json:
        print_json(answer)
    else:
        click.echo(f"{domain} {done}")

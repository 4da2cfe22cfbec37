"""`relay accounts`: what an operator does with accounts, through the admin API."""

from __future__ import annotations

from typing import Any

import click

from relay.commands.client import Client, with_client
from relay.commands.output import print_fields, print_json


@click.group("accounts")
def command() -> None:
    """Show accounts, take them down, restore them."""


@command.command("show")
@click.argument("did")
@with_client
def show(client: Client, did: str) -> None:
    """The status of DID at this relay, and its newest rev."""
    view = client.get("/xrpc/com.atproto.sync.getRepoStatus", did=did)
    if client.as_json:
        return print_json(view)
    return print_fields([(name, view.get(name)) for name in ("did", "active", "status", "rev")])


@command.command("takedown")
@click.argument("did")
@with_client
def takedown(client: Client, did: str) -> None:
    """Stop the events of DID and hide its past ones."""
    _change(client, "/admin/repo/takeDown", did, "is taken down")


@command.command("restore")
@click.argument("did")
@with_client
def restore(client: Client, did: str) -> None:
    """Undo the takedown of DID."""
    _change(client, "/admin/repo/reverseTakedown", did, "is restored")


@command.command("takedowns")
@with_client
def takedowns(client: Client) -> None:
    """Every account taken down here."""
    dids: list[str] = []
    page: dict[str, Any] = {"cursor": ""}
    while "cursor" in page:
        page = client.get("/admin/repo/takedowns", cursor=page["cursor"])
        dids += page["dids"]
    if client.as_json:
        return print_json(dids)
    for did in dids:
        click.echo(did)
    return None


def _change(client: Client, path: str, did: str, done: str) -> None:
    answer = client.post(path, {"did": did})
    if client.as_json:
        print_json(answer)
    else:
        click.echo(f"{did} {done}")

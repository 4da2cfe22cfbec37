"""`relay cluster`: how a node of a cluster is doing, and letting another be the active one, through the admin API."""

from __future__ import annotations

import click

from relay.commands.client import Client, print_fields, with_client


@click.group("cluster")
def cluster() -> None:
    """Show and change which node of a cluster is the active one."""


@cluster.command("status")
@with_client
def show(client: Client) -> None:
    """Show how this node is doing, and which one is active."""
    found = client.get("/admin/cluster")
    fields = [(name.replace("_", " "), value or None) for name, value in found.items()]
    client.show(found, lambda _: print_fields(fields))


@cluster.command("hand-over")
@with_client
def hand_over(client: Client) -> None:
    """End the term of the active node, which must be this one: it drains, another goes on, and it stands by."""
    client.done(client.post("/admin/cluster/handOver"), "this node drains, and another goes on")

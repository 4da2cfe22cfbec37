"""`relay status`: how the running relay does, in a few lines, through the admin API."""

from __future__ import annotations

from collections import Counter

import click

from relay.commands.client import Client, with_client
from relay.commands.output import print_fields, print_json


@click.command("status")
@with_client
def command(client: Client) -> None:
    """How the running relay does. Exit code 1 when it is not healthy."""
    hosts = client.get("/admin/pds/list")
    view = {
        "health": client.get("/_health")["status"],
        "hosts": len(hosts),
        "connected": sum(host["HasActiveConnection"] for host in hosts),
        "by_status": dict(Counter(host["Status"] for host in hosts)),
        "accounts": sum(host["UserCount"] for host in hosts),
        "consumers": len(client.get("/admin/consumers/list")),
        "crawl_enabled": client.get("/admin/subs/getEnabled")["enabled"],
        "new_hosts_per_day": client.get("/admin/subs/perDayLimit")["limit"],
    }
    if client.as_json:
        return print_json(view)
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(view["by_status"].items()))
    fields = [(name.replace("_", " "), value) for name, value in view.items() if name != "by_status"]
    return print_fields([*fields, ("hosts by status", statuses or None)])

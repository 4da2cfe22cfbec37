"""`relay status`, `hosts`, `crawl`, `accounts`, `bans` and `consumers`: what an operator does, through the admin API.

Each asks a running relay and shows the answer. Must not know how the relay does what it is asked.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any
from urllib.parse import quote

import click

from relay.commands.client import EXIT_USAGE, Client, fail, plain, print_fields, print_table, with_client
from relay.commands.heal import heal
from relay.hosts.lifecycle import Status

STATUSES = tuple(status.value for status in Status)


@click.command("status")
@with_client
def status(client: Client) -> None:
    """Show how the running relay is doing. Exit code 1 when it is not healthy."""
    found = client.get("/admin/pds/list")
    view = {
        "health": client.get("/_health")["status"],
        "hosts": len(found),
        "connected": sum(host["HasActiveConnection"] for host in found),
        "by_status": dict(Counter(host["Status"] for host in found)),
        "accounts": sum(host["UserCount"] for host in found),
        "consumers": len(client.get("/admin/consumers/list")),
        "crawl_enabled": client.get("/admin/subs/getEnabled")["enabled"],
        "new_hosts_per_day": client.get("/admin/subs/perDayLimit")["limit"],
    }
    client.show(view, _print_status)


def _print_status(view: dict[str, Any]) -> None:
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(view["by_status"].items()))
    fields = [(name.replace("_", " "), value) for name, value in view.items() if name != "by_status"]
    print_fields([*fields, ("hosts by status", statuses or None)])


@click.group("hosts")
def hosts() -> None:
    """List, add, disconnect, block and limit hosts."""


@hosts.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only hosts of this status.")
@click.option("--search", default="", help="Only hosts with this in their name.")
@with_client
def list_hosts(client: Client, status: str | None, search: str) -> None:
    """Every host the relay knows."""
    rows = [
        row
        for row in client.get("/admin/pds/list")
        if search in row["Host"] and (status is None or row["Status"] == status)
    ]
    columns = {
        "HOST": "Host",
        "STATUS": "Status",
        "CONNECTED": "HasActiveConnection",
        "ACCOUNTS": "UserCount",
        "LIMIT": "RepoLimit",
        "CURSOR": "Cursor",
        "EVENTS": "EventsSeenSinceStartup",
        "LAST ERROR": "LastError",
    }
    client.show(rows, partial(_print_columns, columns))


hosts.add_command(heal)


@hosts.command("add")
@click.argument("host")
@with_client
def add_host(client: Client, host: str) -> None:
    """Subscribe to HOST now, without the checks that requests from the public have to pass."""
    client.done(client.post("/admin/pds/requestCrawl", {"hostname": host}), f"{host} is subscribed to")


@hosts.command("block")
@click.argument("host")
@with_client
def block(client: Client, host: str) -> None:
    """Disconnect HOST and keep it out."""
    client.done(client.post("/admin/pds/block", host=host), f"{host} is blocked")


@hosts.command("unblock")
@click.argument("host")
@with_client
def unblock(client: Client, host: str) -> None:
    """Lift the ban of HOST and connect to it."""
    client.done(client.post("/admin/pds/unblock", host=host), f"{host} is unblocked")


@hosts.command("disconnect")
@click.argument("host")
@with_client
def disconnect(client: Client, host: str) -> None:
    """Disconnect HOST until it asks for a crawl or some hours have passed."""
    client.done(client.post("/admin/subs/killUpstream", host=host), f"{host} is disconnected")


@hosts.command("cursor")
@click.argument("host")
@click.option("--set", "after", metavar="N", type=click.IntRange(0), help="Take its events after its number N.")
@click.option("--oldest", is_flag=True, help="Take all events that it still has.")
@click.option("--live", is_flag=True, help="Take its events from now on.")
@with_client
def cursor(client: Client, host: str, after: int | None, oldest: bool, live: bool) -> None:
    """Show up to which number the events of HOST are settled; with an option, take them again from another one.

    What comes again and is known already is dropped by its rev; what is passed over is missed.
    """
    if (after is not None) + oldest + live > 1:
        fail(EXIT_USAGE, "--set, --oldest and --live cannot be combined")
    position = "oldest" if oldest else "live" if live else after
    if position is not None:
        answer = client.post("/admin/pds/cursor", {"host": host, "cursor": position})
        return client.done(answer, f"the events of {host} are taken again: {position}")
    return client.show(client.get("/admin/pds/cursor", host=host), lambda view: click.echo(view["cursor"]))


@hosts.command("limits")
@click.argument("host")
@click.option("--accounts", "repo_limit", type=click.IntRange(0), help="Accounts it may have.")
@click.option("--per-second", type=click.IntRange(1), help="Events it may send in a second.")
@click.option("--per-hour", type=click.IntRange(1), help="Events it may send in an hour.")
@click.option("--per-day", type=click.IntRange(1), help="Events it may send in a day.")
@click.option("--reset-rates", is_flag=True, help="Derive the rates that are not given from its account limit.")
@click.option(
    "--silence-alerts/--hear-alerts",
    "account_limit_alerts_silenced",
    default=None,
    help="Whether to send an alert when it comes near its account limit.",
)
@with_client
def limits(client: Client, host: str, reset_rates: bool, **limits: int | None) -> None:
    """Change what HOST may send."""
    given: dict[str, int | None] = dict.fromkeys(("per_second", "per_hour", "per_day")) if reset_rates else {}
    given |= {name: value for name, value in limits.items() if value is not None}
    if not given:
        fail(EXIT_USAGE, "name at least one limit")
    client.done(client.post("/admin/pds/changeLimits", {"host": host, **given}), f"the limits of {host} are changed")


@click.group("crawl")
def crawl() -> None:
    """Open and close crawl requests, limit new hosts."""


@crawl.command("status")
@with_client
def crawl_status(client: Client) -> None:
    """Whether the public may request crawls, and how many new hosts a day that may add."""
    view = {
        "enabled": client.get("/admin/subs/getEnabled")["enabled"],
        "new_hosts_per_day": client.get("/admin/subs/perDayLimit")["limit"],
    }
    fields = [("open to the public", view["enabled"]), ("new hosts a day", view["new_hosts_per_day"])]
    client.show(view, lambda _: print_fields(fields))


@crawl.command("open")
@with_client
def open_crawl(client: Client) -> None:
    """Accept crawl requests from the public."""
    client.done(client.post("/admin/subs/setEnabled", enabled="true"), "crawl requests are open to the public")


@crawl.command("close")
@with_client
def close_crawl(client: Client) -> None:
    """Refuse crawl requests from the public."""
    client.done(client.post("/admin/subs/setEnabled", enabled="false"), "crawl requests are closed to the public")


@crawl.command("limit")
@click.argument("hosts", type=click.IntRange(0))
@with_client
def limit_crawl(client: Client, hosts: int) -> None:
    """Let public crawl requests add at most HOSTS new hosts in 24 hours."""
    client.done(client.post("/admin/subs/setPerDayLimit", limit=hosts), f"{hosts} new hosts may be added in 24 hours")


@click.group("accounts")
def accounts() -> None:
    """Show accounts, take them down, restore them."""


@accounts.command("show")
@click.argument("did")
@with_client
def show_account(client: Client, did: str) -> None:
    """The status of DID at this relay, and its newest rev."""
    view = client.get("/xrpc/com.atproto.sync.getRepoStatus", did=did)
    fields = [(name, view.get(name)) for name in ("did", "active", "status", "rev")]
    client.show(view, lambda _: print_fields(fields))


@accounts.command("why")
@click.argument("name", metavar="DID-or-handle")
@with_client
def why_account(client: Client, name: str) -> None:
    """Why the events of an account do or do not arrive: its PDS, its revs here and there, and who can act."""
    client.show(client.get(f"/account/{quote(name, safe=':')}"), _print_why)


def _print_why(view: dict[str, Any]) -> None:
    click.echo(f"{plain(view['summary'])}\n{plain(view['advice'])}\n")
    here, there, host = (view[part] or {} for part in ("here", "there", "host"))
    print_fields(
        [
            ("did", view["did"]),
            ("handle", view["handle"]),
            ("pds", view["pds"]),
            ("cause", view["cause"]),
            ("rev here", here.get("rev")),
            ("rev at the pds", there.get("rev")),
            ("pds connected", host.get("connected")),
            ("last connected", host.get("lastConnected")),
            ("last error", host.get("lastError")),
            *(("rejected", f"{frame['at']} {frame['reason']}: {frame['rule']}") for frame in view["rejected"]),
        ]
    )


@accounts.command("takedown")
@click.argument("did")
@with_client
def takedown(client: Client, did: str) -> None:
    """Stop the events of DID and hide its past ones."""
    client.done(client.post("/admin/repo/takeDown", {"did": did}), f"{did} is taken down")


@accounts.command("restore")
@click.argument("did")
@with_client
def restore(client: Client, did: str) -> None:
    """Undo the takedown of DID."""
    client.done(client.post("/admin/repo/reverseTakedown", {"did": did}), f"{did} is restored")


@accounts.command("takedowns")
@with_client
def takedowns(client: Client) -> None:
    """Every account taken down here."""
    dids: list[str] = []
    page: dict[str, Any] = {"cursor": ""}
    while "cursor" in page:
        page = client.get("/admin/repo/takedowns", cursor=page["cursor"])
        dids += page["dids"]
    client.show(dids, _print_lines)


@click.group("bans")
def bans() -> None:
    """List, add and remove domain bans."""


@bans.command("list")
@with_client
def list_bans(client: Client) -> None:
    """Every banned domain."""
    client.show(client.get("/admin/subs/listDomainBans")["banned_domains"], _print_lines)


@bans.command("add")
@click.argument("domain")
@with_client
def add_ban(client: Client, domain: str) -> None:
    """Ban DOMAIN with all hosts under it."""
    client.done(client.post("/admin/subs/banDomain", {"Domain": domain}), f"{domain} is banned")


@bans.command("remove")
@click.argument("domain")
@with_client
def remove_ban(client: Client, domain: str) -> None:
    """Lift the ban of DOMAIN."""
    client.done(client.post("/admin/subs/unbanDomain", {"Domain": domain}), f"{domain} is no longer banned")


@click.command("consumers")
@with_client
def consumers(client: Client) -> None:
    """Every connected consumer of the firehose."""
    columns = {
        "ID": "id",
        "ADDRESS": "remote_addr",
        "USER AGENT": "user_agent",
        "CURSOR": "cursor",
        "EVENTS": "events_consumed",
        "CONNECTED": "connected_at",
    }
    client.show(client.get("/admin/consumers/list"), partial(_print_columns, columns))


def _print_columns(columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """A table of `rows`; `columns` are the titles, each with the name of its value."""
    print_table([*columns], [[row[name] for name in columns.values()] for row in rows])


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        click.echo(plain(line))

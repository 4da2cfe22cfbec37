"""`relay hosts heal`: has a host's accounts compared with the relay's, through the admin API."""

from __future__ import annotations

import sys
from typing import Any

import click

from relay.commands.client import (
    EXIT_REFUSED,
    EXIT_USAGE,
    Client,
    Progress,
    fail,
    print_fields,
    watch_progress,
    with_client,
)

PATH = "/admin/pds/heal"


@click.command("heal")
@click.argument("host")
@click.option("--status", is_flag=True, help="Only show its progress, or how the last one ended.")
@click.option("--stop", is_flag=True, help="Stop it; what was noted is still fetched.")
@click.option("--background", is_flag=True, help="Do not wait until it ends.")
@with_client
def heal(client: Client, host: str, status: bool, stop: bool, background: bool) -> None:
    """Compare the accounts of HOST with what the relay has, and fetch what is missing.

    The running relay does it: this command may be interrupted, and called again to look on. Exit code 1 when the
    host's list of accounts cannot be fetched.
    """
    if status + stop + background > 1:
        fail(EXIT_USAGE, "--status, --stop and --background cannot be combined")
    if stop:
        client.post(PATH, host=host, stop="true")
    elif not status:
        client.post(PATH, host=host)
    view = _look(client, host)
    if not (status or stop or background):
        view = watch_progress("accounts", view, lambda: _look(client, host), _progress)
    client.show(view, _print)
    if view["state"] == "failed" and not stop:
        sys.exit(EXIT_REFUSED)


def _look(client: Client, host: str) -> dict[str, Any]:
    view: dict[str, Any] = client.get(PATH, host=host)
    return view


def _progress(view: dict[str, Any]) -> Progress:
    # A host may list more accounts than the relay knows of it.
    total = max(view["accounts"], view["listed"])
    return Progress(total, view["listed"], f"{view['differing']} differ", view["state"] not in ("due", "running"))


def _print(view: dict[str, Any]) -> None:
    print_fields(
        [
            ("host", view["host"]),
            ("state", view["state"]),
            ("because of", view["reason"]),
            ("error", view["error"]),
            ("accounts listed", view["listed"]),
            ("of them fetched", view["differing"]),
            ("of them entered", view["unseen"]),
            ("ended", view["ended_at"]),
        ]
    )

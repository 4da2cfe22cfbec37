"""`relay hosts heal`: has a host's accounts compared with the relay's, through the admin API."""

from __future__ import annotations

import sys
from typing import Any

import click

from relay.commands.client import EXIT_REFUSED, Client, print_fields, with_client
from relay.commands.long_work import LongWork, Progress


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
    work = LongWork("/admin/pds/heal", "accounts", _progress, _print)
    view = work.run(client, {"host": host}, status=status, stop=stop, background=background)
    if view["state"] == "failed" and not stop:
        sys.exit(EXIT_REFUSED)


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

"""`relay backfill-collections`: imports another relay's collection index, through the admin API."""

from __future__ import annotations

import sys
from typing import Any

import click

from relay.commands.client import EXIT_REFUSED, Client, print_fields, with_client
from relay.commands.long_work import LongWork, Progress


@click.command("backfill-collections")
@click.argument("source")
@click.option("--collection", "collections", multiple=True, metavar="NSID", help="Only this one; may be repeated.")
@click.option("--status", is_flag=True, help="Only show the progress of the import.")
@click.option("--stop", is_flag=True, help="Stop the import; what it has taken stays.")
@click.option("--background", is_flag=True, help="Do not wait until it ends.")
@with_client
def backfill_collections(
    client: Client, source: str, collections: tuple[str, ...], status: bool, stop: bool, background: bool
) -> None:
    """Import from the relay SOURCE which accounts have records of which collection.

    The running relay does it: this command may be interrupted, and called again to look on. An import that was
    stopped goes on where it was. Exit code 1 when it ends with an error.
    """
    work = LongWork("/admin/backfill-collections", "collections", _progress, _print, {"limit": 1})
    body = {"collections": list(collections)}
    view = work.run(client, {"source": source}, body, status=status, stop=stop, background=background)
    if view["error"] or (view["failed"] and not view["running"]):
        sys.exit(EXIT_REFUSED)


def _progress(view: dict[str, Any]) -> Progress:
    # Collections are added while it runs, as the source lists them.
    words = f"{view['listed']} accounts, {view['taken']} known here  {view['current'] or ''}"
    return Progress(view["collections"], view["done"] + view["failed"], words, not view["running"])


def _print(view: dict[str, Any]) -> None:
    state = "running" if view["running"] else "failed" if view["error"] else "not running"
    left = view["collections"] - view["done"] - view["failed"]
    print_fields(
        [
            ("source", view["source"]),
            ("state", "done" if state == "not running" and not left else state),
            ("error", view["error"]),
            ("collections done", f"{view['done']} of {view['collections']}"),
            ("collections failed", view["failed"]),
            ("accounts listed", view["listed"]),
            ("of which are known here", view["taken"]),
        ]
    )

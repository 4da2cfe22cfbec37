"""`relay log`: looks at the event log on disk, also at that of a running relay. Only `adopt` changes anything."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.commands.client import EXIT_REFUSED, print_json, print_json_line, print_table
from relay.commands.tools import log_directory, with_settings
from relay.config import Settings

if TYPE_CHECKING:
    from relay.eventlog.record import Record

POLL_SECONDS = 0.5


@click.group("log")
def log() -> None:
    """Inspect, verify and follow the event log in RELAY_PERSIST_DIR."""


@log.command("inspect")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@with_settings
def inspect_log(settings: Settings, as_json: bool) -> None:
    """List the segments: which events each one holds, from when to when."""
    from relay.eventlog.inspect import summaries

    rows: list[dict[str, Any]] = [
        {
            "segment": summary.name,
            "first_seq": summary.first_seq,
            "last_seq": summary.last_seq,
            "created": _time(summary.created_us),
            "last_event": _time(summary.last_time_us) if summary.last_seq else None,
            "bytes": summary.bytes,
        }
        for summary in summaries(log_directory(settings))
    ]
    if as_json:
        return print_json(rows)
    titles = ("SEGMENT", "FIRST SEQ", "LAST SEQ", "CREATED", "LAST EVENT", "BYTES")
    return print_table(titles, [list(row.values()) for row in rows])


@log.command("adopt")
@with_settings
def adopt_log(settings: Settings) -> None:
    """Make this log the database's own, in place of another that will never be used again. With the relay stopped.

    For a log and a database that were brought together from different relays, or backups of them. The log's events are
    applied to the database at the next start, as far as it does not have them.
    """
    from relay.patched import patch

    patch()
    from relay.eventlog import identity
    from relay.store import projection
    from relay.store.open import open_database

    directory = log_directory(settings)
    db = open_database(settings.database_url, max_connections=2, hold=True)
    try:
        # A new one: a log that took this one's place meanwhile does not take it again.
        db.write(projection.set_owner, identity.make(directory, identity.load(directory))[0])
    finally:
        db.close()
    click.echo(f"the database now belongs to the log in {settings.persist_dir}")


@log.command("verify")
@with_settings
def verify_log(settings: Settings) -> None:
    """Read every record and compare its checksum. Exit code 1 when anything is damaged or missing."""
    from relay.eventlog.inspect import verify

    sound = True
    for verdict in verify(log_directory(settings)):
        sound = sound and verdict.sound
        click.echo(f"{verdict.name}  {verdict.records} records  {'sound' if verdict.sound else 'NOT SOUND'}")
        if verdict.missing_before:
            click.echo("  segments before this one are missing")
        for damage in verdict.damage:
            what = "out of order" if damage.out_of_order else "damaged"
            click.echo(f"  {what}: {damage.size} bytes at offset {damage.offset}")
        if verdict.torn:
            click.echo(f"  torn end, or a write in progress: {verdict.torn} bytes")
    if not sound:
        sys.exit(EXIT_REFUSED)


@log.command("tail")
@click.option(
    "--after", metavar="SEQ", type=click.IntRange(0), help="Start after this seq [default: the last ten events]."
)
@click.option("--follow", "-f", is_flag=True, help="Keep printing as events are logged.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each event.")
@with_settings
def tail_log(settings: Settings, after: int | None, follow: bool, as_json: bool) -> None:
    """Print the events: seq, time, kind, DID and rev, one per line."""
    from relay.eventlog.inspect import events

    directory = log_directory(settings)
    seq = _ten_before_end(directory) if after is None else after
    while True:
        for record in events(directory, seq):
            seq = record.seq
            view = _event_view(record)
            if as_json:
                print_json_line(view)
            else:
                click.echo("  ".join(str(value) for value in view.values() if value is not None))
        if not follow:
            return
        time.sleep(POLL_SECONDS)


def _ten_before_end(directory: Path) -> int:
    from relay.eventlog.inspect import summaries

    return max((summary.last_seq - 10 for summary in summaries(directory)), default=0)


def _event_view(record: Record) -> dict[str, Any]:
    from relay.atproto import frames
    from relay.atproto.errors import ProtocolError

    view: dict[str, Any] = {"seq": record.seq, "time": _time(record.time_us), "kind": "?", "did": None, "rev": None}
    try:
        event = frames.decode(record.frame)
    except ProtocolError as error:
        return view | {"problem": str(error)}
    if isinstance(event, frames.Event):
        view |= {"kind": event.kind.name.lower(), "did": event.did, "rev": getattr(event, "rev", None)}
    return view


def _time(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

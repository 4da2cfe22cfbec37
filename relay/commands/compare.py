"""`relay compare`: does our relay have what another one has? Follows both firehoses, and prints what is missing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from relay.commands.client import (
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    Client,
    fail,
    print_fields,
    print_table,
    with_client,
)
from relay.commands.tools import checked_url

if TYPE_CHECKING:
    from relay.comparison.comparison import Comparison
    from relay.comparison.matching import Lead, Side
    from relay.comparison.relays import FollowedRelay

SHOWN = 20


@click.command("compare")
@click.argument("other", metavar="URL", callback=checked_url)
@click.option(
    "--minutes", type=click.FloatRange(0.05, 1440), default=10.0, show_default=True, help="How long to follow both."
)
@click.option(
    "--late",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    help="Seconds that an event may be later at one relay than at the other.",
)
@with_client
def compare(client: Client, other: str, minutes: float, late: float) -> None:
    """Follow the firehoses of the relay at URL and of ours, and show what each lacks, why, and which was first.

    Hosts that the other relay lists and ours does not are shown with the command that adds them. Ends with 0 when ours
    has everything that the other one has, 1 when something is missing, and 3 when one of them does not answer.
    """
    from relay.patched import patch

    patch()
    from relay.comparison.comparison import compare as follow_both
    from relay.comparison.relays import FollowedRelay
    from relay.kit.errors import RelayError
    from relay.net.http import SERVER, GuardedHttp

    http = GuardedHttp(SERVER, allow_insecure=True)
    ours, theirs = FollowedRelay(http, client.url, client.credentials), FollowedRelay(http, other, {})
    seconds = minutes * 60
    length = int(seconds + late)
    with click.progressbar(length=length, label="seconds", file=sys.stderr, width=0) as bar:

        def show(passed: float) -> None:
            bar.update(min(int(passed), length) - bar.pos)

        try:
            found = follow_both(ours, theirs, seconds, late=late, progress=show)
        except RelayError as error:
            fail(EXIT_UNREACHABLE, f"one of the relays does not answer: {error}")
    view = _view(found, ours, theirs)
    client.show(view, _print)
    if not found.complete:
        sys.exit(EXIT_REFUSED)


def _view(found: Comparison, ours: FollowedRelay, theirs: FollowedRelay) -> dict[str, Any]:
    matcher = found.matcher
    return {
        "matched": matcher.matched,
        "undecided": matcher.undecided,
        "ours": _side(found, "ours", ours),
        "theirs": _side(found, "theirs", theirs),
    }


def _side(found: Comparison, side: Side, relay: FollowedRelay) -> dict[str, Any]:
    causes = sorted(found.causes[side].items(), key=lambda pair: -pair[1])
    return {
        "events": relay.events,
        "breaks": relay.breaks,
        "unreadable": relay.unreadable,
        "lacks": found.matcher.lacking[side].count,
        "by_kind": dict(found.matcher.lacking[side].by_kind),
        "causes": [{"host": of.host, "kind": of.kind, "reason": of.reason, "events": count} for of, count in causes],
        "as_sync": found.matcher.downgraded[side],
        "first": _lead(found.matcher.leads[side]),
        "hosts_lacking": found.hosts_ours_lacks if side == "ours" else found.hosts_theirs_lacks,
    }


def _lead(lead: Lead) -> dict[str, Any]:
    def milliseconds(share: float) -> float | None:
        found = lead.quantile(share)
        return None if found is None else round(found * 1000, 1)

    return {"events": lead.count, "p50_ms": milliseconds(0.5), "p99_ms": milliseconds(0.99)}


def _print(view: dict[str, Any]) -> None:
    print_table(
        ("RELAY", "EVENTS", "LACKS", "AS #SYNC", "FIRST", "BY P50 MS", "BY P99 MS", "BREAKS", "UNREADABLE"),
        [
            (
                side,
                view[side]["events"],
                view[side]["lacks"],
                view[side]["as_sync"],
                view[side]["first"]["events"],
                view[side]["first"]["p50_ms"],
                view[side]["first"]["p99_ms"],
                view[side]["breaks"],
                view[side]["unreadable"],
            )
            for side in ("ours", "theirs")
        ],
    )
    click.echo("")
    print_fields([("events of both", view["matched"]), ("not decided, for lack of room", view["undecided"])])
    for side in ("ours", "theirs"):
        if causes := view[side]["causes"]:
            click.echo(f"\nWhat {side} lacks, and what our relay says of it:")
            rows = [(cause["events"], cause["kind"], cause["host"], cause["reason"]) for cause in causes[:SHOWN]]
            print_table(("EVENTS", "KIND", "HOST", "REASON"), rows)
    if hosts := view["ours"]["hosts_lacking"]:
        click.echo(f"\n{len(hosts)} hosts of theirs are unknown to ours. To add them:")
        for host in hosts[:SHOWN]:
            click.echo(f"  relay hosts add {host}")
        if len(hosts) > SHOWN:
            click.echo("  and so on: --json has all of them")
    if hosts := view["theirs"]["hosts_lacking"]:
        click.echo(f"\n{len(hosts)} hosts of ours are unknown to theirs.")

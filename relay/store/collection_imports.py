"""How far imports of the collection index have come: a row for each source, and one for each collection of it.

Written by `collections.imports` after each page, in one transaction with the pairs that the page told; read by
`web`. A source is its base URL. Must not know how pages are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relay.store import collections
from relay.store.database import Row, Transaction

# Names that an import takes from its source and its caller: many times what the network has, and a bound.
MAX_COLLECTIONS = 10_000


class Step(NamedTuple):
    """The collection that is next, from `cursor` on (empty: from the start); `listed` accounts were seen so far."""

    nsid: str
    cursor: str
    listed: int


class StepMoved(Exception):
    """SQL does not say that the import is at this step."""


class Summary(NamedTuple):
    """An import as a whole. Times are seconds since the epoch; `current` is the collection that is being paged."""

    source: str
    running: bool
    error: str | None
    started_at: float
    ended_at: float | None
    collections: int
    done: int
    failed: int
    listed: int
    taken: int
    current: str | None


class Progress(NamedTuple):
    """One collection: accounts listed by the source, those of them that are known here, and whether it is through."""

    nsid: str
    listed: int
    taken: int
    done: bool
    error: str | None


def begin(tx: Transaction, source: str, nsids: Sequence[str], *, named: bool, now: float) -> None:
    """Start an import, or go on with one: what was given up is tried again from where it stood.

    `named`: `nsids` were asked for by name, so those of them that are through begin anew. Otherwise the source is to
    be asked which others it has, and everything begins anew once everything is through.
    """
    tx.execute(
        "INSERT INTO collection_backfill_source (source, running, discover, started_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (source) DO UPDATE SET running = excluded.running, error = NULL, ended_at = NULL,"
        " discover = collection_backfill_source.discover OR excluded.discover, started_at = excluded.started_at",
        (source, True, not named, now),
    )
    tx.execute(
        "UPDATE collection_backfill SET done = ?, error = NULL WHERE source = ? AND error IS NOT NULL", (False, source)
    )
    anew = "UPDATE collection_backfill SET cursor = '', listed = 0, taken = 0, done = ? WHERE source = ? AND done"
    if named:
        for nsid in nsids:
            tx.execute(f"{anew} AND nsid = ?", (False, source, nsid))
    elif next_step(tx, source) is None:
        tx.execute(anew, (False, source))
    add(tx, source, nsids)


def add(tx: Transaction, source: str, nsids: Sequence[str]) -> None:
    """Have these collections imported too, MAX_COLLECTIONS in all."""
    row = tx.row("SELECT count(*) FROM collection_backfill WHERE source = ?", (source,))
    known: int = row[0] if row else 0
    missing = [(source, nsid) for nsid in sorted(set(nsids))]
    room = missing[: max(0, MAX_COLLECTIONS - known)]
    if room:
        tx.many("INSERT INTO collection_backfill (source, nsid) VALUES (?, ?) ON CONFLICT DO NOTHING", room)


def was_begun(tx: Transaction, source: str, started_at: float) -> bool:
    """Whether the import from `source` was begun at that time, or later."""
    row = tx.row("SELECT started_at FROM collection_backfill_source WHERE source = ?", (source,))
    return row is not None and row[0] >= started_at


def running(tx: Transaction) -> str | None:
    """The source of the import that is under way, or was when the relay stopped."""
    row = tx.row("SELECT source FROM collection_backfill_source WHERE running ORDER BY started_at DESC LIMIT 1")
    return row[0] if row else None


def to_discover(tx: Transaction, source: str) -> bool:
    """Whether the source is still to be asked which collections it has."""
    return tx.row("SELECT 1 FROM collection_backfill_source WHERE source = ? AND discover", (source,)) is not None


def discovered(tx: Transaction, source: str, nsids: Sequence[str]) -> None:
    """The source was asked, and has these."""
    add(tx, source, nsids)
    tx.execute("UPDATE collection_backfill_source SET discover = ? WHERE source = ?", (False, source))


def next_step(tx: Transaction, source: str) -> Step | None:
    """The next collection to page, None when all are through."""
    row = tx.row(
        "SELECT nsid, cursor, listed FROM collection_backfill WHERE source = ? AND NOT done ORDER BY nsid LIMIT 1",
        (source,),
    )
    return Step(*row) if row else None


def take_page(tx: Transaction, source: str, step: Step, dids: Sequence[str], listed: int, cursor: str | None) -> int:
    """Store what the page at `step` told and that it was taken; the accounts of it that are known here.

    `listed` counts the entries of the page, `cursor` leads to the next one; None: the collection is through. Raises
    StepMoved, and stores nothing, when the import is not at `step`: an older database has taken the place of this one.
    """
    taken = collections.add_listed(tx, step.nsid, dids) if dids else 0
    moved_on = tx.execute(
        "UPDATE collection_backfill SET cursor = ?, listed = listed + ?, taken = taken + ?, done = ?"
        " WHERE source = ? AND nsid = ? AND cursor = ? AND listed = ? AND NOT done",
        (cursor or "", listed, taken, cursor is None, source, step.nsid, step.cursor, step.listed),
    )
    if not moved_on:
        raise StepMoved
    return taken


def give_up(tx: Transaction, source: str, nsid: str, error: str, *, anew: bool) -> None:
    """Go on without this collection, until the import is started again: `anew`, or from where it stands."""
    tx.execute(
        "UPDATE collection_backfill SET done = ?, error = ? WHERE source = ? AND nsid = ?", (True, error, source, nsid)
    )
    if anew:
        tx.execute(
            "UPDATE collection_backfill SET cursor = '', listed = 0, taken = 0 WHERE source = ? AND nsid = ?",
            (source, nsid),
        )


def finish(tx: Transaction, source: str, now: float) -> bool:
    """End the import when every collection is through. False when more was asked for meanwhile."""
    if next_step(tx, source) is not None or to_discover(tx, source):
        return False
    end(tx, source, None, now)
    return True


def end(tx: Transaction, source: str, error: str | None, now: float) -> None:
    """End the import, whatever is left of it."""
    tx.execute(
        "UPDATE collection_backfill_source SET running = ?, error = ?, ended_at = ? WHERE source = ? AND running",
        (False, error, now, source),
    )


def summaries(tx: Transaction) -> list[Summary]:
    """Every import that was ever asked for, the newest first."""
    rows = tx.rows(
        "SELECT s.source, s.running, s.error, s.started_at, s.ended_at, count(c.nsid),"
        " coalesce(sum(CASE WHEN c.done AND c.error IS NULL THEN 1 ELSE 0 END), 0), count(c.error),"
        " coalesce(sum(c.listed), 0), coalesce(sum(c.taken), 0), min(CASE WHEN c.done THEN NULL ELSE c.nsid END)"
        " FROM collection_backfill_source s LEFT JOIN collection_backfill c ON c.source = s.source"
        " GROUP BY s.source, s.running, s.error, s.started_at, s.ended_at ORDER BY s.started_at DESC"
    )
    return [_summary(row) for row in rows]


def progress(tx: Transaction, source: str, after: str, limit: int) -> list[Progress]:
    """Up to `limit` collections of an import, above the name `after`, by name."""
    rows = tx.rows(
        "SELECT nsid, listed, taken, done, error FROM collection_backfill WHERE source = ? AND nsid > ?"
        " ORDER BY nsid LIMIT ?",
        (source, after, limit),
    )
    return [Progress(nsid, listed, taken, bool(done), error) for nsid, listed, taken, done, error in rows]


def _summary(row: Row) -> Summary:
    source, is_running, error, started_at, ended_at, count, done, failed, listed, taken, current = row
    return Summary(
        source,
        bool(is_running),
        error,
        started_at,
        ended_at,
        count,
        int(done),
        failed,
        int(listed),
        int(taken),
        current if is_running else None,
    )

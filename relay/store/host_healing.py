"""Hosts whose accounts are compared with the relay's own: which are due, how far each one is, how the last one ended.

Filled by `projection` with the gaps that subscribers met, by `healing` for what does not fit a host's queue, and on an
admin's word; worked off by the healing room, a page and its outcome in one transaction. Must not know how pages are
asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from relay.store.database import Transaction

# Between the end of a comparison and the next one that a gap makes due: a host makes its gaps itself.
PAUSE_SECONDS = 600.0
# A host that just came back sends what it has first.
FIRST_DELAY_SECONDS = 5.0
WEEK_SECONDS = 7 * 86_400.0
# Nothing is put off for longer, accounts included: what is due later was noted by a clock that was wrong, and is due.
LONGEST_WAIT_SECONDS = 86_400.0
# What is due, by `due_bounds`.
DUE = "(due_at <= ? OR due_at > ?)"


class Step(NamedTuple):
    """A comparison that is due: where it goes on (empty: from the start), and what it has seen so far."""

    host_id: int
    reason: str
    cursor: str
    listed: int
    attempts: int


class Progress(NamedTuple):
    """A comparison as people see it. `state` is `due`, `running`, `done` or `failed`; times are since the epoch.

    Of the accounts `listed`, `differing` were noted to be fetched and `unseen` to be entered.
    """

    reason: str
    state: str
    listed: int
    differing: int
    unseen: int
    error: str | None
    noted_at: float
    ended_at: float | None


def note(tx: Transaction, gaps: Mapping[int, str], now: float) -> None:
    """Events of hosts were missed, nobody knows of which accounts: host id -> reason."""
    _make_due(tx, gaps, now + FIRST_DELAY_SECONDS, now, PAUSE_SECONDS)


def begin(tx: Transaction, host_id: int, now: float) -> None:
    """Compare a host now, as an admin wants it. One that is under way goes on."""
    row = tx.row("SELECT 1 FROM heal_host WHERE host_id = ? AND state = 'running'", (host_id,))
    if row is None:
        _make_due(tx, {host_id: "admin"}, now, now, 0.0)


def end(tx: Transaction, host_id: int, error: str | None, now: float) -> bool:
    """The comparison is over, or is not to go on. False when none was due or under way.

    When the host had another gap meanwhile, the next one is due.
    """
    row = tx.row("SELECT again FROM heal_host WHERE host_id = ? AND state IN ('due', 'running')", (host_id,))
    if row is None:
        return False
    tx.execute(
        "UPDATE heal_host SET state = ?, error = ?, ended_at = ?, again = ?, due_at = ? WHERE host_id = ?",
        (
            "due" if row[0] else "done" if error is None else "failed",
            error,
            now,
            False,
            now + PAUSE_SECONDS,
            host_id,
        ),
    )
    if row[0]:
        tx.execute(_FROM_THE_START, (host_id,))
    return True


def due_bounds(now: float) -> tuple[float, float]:
    """The parameters of `DUE`."""
    return now, now + LONGEST_WAIT_SECONDS


def make_weekly_due(tx: Transaction, now: float) -> None:
    """Have every host compared that was not in the last week."""
    rows = tx.rows(
        "SELECT h.id FROM host h LEFT JOIN heal_host c ON c.host_id = h.id WHERE h.status = 'active'"
        " AND h.last_seq >= 0 AND (c.host_id IS NULL OR (c.state IN ('done', 'failed')"
        " AND (c.ended_at < ? OR c.ended_at > ?)))",
        (now - WEEK_SECONDS, now + LONGEST_WAIT_SECONDS),
    )
    _make_due(tx, {host_id: "weekly" for (host_id,) in rows}, now, now, 0.0)


def hosts_due(tx: Transaction, now: float) -> list[int]:
    """The ids of the hosts that are to be compared, those first that have been due the longest."""
    return [
        host_id
        for (host_id,) in tx.rows(
            f"SELECT host_id FROM heal_host WHERE state IN ('due', 'running') AND {DUE} ORDER BY due_at",
            due_bounds(now),
        )
    ]


def take_up(tx: Transaction, host_id: int) -> Step | None:
    """The comparison of a host, under way from here on; None when it is over."""
    fresh = tx.row("SELECT 1 FROM heal_host WHERE host_id = ? AND state = 'due'", (host_id,))
    if fresh is not None:
        tx.execute(_FROM_THE_START, (host_id,))
        tx.execute("UPDATE heal_host SET state = 'running' WHERE host_id = ?", (host_id,))
    row = tx.row(
        "SELECT host_id, reason, cursor, listed, attempts FROM heal_host WHERE host_id = ? AND state = 'running'",
        (host_id,),
    )
    return Step(*row) if row else None


def advance(tx: Transaction, host_id: int, cursor: str, listed: int, differing: int, unseen: int) -> bool:
    """A page was taken, and `cursor` leads to the next one. False when the comparison was ended meanwhile."""
    changed = tx.execute(
        "UPDATE heal_host SET cursor = ?, listed = listed + ?, differing = differing + ?, entered = entered + ?,"
        " attempts = 0 WHERE host_id = ? AND state = 'running'",
        (cursor, listed, differing, unseen, host_id),
    )
    return changed > 0


def postpone(tx: Transaction, host_id: int, due_at: float, *, failed: bool) -> None:
    """Go on at `due_at`; `failed` counts an attempt."""
    tx.execute(
        "UPDATE heal_host SET due_at = ?, attempts = attempts + ? WHERE host_id = ?", (due_at, int(failed), host_id)
    )


def progress(tx: Transaction, host_id: int) -> Progress | None:
    """The comparison that is due or under way, or else the last one; None when there was none."""
    row = tx.row(
        "SELECT reason, state, listed, differing, entered, error, noted_at, ended_at FROM heal_host WHERE host_id = ?",
        (host_id,),
    )
    return Progress(*row) if row else None


_FROM_THE_START = (
    "UPDATE heal_host SET cursor = '', listed = 0, differing = 0, entered = 0, attempts = 0, error = NULL"
    " WHERE host_id = ?"
)


def _make_due(tx: Transaction, gaps: Mapping[int, str], due_at: float, now: float, pause: float) -> None:
    if gaps:
        tx.many(
            "INSERT INTO heal_host (host_id, reason, state, again, cursor, listed, differing, entered, due_at,"
            " attempts, noted_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (host_id) DO UPDATE SET"
            " again = (heal_host.state = 'running'), reason = excluded.reason, noted_at = excluded.noted_at,"
            " due_at = CASE WHEN heal_host.state = 'running' THEN heal_host.due_at"
            # Not put off again and again.
            " WHEN heal_host.state = 'due' AND heal_host.due_at <= excluded.due_at THEN heal_host.due_at"
            f" WHEN heal_host.ended_at + {pause} > excluded.due_at THEN heal_host.ended_at + {pause}"
            " ELSE excluded.due_at END,"
            " state = CASE WHEN heal_host.state = 'running' THEN heal_host.state ELSE excluded.state END",
            [(host_id, reason, "due", False, "", 0, 0, 0, due_at, 0, now) for host_id, reason in sorted(gaps.items())],
        )

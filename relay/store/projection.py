"""Writes what the log says into SQL: accounts, repos, cursors and suppressions, with the position they stand for.

Called by the stream's projector, one batch and one transaction at a time. Writing a batch again changes nothing.
Must not know of records or segments.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from relay.store import accounts
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Transaction


@dataclass(slots=True)
class ProjectionBatch:
    """The newest rows of all that changed since the last batch.

    `accounts` and `repos` are by uid; `cursors` are host id -> upstream seq; `suppressed` is uid -> the log seq below
    which the account's events are hidden. A restart scans the log from `replay_from` and applies it from `position`.
    """

    position: int
    replay_from: int
    accounts: dict[int, AccountRow] = field(default_factory=dict)
    repos: dict[int, RepoRow] = field(default_factory=dict)
    cursors: dict[int, int] = field(default_factory=dict)
    suppressed: dict[int, int] = field(default_factory=dict)
    unsuppressed: set[int] = field(default_factory=set)


def write(tx: Transaction, batch: ProjectionBatch) -> None:
    """Store `batch`; the caller's transaction makes it one.

    An account's own status is stored with a new account only. After that `accounts.set_status` alone may change it:
    a row that waited here while an admin acted must neither lift a takedown nor bring it back.
    """
    stored = _stored(tx, sorted(batch.accounts.keys() | batch.repos.keys()))
    _write_accounts(tx, batch, stored)
    _write_repos(tx, batch, stored)
    if batch.cursors:
        tx.many(
            "UPDATE host SET last_seq = ? WHERE id = ?",
            [(seq, host_id) for host_id, seq in sorted(batch.cursors.items())],
        )
    _write_suppressions(tx, batch)
    tx.execute(
        "INSERT INTO relay_position (id, position, replay_from) VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE"
        " SET position = excluded.position, replay_from = excluded.replay_from"
        " WHERE excluded.position >= relay_position.position",
        (batch.position, batch.replay_from),
    )


def position(tx: Transaction) -> tuple[int, int]:
    """(position, replay_from) of the last batch; (0, 0) when nothing was ever written."""
    row = tx.row("SELECT position, replay_from FROM relay_position")
    return (row[0], row[1]) if row else (0, 0)


def suppressions(tx: Transaction) -> dict[int, int]:
    """uid -> the seq below which its events are hidden, for all accounts that have one."""
    return dict(tx.rows("SELECT uid, before_seq FROM log_suppression"))


def _stored(tx: Transaction, uids: list[int]) -> dict[int, tuple[int, str | None]]:
    """uid -> (host id, rev), for those of `uids` that SQL has."""
    rows = tx.rows_in(
        "SELECT a.uid, a.host_id, r.rev FROM account a LEFT JOIN account_repo r ON r.uid = a.uid WHERE a.uid IN ({})",
        uids,
    )
    return {uid: (host_id, rev) for uid, host_id, rev in rows}


def _write_accounts(tx: Transaction, batch: ProjectionBatch, stored: dict[int, tuple[int, str | None]]) -> None:
    rows = [batch.accounts[uid] for uid in sorted(batch.accounts)]
    new = [row for row in rows if row.uid not in stored]
    known = [row for row in rows if row.uid in stored]
    accounts.insert_many(tx, new)
    if known:
        tx.many(
            "UPDATE account SET host_id = ?, upstream_status = ? WHERE uid = ?",
            [(row.host_id, row.upstream_status, row.uid) for row in known],
        )
    counts = Counter(row.host_id for row in rows)
    counts.subtract(stored[row.uid][0] for row in known)
    moved = [(change, host_id) for host_id, change in sorted(counts.items()) if change]
    if moved:
        tx.many("UPDATE host SET account_count = account_count + ? WHERE id = ?", moved)


def _write_repos(tx: Transaction, batch: ProjectionBatch, stored: dict[int, tuple[int, str | None]]) -> None:
    # Revs are compared here and not in SQL, where the database's collation would order them.
    newer = [
        (uid, repo.rev, str(repo.commit), str(repo.data))
        for uid, repo in sorted(batch.repos.items())
        if repo.rev >= (stored.get(uid, (0, None))[1] or "")
    ]
    if newer:
        tx.many(
            "INSERT INTO account_repo (uid, rev, commit_cid, commit_data_cid) VALUES (?, ?, ?, ?) ON CONFLICT (uid)"
            " DO UPDATE SET rev = excluded.rev, commit_cid = excluded.commit_cid,"
            " commit_data_cid = excluded.commit_data_cid",
            newer,
        )


def _write_suppressions(tx: Transaction, batch: ProjectionBatch) -> None:
    if batch.unsuppressed:
        tx.many("DELETE FROM log_suppression WHERE uid = ?", [(uid,) for uid in sorted(batch.unsuppressed)])
    if batch.suppressed:
        tx.many(
            "INSERT INTO log_suppression (uid, before_seq) VALUES (?, ?) ON CONFLICT (uid)"
            " DO UPDATE SET before_seq = excluded.before_seq",
            sorted(batch.suppressed.items()),
        )

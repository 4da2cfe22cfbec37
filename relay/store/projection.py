"""Writes what the log says into SQL: accounts, repos, cursors and suppressions, with the position they stand for.

Called by the stream's projector, one batch and one transaction at a time. Writing a batch again changes nothing.
Must not know of records or segments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from relay.store import accounts, collections, healing, host_healing
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Transaction

# Where `relay_setting` has the identity of the log.
LOG_KEY = "log"


class PositionMoved(Exception):
    """SQL is not where it was left, but at the position `found`: an older database has taken its place, or another
    relay has written to it. `replay_from` is what stands beside the position.
    """

    def __init__(self, found: int, replay_from: int) -> None:
        super().__init__(f"the database is at {found}")
        self.found = found
        self.replay_from = replay_from


class NotOurs(Exception):
    """The database belongs to another log: another relay has taken it."""


@dataclass(slots=True)
class ProjectionBatch:
    """The newest rows of all that changed since the last batch.

    `accounts` and `repos` are by uid; `cursors` are host id -> upstream seq; `started` is host id -> the log seq after
    which the host's records have its present numbers, for hosts whose numbers started anew; `suppressed` is uid -> the
    log seq below which the account's events are hidden; `collections` is (uid, collection) -> whether the repo has
    records of it, None when that is in doubt; `own_statuses` is uid -> the status of the relay's own that the log gives
    the account; `missed` is (host id, DID) -> why events of the account were dropped, `gaps` is host id -> why some may
    be missing of which nobody knows whose they were; `returned` are uids that were not active at their hosts for a
    while. A restart scans the log from `replay_from`, and applies it from `position`. `log_ids` are the identity of the
    log that it is of, and those of its forerunners; none is not compared. `now` is seconds since the epoch.
    """

    position: int
    replay_from: int
    accounts: dict[int, AccountRow] = field(default_factory=dict)
    repos: dict[int, RepoRow] = field(default_factory=dict)
    cursors: dict[int, int] = field(default_factory=dict)
    started: dict[int, int] = field(default_factory=dict)
    suppressed: dict[int, int] = field(default_factory=dict)
    unsuppressed: set[int] = field(default_factory=set)
    collections: dict[tuple[int, str], bool | None] = field(default_factory=dict)
    own_statuses: dict[int, str] = field(default_factory=dict)
    log_ids: tuple[str, ...] = ()
    missed: dict[tuple[int, str], str] = field(default_factory=dict)
    gaps: dict[int, str] = field(default_factory=dict)
    returned: set[int] = field(default_factory=set)
    now: float = 0.0


def write(tx: Transaction, batch: ProjectionBatch, expected: Collection[int] | None = None) -> None:
    """Store `batch`; the caller's transaction makes it one. Raises PositionMoved, and stores nothing, when SQL is at
    none of the positions `expected`; NotOurs when it is another log's.

    The relay's own status of an account is stored with a new account. After that `own_statuses` alone changes it: a row
    that waited here while an admin acted must neither lift a takedown nor bring it back.
    """
    if batch.log_ids:
        _check_owner(tx, batch.log_ids)
    if expected is not None:
        found, replay_from = position(tx)
        if found not in expected:
            raise PositionMoved(found, replay_from)
    stored = _stored(tx, sorted(batch.accounts.keys() | batch.repos.keys()))
    served_again = _write_accounts(tx, batch, stored)
    accounts.set_statuses(tx, batch.own_statuses)
    behind = dict.fromkeys(_write_repos(tx, batch, stored), "desynchronized")
    # While it was not served, here or at its host, its events were dropped.
    served_again += [uid for uid, status in batch.own_statuses.items() if status == "active"]
    # SQL does not know of all that was so since the last batch.
    served_again += [uid for uid in batch.returned if batch.accounts[uid].upstream_status == "active"]
    behind |= dict.fromkeys(served_again, "released")
    healing.note_by_uid(tx, behind, batch.now)
    healing.note(tx, batch.missed, batch.now)
    host_healing.note(tx, batch.gaps, batch.now)
    if batch.cursors:
        tx.many(
            "WITH new (id, seq) AS (VALUES (?, ?)) UPDATE host SET last_seq = new.seq FROM new WHERE host.id = new.id",
            sorted(batch.cursors.items()),
        )
    if batch.started:
        tx.many(
            "INSERT INTO host_state (host_id, cursor_since) VALUES (?, ?) ON CONFLICT (host_id)"
            " DO UPDATE SET cursor_since = excluded.cursor_since",
            sorted(batch.started.items()),
        )
    _write_suppressions(tx, batch)
    collections.write(tx, batch.collections)
    tx.execute(
        "INSERT INTO relay_position (id, position, replay_from) VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE"
        " SET position = excluded.position, replay_from = excluded.replay_from"
        " WHERE excluded.position >= relay_position.position",
        (batch.position, batch.replay_from),
    )


def returns(before: str, after: str) -> bool:
    """Whether an account is active at its host again, by what that said of it before and says now."""
    return after == "active" != before


def position(tx: Transaction) -> tuple[int, int]:
    """(position, replay_from) of the last batch; (0, 0) when nothing was ever written."""
    row = tx.row("SELECT position, replay_from FROM relay_position")
    return (row[0], row[1]) if row else (0, 0)


def begin_at(tx: Transaction, position: int) -> None:
    """SQL has nothing of the log, of which nothing is left up to `position`; what was hidden is for the log to say."""
    tx.execute("DELETE FROM log_suppression")
    tx.execute("DELETE FROM relay_position")
    tx.execute(
        "INSERT INTO relay_position (id, position, replay_from) VALUES (1, ?, ?)",
        (position, position + 1),
    )


def position_if_any(tx: Transaction) -> int:
    """The position, 0 also in a PostgreSQL database without any table yet."""
    return position(tx)[0] if tx.row("SELECT 1 WHERE to_regclass('relay_position') IS NOT NULL") else 0


def suppressions_if_any(tx: Transaction) -> dict[int, int]:
    """The same of `suppressions`."""
    return suppressions(tx) if tx.row("SELECT 1 WHERE to_regclass('log_suppression') IS NOT NULL") else {}


def owner(tx: Transaction) -> str | None:
    """The identity of the log that the database follows from, None when it never had one."""
    row = tx.row("SELECT value FROM relay_setting WHERE key = ?", (LOG_KEY,))
    return row[0] if row else None


def set_owner(tx: Transaction, log_id: str) -> None:
    """From now on the database follows from the log `log_id`."""
    tx.execute(
        "INSERT INTO relay_setting (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (LOG_KEY, log_id),
    )


def suppressions(tx: Transaction) -> dict[int, int]:
    """uid -> the seq below which its events are hidden, for all accounts that have one."""
    return dict(tx.rows("SELECT uid, before_seq FROM log_suppression"))


def _check_owner(tx: Transaction, log_ids: tuple[str, ...]) -> None:
    found = owner(tx)
    if found is None or found in log_ids[1:]:
        # A state of the database from before it had one, or this one.
        set_owner(tx, log_ids[0])
    elif found != log_ids[0]:
        raise NotOurs


class _Stored(NamedTuple):
    """What SQL has of an account before a batch; `rev` is empty without a repo."""

    host_id: int
    upstream_status: str
    rev: str
    desynchronized: bool


def _stored(tx: Transaction, uids: list[int]) -> dict[int, _Stored]:
    rows = tx.rows_in(
        "SELECT a.uid, a.host_id, a.upstream_status, coalesce(r.rev, ''), d.uid IS NOT NULL FROM account a"
        " LEFT JOIN account_repo r ON r.uid = a.uid LEFT JOIN repo_desynchronized d ON d.uid = a.uid"
        " WHERE a.uid IN ({})",
        uids,
    )
    return {uid: _Stored(*row) for uid, *row in rows}


def _write_accounts(tx: Transaction, batch: ProjectionBatch, stored: dict[int, _Stored]) -> list[int]:
    """The uids of those that are active at their hosts again."""
    rows = [batch.accounts[uid] for uid in sorted(batch.accounts)]
    known = [(row, stored[row.uid]) for row in rows if row.uid in stored]
    accounts.insert_many(tx, [row for row in rows if row.uid not in stored])
    changed = [
        (row.uid, row.host_id, row.upstream_status)
        for row, before in known
        if (row.host_id, row.upstream_status) != (before.host_id, before.upstream_status)
    ]
    if changed:
        tx.many(
            "WITH new (uid, host_id, upstream_status) AS (VALUES (?, ?, ?)) UPDATE account"
            " SET host_id = new.host_id, upstream_status = new.upstream_status FROM new WHERE account.uid = new.uid",
            changed,
        )
    places = Counter(row.host_id for row in rows if accounts.takes_place(row))
    places.subtract(before.host_id for _, before in known if before.upstream_status != accounts.DELETED)
    moved = [(host_id, change) for host_id, change in sorted(places.items()) if change]
    if moved:
        tx.many(
            "WITH new (id, change) AS (VALUES (?, ?)) UPDATE host"
            " SET account_count = coalesce(account_count, 0) + new.change FROM new WHERE host.id = new.id",
            moved,
        )
    return [row.uid for row, before in known if returns(before.upstream_status, row.upstream_status)]


def _write_repos(tx: Transaction, batch: ProjectionBatch, stored: dict[int, _Stored]) -> list[int]:
    """The uids of those of which commits are missing, whenever they were missed.

    A marked account is noted with each of its changes: while it was healed it may have written, moved or been
    inactive, so that what it lacks could not be fetched.
    """
    # Revs are compared here and not in SQL, where the database's collation would order them.
    newer = [repo for uid, repo in sorted(batch.repos.items()) if uid not in stored or repo.rev >= stored[uid].rev]
    if newer:
        tx.many(
            "INSERT INTO account_repo (uid, rev, commit_cid, commit_data_cid) VALUES (?, ?, ?, ?) ON CONFLICT (uid)"
            " DO UPDATE SET rev = excluded.rev, commit_cid = excluded.commit_cid,"
            " commit_data_cid = excluded.commit_data_cid",
            [(repo.uid, repo.rev, str(repo.commit), str(repo.data)) for repo in newer],
        )
    marked = {uid for uid, before in stored.items() if before.desynchronized}
    settled = [(repo.uid,) for repo in newer if not repo.desynchronized and repo.uid in marked]
    missed = [(repo.uid,) for repo in newer if repo.desynchronized and repo.uid not in marked]
    if settled:
        tx.many("DELETE FROM repo_desynchronized WHERE uid = ?", settled)
    if missed:
        tx.many("INSERT INTO repo_desynchronized (uid) VALUES (?)", missed)
    return [uid for (uid,) in missed] + sorted(marked.difference(uid for (uid,) in settled))


def _write_suppressions(tx: Transaction, batch: ProjectionBatch) -> None:
    if batch.unsuppressed:
        tx.many("DELETE FROM log_suppression WHERE uid = ?", [(uid,) for uid in sorted(batch.unsuppressed)])
    if batch.suppressed:
        tx.many(
            "INSERT INTO log_suppression (uid, before_seq) VALUES (?, ?) ON CONFLICT (uid)"
            " DO UPDATE SET before_seq = excluded.before_seq",
            sorted(batch.suppressed.items()),
        )

"""The `account` and `account_repo` tables: who is hosted where, in what status, and at which commit.

Read by `ingest` on a cache miss and by `web` for its lists; written by `projection` alone. Must not know how a status
is announced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from relay.atproto.cid import Cid
from relay.atproto.errors import CidError
from relay.store.database import Row, Transaction

DELETED = "deleted"
# How many accounts are looked at for one page, and at a time.
MAX_SCANNED = 4_000
MAX_STEP = 2_000


@dataclass(slots=True)
class AccountRow:
    """An account: `status` is the relay's own word, `upstream_status` what its host says."""

    uid: int
    did: str
    host_id: int
    status: str
    upstream_status: str


@dataclass(slots=True)
class RepoRow:
    """The newest commit of an account's repo; `data` is the root of its tree.

    `desynchronized`: commits before it were missed, and no `#sync` has settled that yet.
    """

    uid: int
    rev: str
    commit: Cid
    data: Cid
    desynchronized: bool = False


# None where no commit of the account is known.
AccountAndRepo = tuple[AccountRow, RepoRow | None]


def takes_place(row: AccountRow) -> bool:
    """Whether the account counts against its host's limit: one that was deleted there has given its place free."""
    return row.upstream_status != DELETED


class ListedRepo(NamedTuple):
    """An active account with a repo, as `listRepos` shows it; `head` is the commit's CID as text."""

    uid: int
    did: str
    head: str
    rev: str


class RepoPage(NamedTuple):
    """A page of `listRepos`; `next_uid` is where the next one starts, None after the last one."""

    repos: list[ListedRepo]
    next_uid: int | None


_ACCOUNT_AND_REPO = (
    "SELECT a.uid, a.did, a.host_id, a.status, a.upstream_status, r.rev, r.commit_cid, r.commit_data_cid, d.uid"
    " FROM account a LEFT JOIN account_repo r ON r.uid = a.uid LEFT JOIN repo_desynchronized d ON d.uid = a.uid"
)


def many_by_did(tx: Transaction, dids: Sequence[str]) -> dict[str, AccountAndRepo]:
    """Those of `dids` that are known, each with its repo if a commit of it is."""
    found = map(_account_and_repo, tx.rows_in(f"{_ACCOUNT_AND_REPO} WHERE a.did IN ({{}})", dids))
    return {account.did: (account, repo) for account, repo in found}


def max_uid(tx: Transaction) -> int:
    """The highest uid in use, 0 when there is none."""
    row = tx.row("SELECT coalesce(max(uid), 0) FROM account")
    return row[0] if row else 0


def list_repos(tx: Transaction, after_uid: int, limit: int) -> RepoPage:
    """Up to `limit` active accounts with a known repo above `after_uid`, by uid.

    A page may be short, or empty, and yet not be the last: no more than MAX_SCANNED accounts are looked at.
    """
    found: list[ListedRepo] = []
    # Few rows for a page of accounts with a repo, more at a time where it takes a walk to find any.
    scanned, step = 0, limit
    while scanned < MAX_SCANNED:
        # The accounts are cut to a page before the join. Joined first, PostgreSQL may walk both tables side by side,
        # past every inactive account.
        page = tx.rows(
            "SELECT a.uid, a.did, r.commit_cid, r.rev FROM (SELECT uid, did FROM account WHERE uid > ?"
            " AND status = 'active' AND upstream_status = 'active' ORDER BY uid LIMIT ?) a"
            " LEFT JOIN account_repo r ON r.uid = a.uid ORDER BY a.uid",
            (after_uid, step),
        )
        found += (ListedRepo(*row) for row in page if row[3] is not None)
        if len(found) >= limit:
            return RepoPage(found[:limit], found[limit - 1].uid)
        if len(page) < step:
            return RepoPage(found, None)
        after_uid = page[-1][0]
        if page[-1][3] is None:
            # A run of accounts without a repo, whose end is found by key, however long it is.
            following = tx.row("SELECT uid FROM account_repo WHERE uid > ? ORDER BY uid LIMIT 1", (after_uid,))
            if following is None:
                return RepoPage(found, None)
            after_uid = following[0] - 1
        scanned += step
        step = min(4 * step, MAX_STEP, MAX_SCANNED - scanned)
    return RepoPage(found, after_uid)


def takedowns(tx: Transaction, after_uid: int, limit: int) -> list[tuple[int, str]]:
    """(uid, did) of up to `limit` accounts taken down here, above `after_uid`, by uid."""
    return [
        (uid, did)
        for uid, did in tx.rows(
            "SELECT uid, did FROM account WHERE status = 'takendown' AND uid > ? ORDER BY uid LIMIT ?",
            (after_uid, limit),
        )
    ]


def throttled_oldest(tx: Transaction, host_id: int, limit: int) -> list[AccountRow]:
    """The oldest accounts that were over the host's limit, and that the host itself calls active."""
    return [
        AccountRow(*row)
        for row in tx.rows(
            "SELECT uid, did, host_id, status, upstream_status FROM account WHERE host_id = ?"
            " AND status = 'host-throttled' AND upstream_status = 'active' ORDER BY uid LIMIT ?",
            (host_id, limit),
        )
    ]


def places_taken(tx: Transaction, host_id: int) -> tuple[int, int]:
    """How many accounts count against the host's limit, and how many of these are over it."""
    row = tx.row(
        "SELECT coalesce(account_count, 0),"
        " (SELECT count(*) FROM account WHERE host_id = host.id AND status = 'host-throttled'"
        " AND upstream_status <> ?) FROM host WHERE id = ?",
        (DELETED, host_id),
    )
    return (row[0], row[1]) if row else (0, 0)


def set_statuses(tx: Transaction, statuses: Mapping[int, str]) -> None:
    """Give accounts (uid -> status) a status of the relay's own."""
    if statuses:
        tx.many(
            "WITH new (uid, status) AS (VALUES (?, ?)) UPDATE account SET status = new.status FROM new"
            " WHERE account.uid = new.uid",
            sorted(statuses.items()),
        )


def insert_many(tx: Transaction, accounts: Sequence[AccountRow]) -> None:
    """Store new accounts under the uids they have. The hosts' counts are the caller's."""
    if not accounts:
        return
    tx.many(
        "INSERT INTO account (uid, did, host_id, status, upstream_status) VALUES (?, ?, ?, ?, ?)",
        [(row.uid, row.did, row.host_id, row.status, row.upstream_status) for row in accounts],
    )
    if tx.engine == "postgres":
        # PostgreSQL does not see that the uids were given, and indigo, should the operator go back, asks it for the
        # next one. SQLite keeps count by itself.
        tx.row("SELECT setval(pg_get_serial_sequence('account', 'uid'), max(uid)) FROM account")


def free_deleted_places(tx: Transaction) -> None:
    """Take the deleted accounts of every host out of its count, which older relays and the reference relay kept in."""
    tx.execute(
        "UPDATE host SET account_count = coalesce(account_count, 0) - deleted.accounts"
        " FROM (SELECT host_id, count(*) AS accounts FROM account WHERE upstream_status = ? GROUP BY host_id)"
        " AS deleted WHERE host.id = deleted.host_id",
        (DELETED,),
    )


def _account_and_repo(row: Row) -> AccountAndRepo:
    uid, did, host_id, status, upstream_status, rev, commit, data, gap = row
    repo = None
    if rev is not None:
        # indigo stored what a host called its commit, unread. What is not a commit's id tells nothing.
        with suppress(CidError):
            repo = RepoRow(uid, rev, Cid.parse(commit), Cid.parse(data), gap is not None)
    return AccountRow(uid, did, host_id, status, upstream_status), repo

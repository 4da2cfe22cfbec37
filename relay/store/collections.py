"""The collection index: which repos have records of which collection, and what of that is in doubt.

Written by `projection` with everything else that the log says, and by the background check of what a commit did not
tell; read by `web`. Pairs are two integers, since a network has a dozen for each account. Anybody can make up
names and pairs at no cost, so both are bounded: what is over a bound is counted and left out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from relay.kit import metrics
from relay.store.database import Transaction

# In the place of a collection's name: all of the account is in doubt, as after commits that were missed.
ALL = ""
ALL_ID = 0

# (uid, collection) -> whether the repo has records of it; None: its host has to be asked.
Pairs = Mapping[tuple[int, str], bool | None]

# Collections that one account may have here, and names seen for the first time from one host's accounts in a day: some
# times what honest ones do.
MAX_PER_ACCOUNT = 500
MAX_NEW_NAMES = 1_000
DAY_SECONDS = 86_400

# Pairs that one page of the list looks at, and at a time: a run of inactive accounts must not make it slow.
MAX_SCANNED = 4_000
MAX_STEP = 2_000


class Marked(NamedTuple):
    """An account whose host has to be asked about its collections."""

    uid: int
    did: str
    host_id: int


class Page(NamedTuple):
    """(uid, did) of listed accounts; `next_uid` is where the next page starts, None after the last one."""

    repos: list[tuple[int, str]]
    next_uid: int | None


def list_repos(tx: Transaction, nsid: str, after_uid: int, limit: int) -> Page:
    """Up to `limit` active accounts with records of the collection `nsid`, above `after_uid`, by uid.

    A page may be short, or empty, and yet not be the last: no more than MAX_SCANNED accounts are looked at.
    """
    found: list[tuple[int, str]] = []
    row = tx.row("SELECT id FROM collection WHERE nsid = ?", (nsid,))
    if row is None:
        return Page(found, None)
    # Few rows for a page of active accounts, more at a time where it takes a walk to find any.
    scanned, step = 0, limit
    while scanned < MAX_SCANNED:
        # Put so that PostgreSQL goes by key even before it has statistics of a table that grew fast. A join may walk
        # both tables side by side; a collection by itself may be read whole and sorted. So a page of the index as
        # such is taken, and the collections that come next in it left out.
        page = tx.rows(
            "SELECT uid FROM (SELECT collection_id, uid FROM collection_repo WHERE (collection_id, uid) > (?, ?)"
            " ORDER BY collection_id, uid LIMIT ?) p WHERE collection_id = ? ORDER BY uid",
            (row[0], after_uid, step, row[0]),
        )
        active = tx.rows_in(
            "SELECT uid, did FROM account WHERE uid IN ({}) AND status = 'active' AND upstream_status = 'active'",
            [uid for (uid,) in page],
        )
        found += sorted((uid, did) for uid, did in active)
        if len(found) >= limit:
            return Page(found[:limit], found[limit - 1][0])
        if len(page) < step:
            return Page(found, None)
        after_uid = page[-1][0]
        scanned += step
        step = min(4 * step, MAX_STEP, MAX_SCANNED - scanned)
    return Page(found, after_uid)


def names(tx: Transaction) -> list[str]:
    """Every collection of which a record was ever seen."""
    return sorted(nsid for (nsid,) in tx.rows("SELECT nsid FROM collection"))


def write(tx: Transaction, pairs: Pairs) -> None:
    """Store what is known of `pairs`. One that is known for sure is no longer marked for a check."""
    if not pairs:
        return
    ids = _ids_told(tx, pairs)
    keyed = {(ids[name], uid): present for (uid, name), present in pairs.items() if name in ids}
    # The mark goes before the pair comes: `settle`, which may run beside this, goes by the mark.
    uids = sorted({uid for _, uid in keyed})
    marked = tx.rows_in("SELECT uid, collection_id FROM collection_check WHERE uid IN ({})", uids)
    told = [(uid, number) for uid, number in marked if keyed.get((number, uid)) is not None]
    if told:
        tx.many("DELETE FROM collection_check WHERE uid = ? AND collection_id = ?", told)
    gone = sorted(pair for pair, present in keyed.items() if present is False)
    if gone:
        tx.many("DELETE FROM collection_repo WHERE collection_id = ? AND uid = ?", gone)
    _add(tx, [pair for pair, present in keyed.items() if present])
    doubtful = sorted((uid, number) for (number, uid), present in keyed.items() if present is None)
    _mark(tx, doubtful)


def add_listed(tx: Transaction, nsid: str, dids: Sequence[str]) -> int:
    """Store that the accounts `dids` have records of `nsid`; how many of them are known here."""
    rows = tx.rows_in("SELECT uid FROM account WHERE did IN ({})", sorted(set(dids)))
    if rows:
        number = _ids(tx, {nsid})[nsid]
        _add(tx, [(number, uid) for (uid,) in rows])
    return len(rows)


def marked(tx: Transaction, after_uid: int, limit: int) -> list[Marked]:
    """Accounts above `after_uid` that are marked for a check, by uid."""
    rows = tx.rows(
        "SELECT a.uid, a.did, a.host_id FROM (SELECT DISTINCT uid FROM collection_check WHERE uid > ?"
        " ORDER BY uid LIMIT ?) c JOIN account a ON a.uid = c.uid ORDER BY a.uid",
        (after_uid, limit),
    )
    return [Marked(*row) for row in rows]


def spread(tx: Transaction, uid: int) -> list[str]:
    """The collections of `uid` that are marked; when all of the account is, every one that is stored, marked now."""
    whole = tx.row("SELECT 1 FROM collection_check WHERE uid = ? AND collection_id = ?", (uid, ALL_ID))
    if whole:
        stored = tx.rows("SELECT collection_id FROM collection_repo WHERE uid = ?", (uid,))
        _mark(tx, [(uid, number) for (number,) in stored])
    return [
        nsid
        for (nsid,) in tx.rows(
            "SELECT c.nsid FROM collection_check m JOIN collection c ON c.id = m.collection_id WHERE m.uid = ?", (uid,)
        )
    ]


def settle(tx: Transaction, uid: int, listed: Collection[str] | None) -> None:
    """End the checks of `uid`: its host has `listed`, so what was marked and is not among them is gone.

    None: the host does not list the account's collections, and what is stored stays.
    """
    rows = tx.rows(
        "SELECT m.collection_id, c.nsid FROM collection_check m LEFT JOIN collection c ON c.id = m.collection_id"
        " WHERE m.uid = ? ORDER BY m.collection_id",
        (uid,),
    )
    for number, nsid in rows:
        # No row: an event has told meanwhile, and knows better.
        ours = tx.execute("DELETE FROM collection_check WHERE uid = ? AND collection_id = ?", (uid, number))
        if ours and number != ALL_ID and listed is not None and nsid not in listed:
            tx.execute("DELETE FROM collection_repo WHERE collection_id = ? AND uid = ?", (number, uid))
    if listed:
        ids = _ids_told(tx, [(uid, nsid) for nsid in listed])
        _add(tx, [(number, uid) for number in ids.values() if number != ALL_ID])


def _add(tx: Transaction, pairs: list[tuple[int, int]]) -> None:
    """Store (collection, uid) pairs, up to the number that an account may have."""
    by_uid: dict[int, set[int]] = {}
    for number, uid in pairs:
        by_uid.setdefault(uid, set()).add(number)
    most = max(map(len, by_uid.values()), default=0)
    # Hardly any account has so many, and each row that is read costs a wait for the interpreter.
    counts: dict[int, int] = dict(
        tx.rows_in(
            "SELECT uid, count(*) FROM collection_repo WHERE uid IN ({})"
            f" GROUP BY uid HAVING count(*) > {MAX_PER_ACCOUNT - most}",
            sorted(by_uid),
        )
    )
    for uid, numbers in by_uid.items():
        count = counts.get(uid, 0)
        if count + len(numbers) > MAX_PER_ACCOUNT:
            stored = {
                number for (number,) in tx.rows("SELECT collection_id FROM collection_repo WHERE uid = ?", (uid,))
            }
            new = sorted(numbers - stored)
            room = max(MAX_PER_ACCOUNT - count, 0)
            metrics.COLLECTIONS_LEFT_OUT.labels("account").inc(len(new[room:]))
            by_uid[uid] = set(new[:room])
    wanted = sorted((number, uid) for uid, numbers in by_uid.items() for number in numbers)
    if wanted:
        tx.many("INSERT INTO collection_repo (collection_id, uid) VALUES (?, ?) ON CONFLICT DO NOTHING", wanted)


def _mark(tx: Transaction, pairs: list[tuple[int, int]]) -> None:
    if pairs:
        tx.many("INSERT INTO collection_check (uid, collection_id) VALUES (?, ?) ON CONFLICT DO NOTHING", pairs)


def _ids(tx: Transaction, nsids: set[str]) -> dict[str, int]:
    """The numbers of collections; new ones get theirs."""
    found = _known_ids(tx, nsids)
    missing = [(nsid,) for nsid in sorted(nsids - found.keys())]
    if missing:
        tx.many("INSERT INTO collection (nsid) VALUES (?) ON CONFLICT (nsid) DO NOTHING", missing)
        found |= tx.rows_in("SELECT nsid, id FROM collection WHERE nsid IN ({})", [nsid for (nsid,) in missing])
    return found


def _known_ids(tx: Transaction, nsids: set[str]) -> dict[str, int]:
    found: dict[str, int] = dict(
        tx.rows_in("SELECT nsid, id FROM collection WHERE nsid IN ({})", sorted(nsids - {ALL}))
    )
    return found | {ALL: ALL_ID}


def _ids_told(tx: Transaction, told: Iterable[tuple[int, str]]) -> dict[str, int]:
    """The numbers of the collections that accounts (uid, name) are said to have, without the names that are new here
    and more than their host may bring up in a day.
    """
    tellers: dict[str, int] = {}
    for uid, name in told:
        tellers.setdefault(name, uid)
    found = _known_ids(tx, set(tellers))
    new = sorted(tellers.keys() - found.keys())
    if not new:
        return found
    uids = sorted({tellers[name] for name in new})
    hosts: dict[int, int] = dict(tx.rows_in("SELECT uid, host_id FROM account WHERE uid IN ({})", uids))
    day = int(time.time()) // DAY_SECONDS
    rows = tx.rows_in("SELECT host_id, day, names FROM collection_host WHERE host_id IN ({})", sorted(hosts.values()))
    counts = Counter({host_id: names for host_id, counted_on, names in rows if counted_on == day})
    taken: set[str] = set()
    for name in new:
        host_id = hosts.get(tellers[name], 0)
        if counts[host_id] < MAX_NEW_NAMES:
            counts[host_id] += 1
            taken.add(name)
    metrics.COLLECTIONS_LEFT_OUT.labels("host").inc(len(new) - len(taken))
    if not taken:
        return found
    tx.many(
        "INSERT INTO collection_host (host_id, day, names) VALUES (?, ?, ?) ON CONFLICT (host_id)"
        " DO UPDATE SET day = excluded.day, names = excluded.names",
        [(host_id, day, names) for host_id, names in sorted(counts.items())],
    )
    return found | _ids(tx, taken)

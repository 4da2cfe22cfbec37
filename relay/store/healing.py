"""What the relay missed: the accounts to be fetched from their hosts, a bounded queue of them for each host.

Filled by `projection`, in the transaction that moves the host's cursor past what was missed, so that no crash comes
between the two; worked off by the healing room. Must not know how anything is fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from relay.store import host_healing
from relay.store.database import Transaction

# Reasons: that it differs from what its host lists, and that the host lists it and the relay never heard of it.
LISTED = "listed"
UNSEEN = "unseen"
# That the directory does not have it.
NOT_FOUND = "did-not-found"
# Before anybody knew whose the account is, or so its host lists it: it may have moved there.
MAY_HAVE_MOVED = frozenset({LISTED, NOT_FOUND, "account-throttled", "did-unavailable", "wrong-host"})
# Before it is looked at: what was missed may come by itself, as a host's stream catches up.
FIRST_DELAY_SECONDS = 5.0
# For as long the directory is not asked again, and a little.
NOT_FOUND_SECONDS = 180.0
# Accounts of one host, and of all. A host of which more was missed is healed as a whole.
MAX_OF_HOST = 10_000
MAX_BEYOND_LIMIT = 100
MAX_ACCOUNTS = 200_000
# Any fixed number but that of the migrations and of the relay that holds the database.
ADVISORY_LOCK = 0x6865616C


class Missed(NamedTuple):
    """An account that is due. `attempts` failed since it was noted, the last time for the `noted`th time."""

    host_id: int
    did: str
    reason: str
    attempts: int
    noted: int


def of_both(before: str | None, after: str) -> str:
    """The reason that stands for an account which was noted for two: the one that asks for more, else the first."""
    return after if before is None or before == UNSEEN or after in MAY_HAVE_MOVED else before


def note(tx: Transaction, missed: Mapping[tuple[int, str], str], now: float) -> None:
    """Something was missed of accounts: (host id, DID) -> reason. Those past a host's bound make the host due."""
    if not missed:
        return
    if tx.engine == "postgres":
        # Held until the commit, so that what others note meanwhile is counted. SQLite has one writer.
        tx.row("SELECT pg_advisory_xact_lock(?)", (ADVISORY_LOCK,))
    known = _known(tx, missed)
    room, left = _room(tx, {host_id for host_id, _ in missed}), MAX_ACCOUNTS - waiting(tx)
    taken: list[tuple[int, str, str, float, int, int]] = []
    full: dict[int, str] = {}
    for (host_id, did), reason in sorted(missed.items()):
        if (host_id, did) not in known:
            if min(room[host_id], left) <= 0:
                full[host_id] = "queue-full"
                continue
            room[host_id] -= 1
            left -= 1
        reason = of_both(known.get((host_id, did)), reason)
        delay = NOT_FOUND_SECONDS if reason == NOT_FOUND else FIRST_DELAY_SECONDS
        taken.append((host_id, did, reason, now + delay, 0, 1))
    if taken:
        tx.many(
            "INSERT INTO heal_account (host_id, did, reason, due_at, attempts, noted) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (did, host_id) DO UPDATE SET noted = heal_account.noted + 1,"
            " reason = excluded.reason",
            taken,
        )
    host_healing.note(tx, full, now)


def note_by_uid(tx: Transaction, reasons: Mapping[int, str], now: float) -> None:
    """As `note`, of accounts that are stored: uid -> reason."""
    rows = tx.rows_in("SELECT uid, host_id, did FROM account WHERE uid IN ({})", sorted(reasons))
    note(tx, {(host_id, did): reasons[uid] for uid, host_id, did in rows}, now)


def room_of(tx: Transaction, host_id: int) -> int:
    """How many more accounts of the host may be noted."""
    return max(0, min(_room(tx, {host_id})[host_id], MAX_ACCOUNTS - waiting(tx)))


def hosts_due(tx: Transaction, now: float) -> list[int]:
    """The ids of the hosts of which an account is due."""
    rows = tx.rows(f"SELECT DISTINCT host_id FROM heal_account WHERE {host_healing.DUE}", host_healing.due_bounds(now))
    return [host_id for (host_id,) in rows]


def due(tx: Transaction, host_id: int, now: float, limit: int) -> list[Missed]:
    """Up to `limit` accounts of a host that are due, those first that have been so the longest."""
    return [
        Missed(*row)
        for row in tx.rows(
            "SELECT host_id, did, reason, attempts, noted FROM heal_account WHERE host_id = ?"
            f" AND {host_healing.DUE} ORDER BY due_at, did LIMIT ?",
            (host_id, *host_healing.due_bounds(now), limit),
        )
    ]


def settle(tx: Transaction, missed: Missed) -> None:
    """The account has what it lacked, unless more was missed since it was read."""
    tx.execute(
        "DELETE FROM heal_account WHERE host_id = ? AND did = ? AND noted = ?",
        (missed.host_id, missed.did, missed.noted),
    )


def postpone(tx: Transaction, missed: Missed, due_at: float, *, failed: bool) -> None:
    """Look at the account again at `due_at`; `failed` counts an attempt."""
    tx.execute(
        "UPDATE heal_account SET due_at = ?, attempts = attempts + ? WHERE host_id = ? AND did = ?",
        (due_at, int(failed), missed.host_id, missed.did),
    )


def forget_host(tx: Transaction, host_id: int) -> None:
    """Nothing is fetched from this host from now on."""
    tx.execute("DELETE FROM heal_account WHERE host_id = ?", (host_id,))


def waiting(tx: Transaction) -> int:
    """How many accounts are noted."""
    row = tx.row("SELECT count(*) FROM heal_account")
    return row[0] if row else 0


def _known(tx: Transaction, missed: Mapping[tuple[int, str], str]) -> dict[tuple[int, str], str]:
    """Those that are noted of these DIDs, with the reason."""
    dids = sorted({did for _, did in missed})
    return {(host_id, did): reason for host_id, did, reason in tx.rows_in(_OF_DIDS, dids)}


_OF_DIDS = "SELECT host_id, did, reason FROM heal_account WHERE did IN ({})"


def _room(tx: Transaction, host_ids: Collection[int]) -> dict[int, int]:
    """How many more accounts each of these hosts may have, whatever others have."""
    wanted = sorted(host_ids)
    limits = {
        host_id: min(MAX_OF_HOST, limit + MAX_BEYOND_LIMIT)
        for host_id, limit in tx.rows_in("SELECT id, coalesce(account_limit, 0) FROM host WHERE id IN ({})", wanted)
    }
    rows = tx.rows_in("SELECT host_id, count(*) FROM heal_account WHERE host_id IN ({}) GROUP BY host_id", wanted)
    counts: dict[int, int] = dict(rows)
    return {host_id: limits.get(host_id, 0) - counts.get(host_id, 0) for host_id in wanted}

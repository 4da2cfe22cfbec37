"""Facts of the whole installation: settings that are kept by name, whose database this is, where indigo's log ended.

The `relay_setting` table holds what an admin set or a job reached, and must survive a restart; values are text, and
what they mean is the caller's. indigo's `log_file_refs` is read at a takeover and never written.
"""

from __future__ import annotations

from relay.kit.errors import StoreError
from relay.store import projection
from relay.store.database import Transaction

MODE = "mode"


def get(tx: Transaction, key: str) -> str | None:
    """The value of `key`, None when it was never set."""
    row = tx.row("SELECT value FROM relay_setting WHERE key = ?", (key,))
    return row[0] if row else None


def put(tx: Transaction, key: str, value: str) -> None:
    """Set `key`."""
    tx.execute(
        "INSERT INTO relay_setting (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def remove(tx: Transaction, key: str) -> None:
    """Forget `key`."""
    tx.execute("DELETE FROM relay_setting WHERE key = ?", (key,))


def claim(tx: Transaction, mode: str) -> None:
    """Keep the database for `mode`: a relay numbers accounts and events, an edge numbers neither.

    Raises StoreError `store-mode` when the other kind has used it.
    """
    owner = get(tx, MODE) or ("relay" if projection.position(tx)[0] else mode)
    if owner != mode:
        raise StoreError("store-mode", f"this database is that of RELAY_MODE={owner}")
    put(tx, MODE, mode)


def promote(tx: Transaction) -> bool:
    """Make the database a relay's, whatever it was. True when it was a relay's before."""
    was_relay = get(tx, MODE) == "relay" or (get(tx, MODE) is None and projection.position(tx)[0] > 0)
    put(tx, MODE, "relay")
    return was_relay


def indigo_log_files(tx: Transaction) -> list[tuple[str, int]]:
    """(path, first seq) of the files that indigo did not delete; the path is relative to its folder."""
    return [
        (path, first_seq)
        for path, first_seq in tx.rows(
            "SELECT path, seq_start FROM log_file_refs WHERE deleted_at IS NULL"
            " AND path IS NOT NULL AND seq_start IS NOT NULL ORDER BY seq_start"
        )
    ]

"""The `relay_setting` table: what an admin set or a job reached, and must survive a restart, by name.

Used by `upstream` (crawling enabled, new hosts per day), `web` and long jobs that resume. Values are text; what they
mean is the caller's.
"""

from __future__ import annotations

from relay.store.database import Transaction


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

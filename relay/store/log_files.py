"""indigo's `log_file_refs` table: the replay files it wrote. Read at a takeover, never written.

Used by `stream.takeover` alone.
"""

from __future__ import annotations

from relay.store.database import Transaction


def listed(tx: Transaction) -> list[tuple[str, int]]:
    """(path, first seq) of the files that indigo did not delete; the path is relative to its folder."""
    return [
        (path, first_seq)
        for path, first_seq in tx.rows(
            "SELECT path, seq_start FROM log_file_refs WHERE deleted_at IS NULL"
            " AND path IS NOT NULL AND seq_start IS NOT NULL ORDER BY seq_start"
        )
    ]

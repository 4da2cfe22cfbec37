"""Which kind of relay a database belongs to: one that numbers accounts and events, or an edge, which numbers neither.

Asked once at the start by `app` and `edge_app`. Must not know what either does.
"""

from __future__ import annotations

from relay.kit.errors import StoreError
from relay.store import projection, settings
from relay.store.database import Transaction

KEY = "mode"


def claim(tx: Transaction, mode: str) -> None:
    """Keep the database for `mode`. Raises StoreError `store-mode` when the other kind has used it."""
    owner = settings.get(tx, KEY) or ("relay" if projection.position(tx)[0] else mode)
    if owner != mode:
        raise StoreError("store-mode", f"this database is that of RELAY_MODE={owner}")
    settings.put(tx, KEY, mode)

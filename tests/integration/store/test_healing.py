"""The queue of accounts to be healed, on both engines."""

from __future__ import annotations

import gevent
import pytest

from relay.store import healing, hosts
from relay.store.database import Database, Transaction


@pytest.mark.parametrize("bound", ["MAX_OF_HOST", "MAX_ACCOUNTS"])
def test_batches_at_the_same_time_stay_within_the_bounds(
    database: Database, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """Each sees what the others have noted, or it would count the same room as free."""
    monkeypatch.setattr(healing, bound, 5)
    host = database.write(hosts.insert, "pds.example.com", no_ssl=False, account_limit=100, trusted=False)

    def note(tx: Transaction, first: int) -> None:
        missed = {(host.id, f"did:plc:{number:024}"): "gap" for number in range(first, first + 3)}
        healing.note(tx, missed, now=1.0)
        # The rest of a projection, and its commit.
        gevent.sleep(0.2)

    writing = [gevent.spawn(database.write, note, 10 * number) for number in range(4)]
    gevent.joinall(writing, timeout=60, raise_error=True)
    assert database.read(healing.waiting) == 5

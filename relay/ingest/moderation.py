"""What admins decide about accounts: takedown, its reversal, and the release of accounts over a host's limit.

Called by the admin API and by `hosts` when a limit is raised. Each change is stored, then announced on the
firehose by an `#account` event of the relay's own. Must not know of HTTP.
"""

from __future__ import annotations

from datetime import UTC, datetime

from gevent.event import Event as Signal

from relay.atproto.events import HIDING_STATUSES, STATUSES, effective_status
from relay.atproto.frames import Kind, account_frame
from relay.hosts.host import Host
from relay.ingest.accounts import Accounts, AccountState
from relay.kit.errors import LogError
from relay.store import accounts as table
from relay.store.database import Database
from relay.stream.sequencer import Sequencer, Submission
from relay.stream.suppressions import Suppressions

ANNOUNCE_SECONDS = 20.0


class Moderation:
    """Changes of the relay's own account status. Every method returns once the announcement is durable."""

    def __init__(self, db: Database, accounts: Accounts, sequencer: Sequencer, suppressions: Suppressions) -> None:
        self._db = db
        self._accounts = accounts
        self._sequencer = sequencer
        self._suppressions = suppressions

    def takedown(self, did: str) -> None:
        """Stop the account's events and hide its past ones. Raises AccountUnknown, StoreError, LogError."""
        self._announce(self._accounts.set_local_status(did, "takendown"))

    def restore(self, did: str) -> None:
        """Undo a takedown; replay shows the account's past again. Raises AccountUnknown, StoreError, LogError."""
        state = self._accounts.set_local_status(did, "active")
        self._suppressions.lift(state.row.uid)
        self._announce(state)

    def release_throttled(self, host: Host, most: int) -> int:
        """Make up to `most` of the host's throttled accounts active, the oldest first. Returns how many."""
        rows = self._db.read(table.throttled_oldest, host.id, most)
        for row in rows:
            self._announce(self._accounts.set_local_status(row.did, "active"))
        return len(rows)

    def _announce(self, state: AccountState) -> None:
        row = state.row
        active, status = effective_status(row.status, row.upstream_status)
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head, tail = account_frame(row.did, now, active, status)
        durable = Signal()
        self._sequencer.submit(
            Submission(
                kind=Kind.ACCOUNT,
                uid=row.uid,
                host_id=0,
                upstream_seq=0,
                status=STATUSES.index(row.upstream_status),
                head=head,
                tail=tail,
                account=row,
                repo=None,
                hides=status in HIDING_STATUSES,
                finished=durable.set,
            )
        )
        if not durable.wait(ANNOUNCE_SECONDS):
            raise LogError("log-io", "the change is stored, its announcement is not durable yet")

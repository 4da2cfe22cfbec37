"""What admins decide about accounts: takedown, its reversal, and the release of accounts over a host's limit.

Called by `admin`, and by `places`. The log comes first: each change is an `#account` event of the relay's own that
carries the new status, and SQL follows the log, so that no crash leaves the two apart. Must not know of HTTP.
"""

from __future__ import annotations

from gevent.event import Event as Signal

from relay.hosts.host import Host
from relay.ingest.accounts import Accounts, AccountState
from relay.ingest.hosting import Announcement
from relay.kit.errors import AccountUnknown, LogError
from relay.store import accounts as table
from relay.store.database import Database
from relay.stream.projector import Projector
from relay.stream.sequencer import Sequencer

ANNOUNCE_SECONDS = 20.0
# Lists are read from SQL: an admin who asks for one right after a change should find it there.
PROJECTION_SECONDS = 1.0


class _Awaited(Announcement):
    """An announcement that somebody waits for."""

    __slots__ = ("durable",)

    def __init__(self, state: AccountState, own_status: str, *, reveals: bool = False) -> None:
        super().__init__(state, own_status=own_status, reveals=reveals)
        self.durable = Signal()

    def logged(self) -> None:
        """It is in the log."""
        self.durable.set()


class Moderation:
    """Changes of the relay's own account status. Every method returns once the change is durable in the log."""

    def __init__(self, db: Database, accounts: Accounts, sequencer: Sequencer, projector: Projector) -> None:
        self._db = db
        self._accounts = accounts
        self._sequencer = sequencer
        self._projector = projector

    def takedown(self, did: str) -> None:
        """Stop the account's events and hide its past ones. Raises AccountUnknown, StoreError, LogError."""
        self._wait(self._change(self._known(did), "takendown"))

    def restore(self, did: str) -> None:
        """Undo a takedown; replay shows the account's past again. Raises AccountUnknown, StoreError, LogError."""
        self._wait(self._change(self._known(did), "active", reveals=True))

    def release_throttled(self, host: Host, maximum: int) -> int:
        """Make at most `maximum` of the host's throttled accounts active, the oldest first. Returns how many."""
        rows = self._db.read(table.throttled_oldest, host.id, maximum)
        announcements = []
        for state in [self._known(row.did) for row in rows]:
            # Memory is ahead of SQL, and others had their turns since that was asked: an account may have been taken
            # down, or be gone.
            if _is_over_limit(state, host):
                announcements.append(self._change(state, "active"))
        for announcement in announcements:
            self._wait(announcement)
        return len(announcements)

    def _known(self, did: str) -> AccountState:
        state = self._accounts.lookup(did)
        if state is None:
            raise AccountUnknown(did)
        return state

    def _change(self, state: AccountState, own_status: str, *, reveals: bool = False) -> _Awaited:
        before = state.row.status
        # Memory first: what is judged from here on is judged by the new status, and is behind the announcement even
        # where that waits for room.
        self._accounts.set_own_status(state, own_status)
        try:
            announcement = _Awaited(state, own_status, reveals=reveals)
            self._sequencer.submit(announcement)
        except BaseException:
            self._accounts.set_own_status(state, before)
            raise
        return announcement

    def _wait(self, announcement: _Awaited) -> None:
        if not announcement.durable.wait(ANNOUNCE_SECONDS):
            raise LogError(
                "log-io",
                "the change is in force, and becomes durable when the log can be written; should the relay end before"
                " that, it has to be made again",
            )
        self._projector.wait_until_stored(PROJECTION_SECONDS)


def _is_over_limit(state: AccountState, host: Host) -> bool:
    row = state.row
    return (row.host_id, row.status, row.upstream_status) == (host.id, "host-throttled", "active")

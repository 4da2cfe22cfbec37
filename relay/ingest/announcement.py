"""An `#account` event of the relay's own: what it holds an account's status to be, told before what follows.

Made by whatever changes the status (moderation, the gate, a status check), taken by the sequencer. Must not know why.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from relay.atproto.events import HIDING_STATUSES, effective_status, status_code
from relay.atproto.frames import Kind, account_frame
from relay.ingest.accounts import AccountState
from relay.stream.sequencer import Entry


class Announcement(Entry):
    """The status of an account as its state has it, or with `own_status` given to it by this very event.

    `reveals`: its past can be read again. `throttled`: it is active, but not all of its events are passed on now.
    """

    __slots__ = ("state",)

    def __init__(
        self, state: AccountState, *, own_status: str | None = None, reveals: bool = False, throttled: bool = False
    ) -> None:
        super().__init__(Kind.ACCOUNT)
        # Held until it is in the log: nowhere else is it known, so memory must not forget it.
        self.state = state
        row = state.row if own_status is None else replace(state.row, status=own_status)
        active, status = effective_status(row.status, row.upstream_status)
        if active and throttled:
            status = "throttled"
        self.uid = row.uid
        self.status = status_code(row.upstream_status)
        self.head, self.tail = account_frame(row.did, time_now(), active, status)
        self.account = row
        self.own_status = own_status
        self.hides = status in HIDING_STATUSES
        self.reveals = reveals


def time_now() -> str:
    """What an event of the relay's own says of its time."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

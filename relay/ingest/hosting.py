"""Which host an account is on and what that host says of it, and how many of a host's accounts count against its limit.

The gate calls it once a host's authority is established, and only for an account that is new, or on another host; the
status check calls it with a host's answer. Consumers are told about every change of the status that the relay holds,
before the account's next event, by an `#account` event of the relay's own; moderation makes such events as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from relay.atproto.events import HIDING_STATUSES, effective_status, status_code
from relay.atproto.frames import Kind, account_frame
from relay.hosts.host import Host
from relay.hosts.registry import HostRegistry
from relay.ingest.accounts import Accounts, AccountState
from relay.store.accounts import AccountRow, takes_place
from relay.stream.projector import Projector
from relay.stream.sequencer import Entry

# What the account limit alone decides: which of the two it is follows from whether the host has room.
BY_LIMIT = frozenset({"active", "host-throttled"})


class Hosting:
    """Accounts on their hosts. `announce` puts an entry into the log, `place_freed` looks for one that gets a place."""

    def __init__(
        self,
        accounts: Accounts,
        registry: HostRegistry,
        projector: Projector,
        announce: Callable[[Entry], None],
        place_freed: Callable[[Host], None],
    ) -> None:
        self._accounts = accounts
        self._registry = registry
        self._projector = projector
        self._announce = announce
        self._place_freed = place_freed

    def make(self, did: str, host: Host) -> AccountState:
        """A new account of `did` on `host`. Never blocks."""
        state = self._accounts.create(did, host)
        self._projector.note_account(state.row)
        return state

    def move(self, state: AccountState, host: Host) -> None:
        """The account of another host is on `host` now."""
        before = state.row
        place = takes_place(before)
        own_status = self._own_status_at(host, before) if place else None
        former = self._registry.by_id(before.host_id)
        if former is not None:
            former.account_count -= place
        host.account_count += place
        state.set_row(replace(before, host_id=host.id, status=own_status or before.status))
        state.moved = True
        if former is not None and place:
            self._place_freed(former)
        self._projector.note_move(state.row)
        self._tell(state, before, own_status)

    def host_says(self, state: AccountState, status: str) -> str | None:
        """The account's host calls it `status`. Returns the status of the relay's own that follows, if it changes."""
        state.moved = False
        before, host = state.row, self._registry.by_id(state.row.host_id)
        after = replace(before, upstream_status=status)
        own_status = None
        if host is not None:
            if takes_place(after) and not takes_place(before):
                own_status = self._own_status_at(host, before)
            host.account_count += takes_place(after) - takes_place(before)
        state.set_row(after if own_status is None else replace(after, status=own_status))
        waits_again = status == "active" != before.upstream_status and state.row.status == "host-throttled"
        if host is not None and (waits_again or not takes_place(after)):
            self._place_freed(host)
        return own_status

    def heal(self, state: AccountState, status: str) -> None:
        """`status` is what the account's host says without an event of its own, and consumers are told."""
        before = state.row
        own_status = self.host_says(state, status)
        self._projector.note_account(state.row)
        self._tell(state, before, own_status)

    def recover(self, state: AccountState) -> None:
        """The account is in step again, whoever called it desynchronized."""
        before = state.row
        own_status = "active" if before.status == "desynchronized" else None
        host_status = "active" if before.upstream_status == "desynchronized" else before.upstream_status
        state.set_row(replace(before, status=own_status or before.status, upstream_status=host_status))
        self._projector.note_account(state.row)
        self._tell(state, before, own_status)

    def throttle(self, did: str, host: Host) -> bool:
        """Tell consumers that events of an account of `host` are missing. False when there is nothing to tell.

        Raises StoreError when SQL is needed and away.
        """
        state = self._accounts.lookup(did)
        if state is None or state.row.host_id != host.id or not _is_active(state.row):
            return False
        self._announce(Announcement(state, throttled=True))
        return True

    def let_go(self, did: str) -> None:
        """Tell consumers that the account's events are passed on again. Raises StoreError as `throttle`."""
        state = self._accounts.lookup(did)
        if state is not None and _is_active(state.row):
            self._announce(Announcement(state))

    def enter(self, entry: Entry) -> None:
        """Keep what `entry` proves of its account, which consumers have never heard of and are not told about."""
        if entry.repo is not None:
            self._projector.note_repo(entry.repo, entry.collections or {})

    def _own_status_at(self, host: Host, row: AccountRow) -> str | None:
        """The other status that an account gets which comes to `host`: it counts like a new one."""
        status = "active" if host.account_count < host.account_limit else "host-throttled"
        return status if row.status in BY_LIMIT and row.status != status else None

    def _tell(self, state: AccountState, before: AccountRow, own_status: str | None) -> None:
        row = state.row
        seen = effective_status(row.status, row.upstream_status)
        if own_status is not None or seen != effective_status(before.status, before.upstream_status):
            self._announce(Announcement(state, own_status=own_status))


def _is_active(row: AccountRow) -> bool:
    active, _ = effective_status(row.status, row.upstream_status)
    return active


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

"""What the fleet holds of one host, connected or not: its row, its status now, its limits, what it was last seen doing.

Made by the roster; the subscriber notes here what it sees. Times are Unix seconds. Must not know of sockets or of how
any of this is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.limits import Limiter, Rates, rates_for
from relay.store.hosts import HostRow


@dataclass(slots=True, eq=False)
class Upstream:
    """One known host. `row.status` is the status that SQL has, `status` the one in force."""

    host: Host
    row: HostRow
    status: Status
    limiter: Limiter = field(default_factory=Limiter)
    changed: bool = False
    connected_at: float | None = None
    live_restart: bool = False
    events_seen: int = 0
    last_event_time: str | None = None
    last_throttled_at: float | None = None

    @property
    def id(self) -> int:
        """The host's row id."""
        return self.host.id

    @property
    def hostname(self) -> str:
        """The host's normalised name."""
        return self.host.hostname

    @property
    def rates(self) -> Rates:
        """The limits in force now: read for each message, so that an admin's change applies to a live connection."""
        formula = rates_for(self.host.account_limit, self.host.trusted)
        row = self.row
        return Rates(row.per_second or formula.second, row.per_hour or formula.hour, row.per_day or formula.day)

    def note_event(self, stated_time: str, now: float) -> None:
        """An event came; `stated_time` is what it says of itself, kept as it is and only read when somebody asks."""
        self.events_seen += 1
        self.row.last_event_at = now
        self.last_event_time = stated_time

    def note_throttled(self, tier: str, now: float) -> None:
        """The host waits. Reaching the limit of a second is ordinary; only the slower ones say something of a host."""
        if tier != "second":
            self.last_throttled_at = now

    def note_error(self, words: str, now: float) -> None:
        """An attempt failed or a connection ended, and why."""
        self.row.last_error = words
        self.row.last_error_at = now
        self.changed = True

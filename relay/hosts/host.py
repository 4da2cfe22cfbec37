"""An upstream host as the event path sees it: who it is, its account limit, and how much it has in flight.

`upstream.fleet` makes one Host per known host and keeps it for good, connected or not; the gate reads it, the
admin API changes its limits. Must not know of connections, states or SQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from gevent.event import Event as Signal

from relay.atproto.hostname import Endpoint
from relay.stream.cursors import HostCursor

MAX_EVENTS_IN_FLIGHT = 1024
MAX_BYTES_IN_FLIGHT = 16 << 20


class Budget:
    """What one host may have between its socket and the log: queued, parked and not yet durable events.

    The bound is what makes a host whose events wait (for an identity, say) wait alone: its subscriber blocks in
    `wait_for_room`, TCP pushes back on the host, and the partitions stay free for everyone else.
    """

    __slots__ = ("_room", "bytes", "events", "parked")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.parked = 0
        self._room: Signal | None = None

    @property
    def full(self) -> bool:
        """True when nothing more may be taken from the host now."""
        return self.events >= MAX_EVENTS_IN_FLIGHT or self.bytes >= MAX_BYTES_IN_FLIGHT

    def take(self, size: int) -> None:
        """Count one event of `size` bytes as in flight."""
        self.events += 1
        self.bytes += size

    def release(self, size: int) -> None:
        """The event of `size` bytes is durable or rejected: give its room back."""
        self.events -= 1
        self.bytes -= size
        if self._room is not None and not self.full:
            self._room.set()
            self._room = None

    def wait_for_room(self, timeout: float) -> bool:
        """Block until there is room, for `timeout` seconds at most. True when there is."""
        if self.full:
            # The signal exists only while somebody waits: thousands of hosts never need one.
            self._room = self._room or Signal()
            self._room.wait(timeout)
        return not self.full


@dataclass(slots=True, eq=False)
class Host:
    """One upstream host. `account_count` is kept here and, from the same events, in SQL."""

    id: int
    hostname: str
    no_ssl: bool
    account_limit: int
    account_count: int
    trusted: bool
    cursor: HostCursor
    budget: Budget = field(default_factory=Budget)

    @property
    def endpoint(self) -> Endpoint:
        """The host as a DID document's service endpoint would name it."""
        return Endpoint(self.hostname, not self.no_ssl)


class HostRegistry:
    """All hosts by id and by name. Bounded by the host table, which only admins and checked crawls extend."""

    def __init__(self) -> None:
        self._by_id: dict[int, Host] = {}
        self._by_name: dict[str, Host] = {}

    def add(self, host: Host) -> None:
        """Make `host` known."""
        self._by_id[host.id] = host
        self._by_name[host.hostname] = host

    def by_id(self, host_id: int) -> Host | None:
        """The host with this row id."""
        return self._by_id.get(host_id)

    def by_name(self, hostname: str) -> Host | None:
        """The host with this normalised name."""
        return self._by_name.get(hostname)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Host]:
        return iter(list(self._by_id.values()))

"""What one host may have under way: what was read of it and is neither in the log nor rejected yet.

A host's subscriber takes from its Budget, and lanes give back to it, through `Host`; parking counts there what it keeps
of the host. Must not know what an event is.
"""

from __future__ import annotations

from gevent.event import Event as Signal

MAX_EVENTS_IN_FLIGHT = 1024
MAX_BYTES_IN_FLIGHT = 16 << 20


class Budget:
    """What one host may have between its socket and the log: queued, parked and not yet durable events.

    The bound is what makes a host whose events wait (for an identity, say) wait alone: its subscriber blocks in
    `wait_for_room`, TCP pushes back on the host, and the lanes stay free for everyone else.
    """

    __slots__ = ("_room", "bytes", "events", "parked", "parked_bytes")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.parked = 0
        self.parked_bytes = 0
        self._room: Signal | None = None

    @property
    def full(self) -> bool:
        """True when nothing more may be taken from the host now."""
        return self.events >= MAX_EVENTS_IN_FLIGHT or self.bytes >= MAX_BYTES_IN_FLIGHT

    @property
    def spare_events(self) -> int:
        """How many more events may be taken, 0 when half of the bytes are."""
        return MAX_EVENTS_IN_FLIGHT - self.events if self.bytes < MAX_BYTES_IN_FLIGHT // 2 else 0

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
        """Block until there is room, for at most `timeout` seconds. True when there is."""
        if self.full:
            # The signal exists only while somebody waits: thousands of hosts never need one.
            self._room = self._room or Signal()
            self._room.wait(timeout)
        return not self.full

"""How fast a consumer has to be: faster than a trickle, and fast enough to get to the end within the replay window.

Asked by `consumer_connection` while its socket takes no more, and only then. Must not know of sockets or frames.
"""

from __future__ import annotations

from relay.kit.errors import LogError
from relay.stream.feed import Feed

# Bytes a second. Less is of no use to anyone, and would hold what was read for it for hours.
MIN_RATE = 2048
# A rate is taken over this time, or the stall time where that is longer.
PERIOD_SECONDS = 30.0


class MinimumRate:
    """One consumer's rate since its socket first was full, period after period. `window` is in seconds."""

    __slots__ = ("_period", "_sent", "_since", "_window")

    def __init__(self, stall: float, window: float) -> None:
        self._period = max(stall, PERIOD_SECONDS)
        self._window = window
        self._since: float | None = None
        self._sent = 0

    def caught_up(self) -> None:
        """There is nothing left to send: what comes later is another matter."""
        self._since = None

    def too_slow(self, now: float, sent: int, feed: Feed) -> str | None:
        """Why the consumer, that has taken `sent` bytes in all and could take more, is too slow; None when it is not.

        `now` is monotonic. May block on the disk.
        """
        if feed.in_the_way:
            return "it is too slow for what was read for it, and others wait"
        if self._since is None:
            self._since, self._sent = now, sent
            return None
        seconds, took = now - self._since, sent - self._sent
        if seconds < self._period:
            return None
        self._since, self._sent = now, sent
        rate = took / seconds
        if rate < MIN_RATE:
            return f"{rate:.0f} bytes a second were read, and {MIN_RATE} is the minimum"
        try:
            needed = feed.bytes_left() / rate
        except LogError:
            return None
        return (
            f"what is left would take {needed:.0f} seconds, longer than it is kept"
            if 0 < self._window < needed
            else None
        )

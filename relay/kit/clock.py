"""The time of day, believed only as far as a clock that cannot be set agrees with it.

Used by the log: a bad answer of a time server must neither date its records nor make retention delete them; and by
hosts, which must not count as long unseen because of one. Must not know what is dated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

# How far a well-kept clock may be corrected at once.
TOLERANCE_US = 5_000_000
# A jump that has lasted this long is believed.
BELIEVED_US = 60_000_000

log = logging.getLogger(__name__)


def boot_seconds() -> float:
    """Seconds since the machine was started. Nobody sets this clock, and it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _steady_us() -> int:
    # As `boot_seconds`.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def _wall_us() -> int:
    return time.time_ns() // 1000


class SteadyClock:
    """Microseconds since the epoch. A jump ahead is followed once it has lasted a minute; back, at once.

    `skipped_us` are the jumps ahead that were followed: time that nobody here saw pass.
    """

    def __init__(self, wall_us: Callable[[], int] = _wall_us, steady_us: Callable[[], int] = _steady_us) -> None:
        self.skipped_us = 0
        self._wall_us = wall_us
        self._steady_us = steady_us
        # How far the steady clock is behind the time of day.
        self._offset = wall_us() - steady_us()
        self._jumped_at: int | None = None

    def now_us(self) -> int:
        """The time of day."""
        steady = self._steady_us()
        expected = steady + self._offset
        ahead = self._wall_us() - expected
        if ahead <= TOLERANCE_US:
            self._jumped_at = None
            if ahead < -TOLERANCE_US:
                log.warning("the clock was set back by %d s", -ahead // 1_000_000)
                self.skipped_us = max(self.skipped_us + ahead, 0)
        elif self._jumped_at is None:
            log.warning("the clock jumped ahead by %d s: nothing is dated or deleted by that", ahead // 1_000_000)
            self._jumped_at = steady
            return expected
        elif steady - self._jumped_at < BELIEVED_US:
            return expected
        else:
            log.warning("the clock has stayed ahead by %d s, and is believed now", ahead // 1_000_000)
            self._jumped_at = None
            self.skipped_us += ahead
        self._offset += ahead
        return expected + ahead

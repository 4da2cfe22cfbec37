"""The steady clock: what it follows, and what it does not."""

from __future__ import annotations

from relay.kit.clock import BELIEVED_US, SteadyClock

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
YEAR = 365 * 86_400 * SECOND


class Time:
    """A time of day that can be set, and a steady clock beside it."""

    def __init__(self) -> None:
        self.steady = 5 * SECOND
        self.ahead = 0
        self.clock = SteadyClock(lambda: START + self.steady + self.ahead, lambda: self.steady)

    def at(self, seconds: float) -> int:
        """What the clock says some seconds later, from the start of the time of day."""
        self.steady += int(seconds * SECOND)
        return self.clock.now_us() - START - self.steady


def test_time_passes_and_small_corrections_are_followed() -> None:
    time = Time()
    assert time.at(3600) == 0
    time.ahead = 2 * SECOND
    assert time.at(1) == time.ahead
    time.ahead = -2 * SECOND
    assert time.at(1) == time.ahead
    assert time.clock.skipped_us == 0


def test_a_jump_that_passes_is_not_followed() -> None:
    time = Time()
    time.ahead = YEAR
    assert [time.at(1) for _ in range(4)] == [0, 0, 0, 0]
    time.ahead = 0
    assert time.at(1) == 0 and time.clock.skipped_us == 0


def test_a_jump_that_lasts_is_followed_and_its_time_was_not_seen_to_pass() -> None:
    time = Time()
    time.ahead = YEAR
    assert time.at(0) == 0
    assert time.at(BELIEVED_US / SECOND - 1) == 0
    assert time.at(2) == YEAR
    assert time.clock.skipped_us == YEAR
    time.ahead = 0
    assert time.at(1) == 0, "back at once"
    assert time.clock.skipped_us == 0

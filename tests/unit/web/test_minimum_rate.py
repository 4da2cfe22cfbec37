"""How fast a consumer has to be, period by period."""

from __future__ import annotations

from typing import Any

from relay.web.minimum_rate import MIN_RATE, PERIOD_SECONDS, MinimumRate

WINDOW = 1000.0


class Behind:
    """A feed with so many bytes before it."""

    in_the_way = False

    def __init__(self, left: int) -> None:
        self.left = left

    def bytes_left(self) -> int:
        return self.left


def rated(*looks: tuple[float, int], left: int = 0) -> tuple[MinimumRate, list[str | None]]:
    """What is said at each look: at a time, after so many bytes."""
    rate, feed = MinimumRate(1.0, WINDOW), Behind(left)
    looked_at: Any = feed
    return rate, [rate.too_slow(now, sent, looked_at) for now, sent in looks]


def test_each_period_counts_by_itself() -> None:
    much, enough = 100 << 20, int(MIN_RATE * PERIOD_SECONDS) + 1
    _, said = rated((0.0, 0), (PERIOD_SECONDS, much), (2 * PERIOD_SECONDS, much + enough), (3 * PERIOD_SECONDS, much))
    assert said[:3] == [None] * 3
    _, said = rated((0.0, 0), (PERIOD_SECONDS, much), (2 * PERIOD_SECONDS, much + 10))
    assert said[:2] == [None] * 2 and "bytes a second" in str(said[2])


def test_what_was_before_it_had_all_does_not_count() -> None:
    rate, _ = rated((0.0, 0), (1.0, 10))
    rate.caught_up()
    feed: Any = Behind(0)
    assert rate.too_slow(10 * PERIOD_SECONDS, 20, feed) is None


def test_it_has_to_get_through_within_the_window() -> None:
    sent = int(MIN_RATE * PERIOD_SECONDS * 2)
    for left, slow in ((int(MIN_RATE * 2 * (WINDOW - 10)), False), (int(MIN_RATE * 2 * (WINDOW + 10)), True)):
        _, said = rated((0.0, 0), (PERIOD_SECONDS, sent), left=left)
        assert ("longer than it is kept" in str(said[1])) is slow

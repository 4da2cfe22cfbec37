"""How long a lane goes on before others have their turn."""

from __future__ import annotations

from typing import Any, cast

import gevent
import pytest

from relay.atproto import frames
from relay.ingest import lanes
from relay.ingest.delivery import Delivery
from relay.ingest.lanes import EVENTS_PER_TURN, Lane
from relay.ingest.parking import Parking
from tests.support.hosts import known_host
from tests.support.pds import identity_frame


class Judge:
    """A gate that accepts everything after `seconds` of verification, and brings on another event while there are any.

    `ways` are the counts of events judged at which the lane made way for others.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float, events: int) -> None:
        self.judged: list[int] = []
        self.ways: list[int] = []
        self._seconds = seconds
        self._host = known_host()
        self._to_come = [self._delivery(seq) for seq in range(1, events + 1)]
        nothing = cast(Any, None)
        self._lane = Lane(cast(Any, self), nothing, nothing, cast(Any, self), nothing, Parking())
        monkeypatch.setattr(lanes, "yield_hub", lambda: self.ways.append(len(self.judged)))

    def run(self) -> None:
        """Until the lane has nothing left."""
        self._bring()
        self._bring()
        running = gevent.spawn(self._lane.run)
        with gevent.Timeout(60):
            while self._to_come or not self._lane.idle:
                gevent.sleep(0.01)
        running.kill()

    def judge(self, delivery: Delivery) -> None:
        delivery.took = self._seconds
        self._bring()

    def submit(self, delivery: Delivery) -> None:
        self.judged.append(delivery.event.seq)

    def _bring(self) -> None:
        if self._to_come:
            self._lane.room.acquire(timeout=60)
            self._host.share.begin()
            self._lane.queue.put_nowait(self._to_come.pop(0))

    def _delivery(self, seq: int) -> Delivery:
        event = frames.decode(identity_frame(seq))
        assert isinstance(event, frames.Identity)
        return Delivery(self._host, event)


def test_a_lane_that_always_has_work_makes_way_after_so_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(monkeypatch, 0.0, 3 * EVENTS_PER_TURN)
    judge.run()
    assert judge.judged == list(range(1, 3 * EVENTS_PER_TURN + 1))
    assert judge.ways == [EVENTS_PER_TURN, 2 * EVENTS_PER_TURN]


def test_a_lane_makes_way_sooner_if_its_events_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(monkeypatch, 0.4 * lanes.TURN_SECONDS, 7)
    judge.run()
    assert judge.judged == list(range(1, 8)) and judge.ways == [3, 6]

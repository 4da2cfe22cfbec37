"""Verifies large events in pieces of about a millisecond, between which everybody else has turns.

The gate holds such an event, and the greenlet of its account's line has it verified here: one at a time, each when its
host's share of the CPU allows it. Hosts take turns, however many events of one wait. Must not know of lanes or of what
follows.
"""

from __future__ import annotations

import time
from collections import defaultdict

from gevent.lock import BoundedSemaphore

from relay.atproto.frames import Commit, Event, Sync
from relay.ingest.delivery import Delivery
from relay.ingest.verification import verify
from relay.kit.background import Stints

# Bytes of blocks, up to which a verification takes two milliseconds at worst.
LONG_BYTES = 32 << 10


def is_long(event: Event) -> bool:
    """Whether the event is verified in pieces."""
    return isinstance(event, Commit | Sync) and len(event.blocks) > LONG_BYTES


class LongVerifications:
    """The one place where a large event is verified."""

    def __init__(self, *, lenient: bool) -> None:
        self._lenient = lenient
        self._place = BoundedSemaphore()
        # One event of each host stands in line for the place. Bounded by the hosts there are.
        self._of_host: defaultdict[int, BoundedSemaphore] = defaultdict(BoundedSemaphore)

    def run(self, delivery: Delivery) -> None:
        """Have the delivery's check find its outcome. Ended by the verifications before it, which all have an end."""
        event, check, share = delivery.event, delivery.check, delivery.host.share
        assert isinstance(event, Commit | Sync) and check is not None
        with self._of_host[delivery.host.id]:
            share.take(0.0)
            with self._place:
                share.begin()
                try:
                    stints = Stints()
                    now_us = int(time.time() * 1_000_000)
                    outcome = verify(event, check.key, now_us, lenient=self._lenient, pause=stints.pause)
                    check.settle(outcome, delivery.took + stints.end())
                finally:
                    share.end()

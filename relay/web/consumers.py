"""The consumers that are connected, and whether one more may.

Filled by `firehose`, listed for admins, told to leave by `server` when the relay stops. Holds no sockets and sends
nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import gevent
from gevent.event import Event as Signal

from relay.kit import metrics
from relay.web.callers import counted_as
from relay.web.errors import XrpcError, too_many

RETRY_AFTER = 60
"""Seconds that a refused consumer is asked to stay away."""

# A consumer that comes back at once may be here before its last connection is found to be gone, which is looked for
# once a second.
PLACE_SECONDS = 2.5
LOOK_SECONDS = 0.1
# So many may wait for a place at a time; others are refused at once.
MAX_WAITING = 64


@dataclass(slots=True, eq=False)
class Consumer:
    """One connected consumer as an operator sees it. `stream` is `firehose` or `json`."""

    id: int
    remote_address: str
    user_agent: str
    connected_at: datetime
    stream: str = "firehose"
    first_position: int = 0
    position: int = 0

    @property
    def events_consumed(self) -> int:
        """Sequence numbers it was taken through since it connected."""
        return self.position - self.first_position


class Consumers:
    """The connected consumers, bounded in all and per address."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._connected: dict[int, Consumer] = {}
        self._per_address: Counter[str] = Counter()
        self._next_id = 1
        self._waiting = 0
        self._empty = Signal()
        self._empty.set()
        self.leaving = False
        metrics.CONSUMERS.set_function(lambda: len(self._connected))
        metrics.JSON_CONSUMERS.set_function(lambda: sum(consumer.stream == "json" for consumer in self))
        metrics.show_bound("consumers", lambda: len(self._connected), limit)
        metrics.show_bound("consumers-waiting", lambda: self._waiting, MAX_WAITING)

    def export_lag(self, last_seq: Callable[[], int]) -> None:
        """Show in the metrics how far the slowest consumer is behind `last_seq`."""
        metrics.CONSUMERS_WORST_LAG.set_function(
            lambda: max((last_seq() - consumer.position for consumer in self), default=0)
        )

    def refusal_in_time(self, address: str) -> XrpcError | None:
        """What `refusal` says, where it is about places after some seconds in which one may become free."""
        refused = self.refusal(address)
        if refused is None or self._waiting >= MAX_WAITING:
            return refused
        give_up = time.monotonic() + PLACE_SECONDS
        self._waiting += 1
        try:
            while refused is not None and not self.leaving and time.monotonic() < give_up:
                gevent.sleep(LOOK_SECONDS)
                refused = self.refusal(address)
        finally:
            self._waiting -= 1
        return refused

    def refusal(self, address: str) -> XrpcError | None:
        """Why a consumer from `address` cannot be taken now, or None when it can."""
        if self.leaving:
            return XrpcError(503, "ServiceUnavailable", "the relay is stopping", {"Retry-After": "5"})
        if len(self._connected) >= self._limit:
            return too_many("too many consumers", RETRY_AFTER)
        if self._per_address[counted_as(address)] >= self._limit_per_address:
            return too_many("too many consumers from your address", RETRY_AFTER)
        return None

    @contextmanager
    def connected(self, address: str, user_agent: str, now: datetime, stream: str = "firehose") -> Iterator[Consumer]:
        """Count a consumer of that stream for as long as the block lasts."""
        consumer = Consumer(self._next_id, address, user_agent, now, stream)
        key = counted_as(address)
        self._next_id += 1
        self._connected[consumer.id] = consumer
        self._per_address[key] += 1
        self._empty.clear()
        try:
            yield consumer
        finally:
            del self._connected[consumer.id]
            self._per_address[key] -= 1
            if not self._per_address[key]:
                del self._per_address[key]
            if not self._connected:
                self._empty.set()

    def leave(self, timeout: float) -> bool:
        """Let every consumer go when it has all that is logged; True when none is left after `timeout` seconds."""
        self.leaving = True
        return bool(self._empty.wait(timeout))

    def __iter__(self) -> Iterator[Consumer]:
        return iter(list(self._connected.values()))

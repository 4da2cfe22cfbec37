"""How fast the relay reads what consumers of the JSON stream say.

A filter of ten thousand DIDs takes as long to read as dozens of events, and compressed it is a few bytes on the wire.
Each address has a pace of its own, and all addresses have one together; a consumer waits for both. Its connection asks
before it reads a text. Must not know what a text says.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from relay.kit import metrics
from relay.kit.background import yield_hub
from relay.kit.limits import Pace, Paces
from relay.web.callers import counted_as

# What takes a tenth of a millisecond or two to read.
PIECE_BYTES = 4 << 10
# The burst of an address: eleven filters of ten thousand DIDs.
PIECES_PER_SECOND = 100
PIECES_BURST = 1000
ALL_PIECES_PER_SECOND = 400
ALL_PIECES_BURST = 2000
MAX_ADDRESSES = 10_000
LOOK_SECONDS = 0.5


class UpdatePace:
    """The turns of all consumers."""

    def __init__(self) -> None:
        self._addresses: Paces[str] = Paces(PIECES_PER_SECOND, PIECES_BURST, MAX_ADDRESSES)
        self._all = Pace(ALL_PIECES_PER_SECOND, ALL_PIECES_BURST)
        metrics.show_bound("json-update-addresses", self._addresses.__len__, MAX_ADDRESSES)

    def wait(self, address: str, size: int, over: Callable[[], bool]) -> None:
        """Return when a text of `size` bytes from `address` may be read, or once it is `over`.

        Bounded by how many consumers an address may have, as each has one text here at a time.
        """
        key, pieces = counted_as(address), size // PIECE_BYTES + 1
        _sleep(self._addresses.reserve(key, time.monotonic(), pieces), over)
        _sleep(self._all.reserve(time.monotonic(), pieces), over)
        yield_hub(key)


def _sleep(seconds: float, over: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not over():
        gevent.sleep(min(left, LOOK_SECONDS))

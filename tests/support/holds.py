"""How long one greenlet keeps all others from their turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import greenlet


@contextmanager
def holds() -> Iterator[list[float]]:
    """The longest time of CPU for which one greenlet had the hub's thread, in seconds.

    Without collections of garbage, of which a test's process has more than a relay.
    """
    longest, since = [0.0], time.thread_time()

    def switched(_event: str, _greenlets: object) -> None:
        nonlocal since
        now = time.thread_time()
        longest[0] = max(longest[0], now - since)
        since = now

    before = greenlet.settrace(switched)
    gc.disable()
    try:
        yield longest
    finally:
        gc.enable()
        greenlet.settrace(before)

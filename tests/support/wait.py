"""Waiting for what another greenlet or process does, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar("T")

# A machine that runs the tests beside other work is slower by so much. What comes in time does not wait for it.
PATIENCE = 6.0


def until(condition: Callable[[], T], timeout: float = 10.0) -> T:
    """What `condition` gives once true; AssertionError when it stays false for `timeout` seconds of a quiet machine."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "waited in vain"
        gevent.sleep(0.01)

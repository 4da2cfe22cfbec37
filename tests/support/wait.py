"""Waiting for what another greenlet or process does, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = 5.0) -> T:
    """What `condition` gives once it is true; AssertionError when it stays false for `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "waited in vain"
        gevent.sleep(0.01)

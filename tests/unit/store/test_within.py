"""Who cannot wait for the store keeps nothing of having waited."""

from __future__ import annotations

import gc
from contextlib import suppress

import gevent
import pytest

from relay.kit.errors import StoreError
from relay.store.database import within


def timeouts() -> list[gevent.Timeout]:
    return [one for one in gc.get_objects() if isinstance(one, gevent.Timeout)]


def test_what_ended_late_leaves_nothing() -> None:
    """With the collector switched off: it walks what has become old only after hours."""
    gc.collect()
    before = timeouts()
    gc.disable()
    try:
        with suppress(StoreError), within(0.01):
            gevent.sleep(5)
        # The hub lets go of its timer.
        gevent.sleep(0.01)
        assert len(timeouts()) <= len(before)
    finally:
        gc.enable()


def test_another_timeout_passes() -> None:
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01), within(5):
        gevent.sleep(5)

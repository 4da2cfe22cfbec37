"""Who cannot wait for the store keeps nothing of having waited."""

from __future__ import annotations

from contextlib import suppress

import gevent
import pytest

from relay.kit.errors import StoreError
from relay.store.database import within
from tests.support.living import living, without_collections


def test_what_ended_late_leaves_nothing() -> None:
    with without_collections():
        before = len(living(gevent.Timeout))
        with suppress(StoreError), within(0.01):
            gevent.sleep(5)
        # The hub lets go of its timer.
        gevent.sleep(0.01)
        assert len(living(gevent.Timeout)) <= before


def test_another_timeout_passes() -> None:
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01), within(5):
        gevent.sleep(5)

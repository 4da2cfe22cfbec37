"""Who may consume: the bound in all, the bound per address, and that room comes back."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime

import gevent
import pytest

from relay.web.consumers import Consumers

NOW = datetime.now(UTC)


def test_the_bounds_and_that_room_comes_back() -> None:
    consumers = Consumers(limit=3, limit_per_address=2)
    with ExitStack() as connected:
        for address in ("198.51.100.1", "198.51.100.1"):
            assert consumers.refusal(address) is None
            connected.enter_context(consumers.connected(address, "agent", NOW))
        refused = consumers.refusal("198.51.100.1")
        assert refused is not None and (refused.status, refused.headers["Retry-After"]) == (429, "60")
        assert consumers.refusal("198.51.100.2") is None
        connected.enter_context(consumers.connected("198.51.100.2", "agent", NOW))
        refused = consumers.refusal("198.51.100.3")
        assert refused is not None and refused.status == 429
        assert [consumer.id for consumer in consumers] == [1, 2, 3]
    assert consumers.refusal("198.51.100.1") is None and not list(consumers)
    assert not consumers._per_address


def test_an_ipv6_client_is_counted_by_its_network() -> None:
    consumers = Consumers(limit=3, limit_per_address=1)
    with consumers.connected("2001:db8:1:2::1", "agent", NOW):
        assert consumers.refusal("2001:db8:1:2::ffff") is not None
        assert consumers.refusal("2001:db8:1:3::1") is None


def test_a_wait_for_a_place_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.web.consumers.PLACE_SECONDS", 0.2)
    consumers = Consumers(limit=1, limit_per_address=1)
    with gevent.Timeout(60), consumers.connected("198.51.100.1", "agent", NOW):
        refused = consumers.refusal_in_time("198.51.100.2")
        assert refused is not None and refused.status == 429 and not consumers._waiting
    assert consumers.refusal_in_time("198.51.100.2") is None


def test_leaving_refuses_new_ones_and_waits_for_the_old() -> None:
    consumers = Consumers(limit=3, limit_per_address=2)
    assert consumers.leave(0)
    consumers = Consumers(limit=3, limit_per_address=2)
    connected = consumers.connected("198.51.100.1", "agent", NOW)
    connected.__enter__()
    assert not consumers.leave(0.01)
    refused = consumers.refusal("198.51.100.2")
    assert refused is not None and refused.status == 503
    gevent.spawn(connected.__exit__, None, None, None)
    assert consumers.leave(5)

"""Places of events that wait: whose are used up, by number or by bytes."""

from __future__ import annotations

import gevent
import pytest

from relay.atproto.frames import Identity
from relay.hosts.host import Host
from relay.ingest import parking
from relay.ingest.delivery import Delivery
from relay.ingest.parking import Parking
from tests.support.hosts import known_host
from tests.support.repo import account_did


def delivery(host: Host, size: int) -> Delivery:
    return Delivery(host, Identity(account_did(1), 1, "", None, bytes(size)))


@pytest.mark.parametrize(("events", "size"), [(1, 300), (4, 1)], ids=["bytes", "events"])
def test_a_host_that_has_used_up_its_own_places_is_stopped_when_all_others_are_taken(
    monkeypatch: pytest.MonkeyPatch, events: int, size: int
) -> None:
    for name, value in (("OWN_EVENTS", 2), ("COMMON_EVENTS", 2), ("OWN_BYTES", 100), ("COMMON_BYTES", 200)):
        monkeypatch.setattr(parking, name, value)
    greedy, modest, places = known_host(), known_host(id=2), Parking()
    waiting = [delivery(greedy, size) for _ in range(events)]
    for one in waiting:
        assert not places.full
        places.enter(one)
    places.enter(delivery(modest, 1))
    assert places.full and places.stops(greedy) and not places.stops(modest)
    places.leave(waiting[0])
    assert not places.full and not places.stops(greedy)


def test_hosts_that_wait_for_a_place_go_on_one_for_each_that_comes_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("OWN_EVENTS", 0), ("COMMON_EVENTS", 2), ("WAIT_SECONDS", 60.0)):
        monkeypatch.setattr(parking, name, value)
    hosts, places = [known_host(), known_host(id=2)], Parking()
    parked = [delivery(hosts[0], 1) for _ in range(2)]
    for one in parked:
        places.enter(one)
    waiting = [gevent.spawn(places.wait_for_place, host) for host in hosts]
    gevent.sleep(0)
    for number, one in enumerate(parked, 1):
        places.leave(one)
        waiting[number - 1].join(20)
        assert [who.ready() for who in waiting] == [index < number for index in range(2)]

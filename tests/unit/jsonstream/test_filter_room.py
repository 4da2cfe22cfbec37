"""The memory that the filters of all consumers may take."""

from __future__ import annotations

import pytest

from relay.jsonstream.filter_room import OWN_BYTES, FilterRoom, FiltersFull, Place
from relay.jsonstream.filters import Filter

CAPACITY = 1000


def wanted(beyond: int) -> Filter:
    """A filter of that many bytes beyond a consumer's own room."""
    return Filter(size=OWN_BYTES + beyond)


@pytest.fixture
def room() -> FilterRoom:
    return FilterRoom(CAPACITY)


def test_short_filters_take_nothing(room: FilterRoom) -> None:
    full = [Place(room, f"10.0.0.{number}") for number in range(2)]
    for place in full:
        place.take(wanted(CAPACITY // 2))
    assert room.bytes == CAPACITY
    room.check("10.0.0.9", wanted(0))
    Place(room, "10.0.0.9").take(wanted(0))
    assert room.bytes == CAPACITY


def test_the_room_and_the_half_of_an_address(room: FilterRoom) -> None:
    first, second, third = (Place(room, address) for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2"))
    first.take(wanted(300))
    with pytest.raises(FiltersFull):
        room.check("10.0.0.1", wanted(201))
    with pytest.raises(FiltersFull):
        second.take(wanted(201))
    second.take(wanted(200))
    third.take(wanted(500))
    for address in ("10.0.0.2", "10.0.0.3"):
        with pytest.raises(FiltersFull):
            room.check(address, wanted(1))
    assert room.bytes == CAPACITY
    for place in (first, second, third):
        place.close()
        place.close()
    assert room.bytes == 0
    room.check("10.0.0.1", wanted(500))


def test_what_is_said_takes_room_beside_the_filter(room: FilterRoom) -> None:
    short = Place(room, "10.0.0.2")
    short.hold(OWN_BYTES)
    assert room.bytes == 0
    place = Place(room, "10.0.0.1")
    place.take(wanted(100))
    place.hold(300)
    assert room.bytes == 400
    with pytest.raises(FiltersFull):
        place.hold(401)
    with pytest.raises(FiltersFull):
        place.take(wanted(201))
    assert room.bytes == 400
    place.hold(0)
    assert room.bytes == 100
    place.hold(300)
    place.close()
    assert room.bytes == 0


def test_an_ipv6_network_is_one_address(room: FilterRoom) -> None:
    Place(room, "2001:db8::1").take(wanted(500))
    with pytest.raises(FiltersFull):
        room.check("2001:db8::2", wanted(1))


def test_another_filter_takes_the_place_of_the_last_one(room: FilterRoom) -> None:
    place = Place(room, "10.0.0.1")
    place.take(wanted(400))
    place.take(wanted(500))
    assert room.bytes == 500
    with pytest.raises(FiltersFull):
        place.take(wanted(501))
    assert room.bytes == 500
    place.take(wanted(100))
    assert room.bytes == 100

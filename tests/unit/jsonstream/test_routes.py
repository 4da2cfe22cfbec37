"""A query with a long filter is read in turns, and as Flask reads it."""

from __future__ import annotations

import gevent
import pytest
from werkzeug.wrappers import Request

from relay.jsonstream.filters import FilterInvalid
from relay.jsonstream.routes import MAX_PARAMETER, arguments


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cursor=1",
        "a=1&a=2&b",
        "a=&=b&&c==d&",
        "wantedDids=did%3Aplc%3Aabc&wantedDids=did:plc:def+g&%61=%41",
        "&".join(f"wantedDids=did:plc:{number}" for number in range(100)),
    ],
)
def test_parameters_are_those_of_flask(text: str) -> None:
    flask = Request({"QUERY_STRING": text, "REQUEST_METHOD": "GET"}).args
    assert list(arguments(text).items(multi=True)) == list(flask.items(multi=True))


def test_others_have_turns_while_a_long_filter_is_read() -> None:
    escaped = "".join(f"%{ord(character):02x}" for character in "did:plc:ewvi7nxzyoun6zhxrhs64oiz")
    reading = gevent.spawn(arguments, "&".join([f"wantedDids={escaped}"] * 10_000))
    turns = 0
    while not reading.ready():
        gevent.sleep(0.001)
        turns += 1
    assert len(reading.get().getlist("wantedDids")) == 10_000
    assert turns > 10


def test_a_parameter_is_not_longer_than_any_that_could_be_meant() -> None:
    arguments("a=" + "x" * (MAX_PARAMETER - 2))
    with pytest.raises(FilterInvalid, match="8192 characters"):
        arguments("a=" + "x" * (MAX_PARAMETER - 1))

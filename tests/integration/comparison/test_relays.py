"""A relay as it is compared: its list of hosts, whatever it answers."""

from __future__ import annotations

import pytest

from relay.comparison.relays import FollowedRelay
from relay.kit.errors import HttpError
from relay.net.http import GuardedHttp
from tests.support.strangers import RawServer, reply


@pytest.mark.parametrize("body", [b"{}", b'{"hosts":5}', b'{"hosts":null}', b'{"hosts":"a.example.com"}', b"[]", b"<"])
def test_an_answer_that_is_no_list_of_hosts_is_told(body: bytes) -> None:
    with RawServer(lambda sock: sock.sendall(reply(body))) as server:
        relay = FollowedRelay(GuardedHttp("tests", allow_insecure=True), server.url, {})
        with pytest.raises(HttpError):
            relay.hosts()


def test_what_is_no_host_in_a_list_is_left_out() -> None:
    body = b'{"hosts":[1,null,[],{"hostname":"a.example.com","status":"active"},{"hostname":7},{}]}'
    with RawServer(lambda sock: sock.sendall(reply(body))) as server:
        relay = FollowedRelay(GuardedHttp("tests", allow_insecure=True), server.url, {})
        assert relay.hosts() == {"a.example.com": "active"}

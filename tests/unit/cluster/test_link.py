"""A node's line to its NATS process, over a socket pair: what is half sent is the end of the line."""

from __future__ import annotations

import gevent
from gevent import socket

from relay.cluster.link import Link, Retention


def test_nothing_follows_a_request_that_was_broken_off() -> None:
    """As with the relay's end: what comes behind half a request would be read as a part of it."""
    link = Link(("nats://a",), Retention(1, 1.0, 0))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link._connection = ours
        asking = gevent.spawn(link.append, 1, bytes(8 << 20))
        with gevent.Timeout(60):
            received = theirs.recv(1)
            asking.kill()
            while more := theirs.recv(1 << 20):
                received += more
    assert 0 < len(received) < 8 << 20

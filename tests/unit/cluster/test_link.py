"""A node's line to its NATS process, over a socket pair: what is half sent is the end of the line."""

from __future__ import annotations

import gevent
import pytest
from gevent import socket

from relay.cluster import link
from relay.cluster.link import Link, Retention
from relay.cluster.protocol import ClusterError


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


def test_a_process_that_stands_still_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep a standby from ever following, and a node whose term is over from knowing that."""
    monkeypatch.setattr(link, "ANSWER_SECONDS", 0.05)
    line = Link(("nats://a",), Retention(1, 1.0, 0))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line._connection = ours
        for _ in range(2):
            with pytest.raises(ClusterError):
                line.ends()
        with gevent.Timeout(60):
            while theirs.recv(1000):
                pass

"""An edge's connection to its upstream, over real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from itertools import count

import gevent
import pytest

from relay.atproto.frames import Peeked
from relay.atproto.hostname import parse_endpoint
from relay.edge import source
from relay.edge.source import Source
from relay.net.http import GuardedHttp
from tests.support.pds import FakePds, identity_frame, websocket_frame
from tests.support.wait import until


class Copied:
    """Stands for the copier."""

    def __init__(self) -> None:
        self.cursor: int | None = None
        self.seqs: list[int] = []

    def put(self, event: Peeked, frame: bytes) -> bool:
        if event.seq <= (self.cursor or 0):
            return False
        self.seqs.append(event.seq)
        self.cursor = event.seq
        return True


@pytest.fixture
def copied() -> Copied:
    return Copied()


@pytest.fixture
def started(pds: FakePds, copied: Copied) -> Iterator[Callable[[], Source]]:
    made: list[Source] = []

    def start() -> Source:
        http = GuardedHttp("edge-test", allow_insecure=True)
        made.append(Source(http, parse_endpoint(pds.url), copied))
        made[0].start()
        return made[0]

    yield start
    for one in made:
        one.stop()


def test_an_upstream_is_left_alone_for_as_long_as_it_asks(
    started: Callable[[], Source], pds: FakePds, copied: Copied
) -> None:
    pds.refuse_upgrade, pds.refusal_headers = 429, {"Retry-After": "3"}
    began = time.monotonic()
    started()
    until(lambda: pds.user_agents, 30)
    pds.refuse_upgrade = None
    until(lambda: pds.open_streams, 30)
    assert time.monotonic() - began >= 3.0
    pds.publish(1, identity_frame(1))
    until(lambda: copied.seqs == [1], 30)


def test_an_upstream_that_restarts_is_tried_soon(
    started: Callable[[], Source], pds: FakePds, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "STEADY_SECONDS", 0.2)
    monkeypatch.setattr(source, "RETRY_SECONDS", (0.1, 3600.0))
    copied.cursor = 0
    started()
    for seq in (1, 2, 3):
        pds.publish(seq, identity_frame(seq))
        until(lambda: len(copied.seqs) == pds.events[-1][0], 30)
        gevent.sleep(0.3)
        pds.hang_up()


def test_an_upstream_that_asks_for_a_day_is_tried_before(
    started: Callable[[], Source], pds: FakePds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LONGEST_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(source, "RETRY_SECONDS", (0.05,))
    pds.refuse_upgrade, pds.refusal_headers = 503, {"Retry-After": "86400"}
    started()
    until(lambda: len(pds.user_agents) > 2, 30)


def test_an_upstream_whose_numbers_are_lower_and_that_refuses_no_cursor_is_told(
    started: Callable[[], Source], pds: FakePds, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As indigo's: it sends what comes now, which the edge has no place for."""
    monkeypatch.setattr(source, "BREAK_SECONDS", 0.5)
    numbers = count(1)

    def stream(sock: socket.socket) -> None:
        while True:
            sock.sendall(websocket_frame(identity_frame(next(numbers))))
            gevent.sleep(0.05)

    pds.on_stream, copied.cursor = stream, 1000
    edge = started()
    until(lambda: edge.problem is not None and "lower numbers" in edge.problem, 10)
    numbers = count(1001)
    until(lambda: edge.problem is None, 10)
    assert copied.seqs[0] == 1001

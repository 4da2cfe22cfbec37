"""Promise 15: A consumer's `cursor=N` gives every event in the window with seq > N, once, in order; 0 is the whole
window, none is live; ahead of the newest is `FutureCursor`; older than the window is `OutdatedCursor`, then the oldest.
"""

from __future__ import annotations

import random
import socket

import gevent
import pytest
from websockets.exceptions import ConnectionClosed

from relay.atproto import frames
from relay.atproto.frames import Info, StreamError
from tests.support.fixtures import StartWeb
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.stream import payloads, whole_frames
from tests.support.web import Web
from tests.support.websocket import connect


def taken(web: Web, cursor: int, last: int) -> tuple[list[str], list[int]]:
    """What a consumer is told and which seqs it gets, up to `last`."""
    words: list[str] = []
    seqs: list[int] = []
    request = (
        f"GET /xrpc/com.atproto.sync.subscribeRepos?cursor={cursor} HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", web.server.port), timeout=60) as sock:
        sock.sendall(request.encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(1)
        data = b""
        while not seqs or seqs[-1] < last:
            data += sock.recv(1 << 16)
            whole = whole_frames(data)
            for payload in payloads(data[:whole]):
                event = frames.decode(payload)
                if isinstance(event, Info):
                    words.append(event.name)
                elif event is not None:
                    assert not isinstance(event, StreamError)
                    seqs.append(event.seq)
            data = data[whole:]
    return words, seqs


@pytest.mark.parametrize("tail_bytes", [3_000, 1 << 20], ids=["from disk", "from memory"])
def test_any_cursor_while_events_come(start_web: StartWeb, tail_bytes: int) -> None:
    chance = random.Random(15)
    web = start_web(tail_bytes=tail_bytes, initial_seq=101)
    given: list[int] = []

    def publish(count: int) -> None:
        for _ in range(count):
            if chance.random() < 0.1:
                web.log.advance(web.log.next_seq + chance.randint(1, 5))
            size = chance.randint(1, 4)
            given.extend(range(web.log.next_seq, web.log.next_seq + size))
            web.publish(size, chance.choice((0, 10, 2_000)))
            gevent.sleep(0)

    publish(150)
    cursors = [0, 100, 101, given[-1] - 1, given[-1], *(chance.randint(101, given[-1]) for _ in range(10))]
    asked = [(cursor, gevent.spawn(taken, web, cursor, given[-1] + 20)) for cursor in cursors]
    for _ in range(40):
        publish(2)
        gevent.sleep(0.002)
    for cursor, consumer in asked:
        words, seqs = consumer.get(timeout=60)
        assert not words
        assert seqs == [seq for seq in given if cursor < seq <= seqs[-1]]


def test_cursors_outside_the_window(start_web: StartWeb) -> None:
    web = start_web(initial_seq=101)
    web.publish(5)
    for ahead in (106, 10**9):
        with connect(f"{web.stream}?cursor={ahead}") as stream:
            error = frames.decode(bytes(stream.recv(timeout=60)))
            assert isinstance(error, StreamError) and error.error == "FutureCursor"
            with pytest.raises(ConnectionClosed):
                stream.recv(timeout=60)
    assert taken(web, 50, 105) == (["OutdatedCursor"], [101, 102, 103, 104, 105])
    assert taken(web, 0, 105) == ([], [101, 102, 103, 104, 105])

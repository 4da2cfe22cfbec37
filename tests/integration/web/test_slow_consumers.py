"""Consumers that take little: bounded in memory and in the kernel, and ended and told when it leads nowhere."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import gevent
import pytest
from geventwebsocket.websocket import WebSocket
from prometheus_client import REGISTRY

from relay.eventlog.segment import BLOCK
from relay.stream import read_budget
from relay.stream.feed import Feed
from relay.stream.read_budget import ReadBudget
from relay.web import consumer_connection, minimum_rate
from relay.web.consumer_connection import ConsumerEnded
from relay.web.errors import XrpcError
from relay.web.server import ApiConnection
from tests.support.firehose import consumer, handshake, head_of, raw, seqs
from tests.support.fixtures import StartWeb
from tests.support.living import living, without_collections
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.wait import until
from tests.support.web import Web


@contextmanager
def narrow(web: Web, buffer: int = 4096) -> Iterator[socket.socket]:
    """A consumer of the whole window that takes in little by itself."""
    with socket.socket() as sock:
        sock.settimeout(60)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.connect(("127.0.0.1", web.server.port))
        sock.sendall(handshake("?cursor=0"))
        head_of(sock)
        yield sock


def read_on(sock: socket.socket, size: int, pause: float, seconds: float = 120.0) -> bytes:
    """What comes in the end to one who reads `size` bytes, waits, and reads again."""
    received, give_up = bytearray(), time.monotonic() + seconds
    try:
        while time.monotonic() < give_up and (data := sock.recv(size)):
            received += data
            gevent.sleep(0.0 if b"ConsumerTooSlow" in received[-1000:] else pause)
    except ConnectionResetError:
        pass
    return bytes(received)


def ended(reason: str) -> float:
    return REGISTRY.get_sample_value("relay_consumers_ended_total", {"reason": reason}) or 0.0


def test_a_trickle_is_ended_and_told(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minimum_rate, "PERIOD_SECONDS", 1.0)
    monkeypatch.setattr(minimum_rate, "MIN_RATE", 5_000_000)
    web, before = start_web(consumer_stall=1.0, tail_bytes=1), ended("too-slow")
    for _ in range(60):
        web.publish(1, size=200_000)
    with narrow(web, 30_000) as sock:
        # It takes something all the time, and so it never stalls.
        received = read_on(sock, 10_000, 0.05)
    assert ended("too-slow") == before + 1
    assert b"is the minimum" in received[-1000:]
    until(lambda: not list(web.services.consumers))


def test_a_consumer_that_cannot_get_through_within_the_window_is_told(
    start_web: StartWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minimum_rate, "PERIOD_SECONDS", 1.0)
    web, before = start_web(consumer_stall=1.0, tail_bytes=1, replay_window=5.0), ended("too-slow")
    for _ in range(60):
        web.publish(1, size=200_000)
    with narrow(web, 30_000) as sock:
        # Some 200 kB a second, and there are 12 MB.
        received = read_on(sock, 10_000, 0.05)
    assert ended("too-slow") == before + 1
    assert b"longer than it is kept" in received[-1000:]


def test_who_reads_all_of_it_slowly_is_served(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minimum_rate, "PERIOD_SECONDS", 0.5)
    web = start_web(consumer_stall=0.5, tail_bytes=1)
    web.publish(5, size=200_000)
    with narrow(web, 30_000) as sock:
        received = bytearray()
        while len(received) < 1_000_000:
            received += sock.recv(20_000)
            gevent.sleep(0.02)
        # And then it is at the head, where little comes.
        gevent.sleep(1.0)
        web.publish(1)
        assert sock.recv(100)


def test_what_is_read_for_all_of_them_is_bounded(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_budget, "HOLD_SECONDS", 0.5)
    # While they are told what they were sent is still in memory.
    monkeypatch.setattr(consumer_connection, "FAREWELL_TIMEOUT", 0.5)
    web, before = start_web(tail_bytes=1), ended("too-slow")
    web.firehose._budget = budget = ReadBudget(4 * BLOCK)
    for _ in range(20):
        web.publish(1, size=400_000)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(narrow(web))
        until(lambda: len(list(web.services.consumers)) == 8)
        until(lambda: budget.full)
        assert budget.taken <= 4 * BLOCK + 400_000
        # Four hold all of it and read nothing. One that reads gets its turn, and they are told.
        with consumer(web, "?cursor=0") as quick:
            assert seqs(quick, 20) == list(range(1, 21))
        assert ended("too-slow") >= before + 4
    until(lambda: not list(web.services.consumers))
    assert budget.taken == 0 and not budget.waiting


def test_those_who_read_the_log_give_way_to_all_others(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    web, turns, give_way = start_web(tail_bytes=1), [0], Feed.give_way

    def counted(feed: Feed) -> None:
        turns[0] += 1
        give_way(feed)

    monkeypatch.setattr(Feed, "give_way", counted)
    web.publish(20, size=200_000)
    web.publish(1)
    with consumer(web, "?cursor=0") as replaying:
        assert seqs(replaying, 21) == list(range(1, 22))
    assert turns[0] >= 20 * 200_000 // (2 * BLOCK)


class AnyFeed:
    """A feed of which something is left, and in nobody's way."""

    in_the_way = False

    def __init__(self, left: int) -> None:
        self.bytes_left = lambda: left


def verdicts(sent: list[int], left: int, window: float = 3600.0) -> list[bool]:
    """Whether one that had taken so many bytes, each 30 seconds, is too slow."""
    asked = minimum_rate.MinimumRate(stall=1.0, window=window)
    feed = cast(Feed, AnyFeed(left))
    return [asked.too_slow(30.0 * number, total, feed) is not None for number, total in enumerate(sent)]


def test_the_rate_of_each_period_counts() -> None:
    least = 30 * minimum_rate.MIN_RATE
    assert verdicts([0, least, 2 * least, 3 * least - 1], left=1) == [False, False, False, True]
    assert verdicts([0, 10 * least], left=20 * 3600 * minimum_rate.MIN_RATE) == [False, True]
    assert verdicts([0, 30 * least], left=20 * 3600 * minimum_rate.MIN_RATE) == [False, False]


def unsent_bytes(port: int) -> int:
    """What the kernel holds for those connected to `port`: the send queues of /proc/net/tcp."""
    queues = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, sizes, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and state == "01":
            queues += int(sizes.partition(":")[0], 16)
    return queues


def test_the_kernel_holds_little_for_one_that_does_not_read(start_web: StartWeb) -> None:
    web = start_web(tail_bytes=1)
    for _ in range(60):
        web.publish(1, size=400_000)
    with raw(web, handshake("?cursor=0")) as quick, narrow(web):
        # The buffer that has grown for one who reads is not filled when it reads no more.
        taken = 0
        while taken < 8_000_000:
            taken += len(quick.recv(1 << 20))
        gevent.sleep(0.5)
        # Without the bound it is 6 MB.
        assert unsent_bytes(web.server.port) < 16 * consumer_connection.UNSENT_BYTES


def test_consumers_that_were_ended_leave_nothing(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what they were sending nor what ended them: with megabytes each, the collector would come too late."""
    monkeypatch.setattr(consumer_connection, "FAREWELL_TIMEOUT", 0.2)
    web, before = start_web(consumer_stall=0.5, tail_bytes=1), ended("stalled")
    web.publish(1, size=4_000_000)
    # The newest stays in memory.
    web.publish(1)
    with without_collections():
        for _ in range(3):
            with narrow(web):
                until(lambda: not list(web.services.consumers), 30)
        assert ended("stalled") == before + 3
        views = [one for one in living(memoryview) if len(one) > 1_000_000]
        assert not living(ConsumerEnded) and not views
    assert REGISTRY.get_sample_value("relay_queue_size", {"queue": "consumer-bytes"}) == 0


def test_what_is_still_sent_to_one_that_is_ended_counts(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_connection, "FAREWELL_TIMEOUT", 5.0)
    web, before = start_web(consumer_stall=0.5, tail_bytes=1), ended("stalled")
    web.publish(1, size=4_000_000)
    # The newest stays in memory.
    web.publish(1)
    with narrow(web):
        until(lambda: ended("stalled") == before + 1, 30)
        assert (REGISTRY.get_sample_value("relay_queue_size", {"queue": "consumer-bytes"}) or 0) > 3_000_000
    until(lambda: REGISTRY.get_sample_value("relay_queue_size", {"queue": "consumer-bytes"}) == 0, 30)


def test_who_asks_without_an_upgrade_leaves_nothing(start_web: StartWeb) -> None:
    web = start_web()
    web.get("/xrpc/com.atproto.sync.subscribeRepos")
    with without_collections():
        for _ in range(3):
            assert web.get("/xrpc/com.atproto.sync.subscribeRepos").status == 426
        assert not living(XrpcError)


def test_consumers_that_left_leave_nothing(start_web: StartWeb) -> None:
    """They come and go for weeks, and a full collection of garbage does not come."""
    web = start_web()
    web.publish(1)

    def visit() -> None:
        with narrow(web):
            until(lambda: len(list(web.services.consumers)) == 1, 30)
        until(lambda: not list(web.services.consumers), 30)

    visit()
    with without_collections():
        for _ in range(3):
            visit()
        until(lambda: not living(ApiConnection, WebSocket, ConsumerEnded), 30)

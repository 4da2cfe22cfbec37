"""A standby's way from the stream into its log, over a link whose stream forgets messages before they are taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import gevent
import pytest
from gevent.event import Event as Signal

from relay.cluster import following
from relay.cluster.following import Follower
from relay.cluster.link import Link
from relay.cluster.protocol import Kind, Message, encode
from relay.eventlog.log import SegmentLog
from relay.eventlog.writer import encode_block
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail
from tests.support.stream import record


class Stream:
    """What `Link` is to a follower; messages before `first` are forgotten."""

    def __init__(self) -> None:
        self.tip = Signal()
        self.first = 1
        self.messages = [encode(Message(Kind.CLAIM, 0, 0, "a"))]
        self._seq = 0

    def block(self, count: int) -> None:
        records = [record(self._seq + number) for number in range(1, count + 1)]
        self.messages.append(encode(Message(Kind.BLOCK, 1, self._seq, "a", encode_block(records).data)))
        self._seq += count

    def beat(self) -> None:
        self.messages.append(encode(Message(Kind.BEAT, 1, self._seq, "a")))

    def get(self, place: int) -> bytes | None:
        return self.messages[place - 1] if self.first <= place <= len(self.messages) else None

    def ends(self) -> tuple[int, int]:
        return self.first, len(self.messages)

    def append(self, last: int, data: bytes) -> int | None:
        if last != len(self.messages):
            return None
        self.messages.append(data)
        return len(self.messages)


class Standby:
    def __init__(self, folder: Path) -> None:
        self.stream = Stream()
        self.log = SegmentLog(folder, copy=True)
        suppressions = Suppressions()
        self.follower = Follower(
            cast(Link, self.stream), self.log, Tail(0, suppressions), suppressions, "b", lambda: 1_000_000
        )
        self.follower.start()

    def wait_for(self, seq: int) -> None:
        with gevent.Timeout(60):
            while self.log.last_seq < seq:
                gevent.sleep(0.01)


@pytest.fixture
def standby(tmp_path: Path) -> Iterator[Standby]:
    opened = Standby(tmp_path)
    yield opened
    opened.follower.stop(1.0)
    opened.log.close()


def test_what_it_lacks_for_good_is_said(standby: Standby) -> None:
    """It stood still for longer than the stream keeps what comes: it must not look as if it followed."""
    stream = standby.stream
    stream.block(3)
    standby.wait_for(3)
    # The next message comes and goes in between two looks.
    stream.block(3)
    stream.beat()
    stream.first = 4
    with gevent.Timeout(60):
        while "before the cluster's stream begins" not in (standby.follower.problem or ""):
            gevent.sleep(0.05)
    assert standby.log.last_seq == 3 and not standby.follower.claimed.is_set()


def test_it_goes_on_after_a_bug(standby: Standby, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "STUCK_SECONDS", 0.5)
    stream = standby.stream

    def broken(_: int) -> bytes:
        raise ZeroDivisionError

    with monkeypatch.context() as patched, gevent.Timeout(60):
        patched.setattr(stream, "get", broken)
        while "ZeroDivisionError" not in (standby.follower.problem or ""):
            gevent.sleep(0.05)
    stream.block(3)
    standby.wait_for(3)
    with gevent.Timeout(60):
        while standby.follower.problem is not None:
            gevent.sleep(0.05)


def test_beats_that_it_did_not_take_are_no_loss(standby: Standby) -> None:
    stream = standby.stream
    stream.block(3)
    standby.wait_for(3)
    stream.beat()
    stream.block(3)
    stream.first = 4
    standby.wait_for(6)

"""The active node's appending, over a link that loses requests and answers: a batch is in the stream, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

from relay.cluster import replication
from relay.cluster.protocol import ClusterError, Kind, Message, decode, encode, find_place
from relay.cluster.replication import Replication
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import records_in
from relay.eventlog.writer import Block
from tests.support.stream import append, record

# An append of which no answer comes takes so long.
LATE_SECONDS = 0.2
BLOCK = Block(b"records", 11, 12, 0, 0)


class Superseded(BaseException):
    """The process would have ended."""


class Stream:
    """What `Link` is to a replication. Each append takes the next of `fates`; without one it is answered."""

    def __init__(self) -> None:
        self.messages = [encode(Message(Kind.CLAIM, 0, 10, "a"))]
        self.fates: list[str] = []
        self.told: list[int] = []
        # Messages before it have left the stream.
        self.first = 1

    def append(self, last: int, data: bytes) -> int | None:
        fate = self.fates.pop(0) if self.fates else "answered"
        if fate == "late":
            gevent.spawn_later(LATE_SECONDS, self._arrive, last, data)
            gevent.sleep(3600)
        if fate in ("answered", "answer lost"):
            if last != len(self.messages):
                return None
            self.messages.append(data)
        if fate != "answered":
            raise ClusterError("cluster-away", fate)
        return len(self.messages)

    def _arrive(self, last: int, data: bytes) -> None:
        if last == len(self.messages):
            self.messages.append(data)

    def get(self, place: int) -> bytes | None:
        return self.messages[place - 1] if self.first <= place <= len(self.messages) else None

    def ends(self) -> tuple[int, int]:
        return self.first, len(self.messages)

    def tell(self, place: int) -> None:
        self.told.append(place)

    def blocks(self) -> list[bytes]:
        return [message.block for message in map(decode, self.messages) if message.block]


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.setattr(replication, "RETRY_SECONDS", 0.001)
    return Stream()


def of(stream: Stream, superseded: Callable[[], None] | None = None) -> Replication:
    def end() -> None:
        raise Superseded

    return Replication(stream, "a", 1, 10, superseded or end)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fates",
    [[], ["lost"], ["answer lost"], ["lost", "lost", "answer lost"], ["answer lost", "lost"]],
    ids=lambda fates: ", ".join(fates) or "well",
)
def test_a_batch_is_in_the_stream_once(stream: Stream, fates: list[str]) -> None:
    stream.fates = fates
    active = of(stream)
    active.replicate(BLOCK)
    active.replicate(Block(b"more", 13, 13, 0, 0))
    assert stream.blocks() == [b"records", b"more"]
    assert [(message.after, message.term) for message in map(decode, stream.messages[1:])] == [(10, 1), (12, 1)]
    assert stream.told[-1] == 3 and active.problem is None


def test_another_claim_ends_it(stream: Stream) -> None:
    active = of(stream)
    active.replicate(BLOCK)
    stream.messages.append(encode(Message(Kind.CLAIM, 0, 12, "b")))
    with pytest.raises(Superseded):
        active.replicate(Block(b"more", 13, 13, 0, 0))
    assert stream.blocks() == [b"records"]


def test_a_stream_that_has_lost_messages_ends_it(stream: Stream) -> None:
    active = of(stream)
    active.replicate(BLOCK)
    del stream.messages[1:]
    with pytest.raises(Superseded):
        active.replicate(Block(b"more", 13, 13, 0, 0))
    assert stream.blocks() == []


def test_another_claim_ends_it_that_has_left_the_stream(stream: Stream) -> None:
    """It stood still for longer than the stream keeps messages."""
    active = of(stream)
    active.replicate(BLOCK)
    stream.messages += [encode(Message(Kind.CLAIM, 0, 12, "b")), encode(Message(Kind.BEAT, 3, 12, "b"))]
    stream.first = 4
    with gevent.Timeout(60), pytest.raises(Superseded):
        active.replicate(Block(b"more", 13, 13, 0, 0))


@pytest.mark.parametrize("early", [True, False], ids=["late", "appended"])
def test_its_own_message_of_which_it_did_not_hear_is_no_other_claim(stream: Stream, early: bool) -> None:
    """What appends is ended with the relay, in the middle of it. The others must still be told."""
    active = of(stream)
    stream.fates = ["late"]
    appending = gevent.spawn(active.replicate, BLOCK)
    gevent.sleep(0.01 if early else 1.5 * LATE_SECONDS)
    appending.kill()
    active.release()
    gevent.sleep(2 * LATE_SECONDS)
    assert stream.blocks() == ([] if early else [BLOCK.data])
    released = decode(stream.messages[-1])
    assert released.kind is Kind.RELEASE and released.term == 1
    assert released.after == (10 if early else BLOCK.last_seq)
    # The log of this node has not got the block: it was to be written once it was appended.
    place = find_place(
        1,
        len(stream.messages),
        10,
        lambda number: decode(stream.messages[number - 1]),
        lambda _: BLOCK.last_seq,
        lambda _: True,
    )
    assert [message.block for message in map(decode, stream.messages[place.at :]) if message.block] == stream.blocks()


def test_what_the_stream_has_lost_it_gets_from_the_log(stream: Stream, tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    records = [record(seq) for seq in range(1, 31)]
    append(log, records)
    of(stream).restore(log, 25)
    assert [one.seq for block in stream.blocks() for one in records_in(block)[0]] == list(range(11, 31))
    of_none = Stream()
    of(of_none).restore(log, 10)
    assert of_none.blocks() == []
    log.close()


def test_an_end_is_told_or_given_up(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    active = of(stream)
    active.start()
    active.release()
    assert decode(stream.messages[-1]).kind is Kind.RELEASE
    monkeypatch.setattr(replication, "RELEASE_SECONDS", 0.05)
    stream.fates = ["lost"] * 10_000
    of(stream).release()


def test_it_says_that_it_is_there(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "BEAT_SECONDS", 0.01)
    active = of(stream)
    active.start()
    with gevent.Timeout(60):
        while len(stream.messages) < 4:
            gevent.sleep(0.01)
    active.release()
    kinds = [decode(message).kind for message in stream.messages]
    assert kinds[:4] == [Kind.CLAIM, Kind.BEAT, Kind.BEAT, Kind.BEAT] and kinds[-1] is Kind.RELEASE

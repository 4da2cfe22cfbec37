"""The cluster's protocol as a model: nodes that crash, stop for any time and claim whenever they please, over a stream
that loses requests, loses answers and delivers late. Whatever they do, no seq is published for two events.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.cluster.protocol import (
    ClusterError,
    Found,
    Kind,
    Message,
    Place,
    decode,
    encode,
    find_place,
    judge,
)

NODES = ("a", "b", "c")
FATES = st.sampled_from(["answered", "answer lost", "lost", "late"])
_BLOCK = struct.Struct("<QQ")


def block_of(seq: int, event: int) -> bytes:
    return _BLOCK.pack(seq, event)


def seq_in(block: bytes) -> int:
    seq, _ = _BLOCK.unpack(block)
    return int(seq)


def is_any(_: bytes) -> bool:
    return True


@dataclass
class Node:
    """`log` is what it has published, and survives a crash. `sent` is a message of which it does not know the fate."""

    name: str
    log: dict[int, int] = field(default_factory=dict)
    place: Place | None = None
    term: int = 0
    at: int = 0
    last: int = 0
    sent: bytes | None = None

    @property
    def end(self) -> int:
        return max(self.log, default=0)


class Protocol(RuleBasedStateMachine):
    """Every step of a node is what `replication` and `following` do, in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self.stream: list[bytes] = []
        self.nodes = {name: Node(name) for name in NODES}
        # Appends under way: the place that each named, and the message.
        self.late: list[tuple[int, bytes]] = []
        self.published: dict[int, int] = {}
        self.events = 0

    def append(self, last: int, data: bytes) -> int | None:
        if len(self.stream) != last:
            return None
        self.stream.append(data)
        return len(self.stream)

    def get(self, place: int) -> bytes | None:
        return self.stream[place - 1] if place <= len(self.stream) else None

    def publish(self, node: Node, seq: int, event: int) -> None:
        assert self.published.setdefault(seq, event) == event, "one seq for two events"
        assert seq > node.end, "seq falls"
        node.log[seq] = event

    def stand_by(self, node: Node) -> None:
        node.term, node.sent, node.place = 0, None, None

    @rule(name=st.sampled_from(NODES))
    def crash(self, name: str) -> None:
        self.stand_by(self.nodes[name])

    @rule(name=st.sampled_from(NODES), steps=st.integers(1, 20))
    def follow(self, name: str, steps: int) -> None:
        node = self.nodes[name]
        if node.term:
            return
        if node.place is None:
            end = len(self.stream)
            node.place = find_place(1, end, node.end, lambda place: decode(self.stream[place - 1]), seq_in, is_any)
        for _ in range(steps):
            data = self.get(node.place.at + 1)
            if data is None:
                return
            block = node.place.take(node.place.at + 1, decode(data))
            if block and seq_in(block) > node.place.last:
                seq, event = _BLOCK.unpack(block)
                self.publish(node, seq, event)
                node.place.note(seq)

    @rule(name=st.sampled_from(NODES), fate=FATES)
    def claim(self, name: str, fate: str) -> None:
        """At any time, since no clock is to be trusted; as for the rest, as `following` does it."""
        node = self.nodes[name]
        if node.term or node.place is None or self.get(node.place.at + 1) is not None:
            return
        data = encode(Message(Kind.CLAIM, 0, node.place.last, name))
        at = node.place.at
        if fate == "late":
            self.late.append((at, data))
        elif fate != "lost":
            self.append(at, data)
        if fate != "answered" and self.get(at + 1) != data:
            return
        node.place.take(at + 1, decode(data))
        node.term = node.at = at + 1
        node.last = node.place.last

    @rule(name=st.sampled_from(NODES), fate=FATES, beat=st.booleans())
    def send(self, name: str, fate: str, beat: bool) -> None:
        node = self.nodes[name]
        if not node.term or node.sent is not None:
            return
        self.events += 1
        kind, block = (Kind.BEAT, b"") if beat else (Kind.BLOCK, block_of(node.last + 1, self.events))
        node.sent = encode(Message(kind, node.term, node.last, name, block))
        self.go(node, fate)

    @rule(name=st.sampled_from(NODES), fate=FATES)
    def settle(self, name: str, fate: str) -> None:
        """Look what has become of it, and send it again if it is not there."""
        node = self.nodes[name]
        if node.sent is None:
            return
        outcome = judge(node.sent, self.get(node.at + 1))
        if outcome is Found.SUPERSEDED:
            self.stand_by(node)
        elif outcome is Found.APPENDED:
            self.appended(node)
        else:
            self.go(node, fate)

    def go(self, node: Node, fate: str) -> None:
        assert node.sent is not None
        if fate == "late":
            self.late.append((node.at, node.sent))
        elif fate != "lost" and self.append(node.at, node.sent) is not None and fate == "answered":
            self.appended(node)

    def appended(self, node: Node) -> None:
        assert node.sent is not None
        block = decode(node.sent).block
        node.sent, node.at = None, node.at + 1
        if block:
            node.last, event = _BLOCK.unpack(block)
            self.publish(node, node.last, event)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """What was under way arrives at last, whoever sent it and whatever that has become."""
        self.append(*self.late.pop(data.draw(st.integers(0, len(self.late) - 1))))

    @invariant()
    def every_published_event_is_in_the_stream_once(self) -> None:
        blocks = [decode(data).block for data in self.stream]
        in_stream = [_BLOCK.unpack(block) for block in blocks if block]
        seqs = [seq for seq, _ in in_stream]
        assert seqs == sorted(set(seqs))
        assert self.published.items() <= dict(in_stream).items()

    @invariant()
    def every_log_is_a_part_of_the_stream_without_holes(self) -> None:
        in_stream = [seq_in(block) for data in self.stream if (block := decode(data).block)]
        for node in self.nodes.values():
            assert list(node.log) == in_stream[: len(node.log)]


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=60, stateful_step_count=60)


def test_the_rules_hold_for_a_claim_that_lands_although_its_sender_heard_nothing() -> None:
    """A node whose claim arrives late finds it as another's would be: it takes it, and stands by for itself."""
    place = Place(0, 0)
    data = encode(Message(Kind.CLAIM, 0, 0, "a"))
    place.take(1, decode(data))
    assert (place.term, place.active) == (1, "a")
    assert not place.may_claim(quiet=1.0, answered=1.0) and place.may_claim(quiet=3.0, answered=1.0)
    assert not place.may_claim(quiet=60.0, answered=0.5)
    place.take(2, Message(Kind.RELEASE, 1, 0, "a"))
    assert place.may_claim(quiet=0.0, answered=0.0)


def test_messages_out_of_turn_are_refused() -> None:
    place = Place(4, 10)
    place.take(5, Message(Kind.CLAIM, 0, 10, "a"))
    for number, message in (
        (7, Message(Kind.BEAT, 5, 10, "a")),
        (6, Message(Kind.BEAT, 3, 10, "b")),
        (6, Message(Kind.BLOCK, 5, 11, "a", b"x")),
    ):
        with pytest.raises(ClusterError):
            place.take(number, message)
    assert (place.at, place.last) == (5, 10)


@pytest.mark.parametrize("data", [b"", b"\x01", encode(Message(Kind.BEAT, 1, 1, "node"))[:-1], b"\x09" + b"\0" * 17])
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(ClusterError, match="cluster-message"):
        decode(data)


def test_a_message_comes_out_as_it_went_in() -> None:
    message = Message(Kind.BLOCK, 2**60, 7, "nöde", b"\0\1" * 99)
    assert decode(encode(message)) == message


def test_a_log_is_found_in_the_stream() -> None:
    stream = [Message(Kind.CLAIM, 0, 20, "a")]
    stream += [Message(Kind.BLOCK, 5, seq - 1, "a", block_of(seq, seq)) for seq in range(21, 121)]

    def found(last: int) -> int:
        return find_place(5, 105, last, lambda place: stream[place - 5], seq_in, is_any).at

    assert [found(20), found(21), found(119), found(120)] == [5, 6, 104, 104]
    assert find_place(5, 105, 0, lambda place: stream[place - 5], seq_in, is_any).last == 20
    assert find_place(106, 105, 33, lambda _: stream[0], seq_in, is_any).at == 105
    with pytest.raises(ClusterError, match="cluster-gap"):
        found(19)


@pytest.mark.parametrize("beats", [0, 1, 5])
def test_a_stream_that_has_lost_messages_is_known_by_its_end(beats: int) -> None:
    """A log that goes on behind it has what is missing, if it has the newest event that is there."""
    stream = [Message(Kind.CLAIM, 0, 20, "a")]
    stream += [Message(Kind.BLOCK, 5, seq - 1, "a", block_of(seq, seq)) for seq in range(21, 31)]
    stream += [Message(Kind.BEAT, 5, 30, "a")] * beats
    end = 4 + len(stream)
    asked: list[bytes] = []

    def is_same(block: bytes) -> bool:
        asked.append(block)
        return seq_in(block) == 30 and len(asked) == 1

    place = find_place(5, end, 35, lambda place: stream[place - 5], seq_in, is_same)
    assert (place.at, place.last, place.tail) == (end, 35, 30) and asked == [block_of(30, 30)]
    with pytest.raises(ClusterError, match="cluster-ahead"):
        find_place(5, end, 35, lambda place: stream[place - 5], seq_in, is_same)
    # Of a stream that has nothing but a claim, nothing can be compared.
    assert find_place(5, 5, 35, lambda _: stream[0], seq_in, is_same).tail == 20
    place.take(end + 1, Message(Kind.CLAIM, 0, 30, "b"))
    place.note(33)
    assert (place.last, place.tail) == (35, 33)
    place.note(36)
    assert (place.last, place.tail) == (36, 36)

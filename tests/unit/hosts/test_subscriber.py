"""What becomes of each message of a host: read, rejected, or too much of nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest

from relay.atproto import frames
from relay.atproto.frames import Event
from relay.hosts import backlog, subscriber
from relay.hosts.host import Host
from relay.hosts.subscriber import BACKLOGS_AT_ONCE, HELD_EVENTS, LONGEST_STEP, Subscriber
from relay.net.websocket_connection import StreamEnded
from relay.net.websocket_reader import PassedOver
from tests.support.blocks import cbor
from tests.support.hosts import Stream, known_host
from tests.support.pds import error_frame, identity_frame, sync_frame
from tests.support.repo import frame

BROKEN = {
    "empty": b"",
    "no CBOR": b"\xff\xff\xff",
    "a header alone": cbor({"op": 1, "t": "#identity"}),
    "a header of another order": b"\xa2\x62op\x01\x61t"
    + cbor("#identity")
    + identity_frame(2)[len(cbor("#identity")) :],
    "a header with a tag": b"\xc0" + identity_frame(2),
    "a header that is a list": cbor([1]) + cbor({}),
    "a payload that is a list": cbor({"op": 1, "t": "#identity"}) + cbor([1]),
    "bytes after the payload": identity_frame(2) + b"\x00",
    "broken UTF-8": frame("#identity", {"seq": 2, "did": "did:web:abc.test", "time": ""}).replace(b"abc", b"\xff\xfea"),
    "a tag in the payload": cbor({"op": 1, "t": "#identity"}) + b"\xa1\x63seq\xc1\x02",
    "an error that cannot be read": cbor({"op": -1}) + cbor([1]),
    "an info that cannot be read": cbor({"op": 1, "t": "#info"}) + b"\xff",
    "deep": cbor({"op": 1, "t": "#identity"}) + b"\x81" * 5_000,
    "long": cbor({"op": 1, "t": "#identity"}) + b"\x5a\xff\xff\xff\xff",
}


class Sink:
    def __init__(self, *, waits: bool = False) -> None:
        self.waits = waits
        self.taken: list[int] = []
        self.rejected: list[tuple[str, int | None]] = []

    def put(self, host: Host, event: Event) -> bool:
        self.taken.append(event.seq)
        return self.waits

    def reject(self, host: Host, seq: int | None, reason: str, did: str | None, *_: object) -> None:
        self.rejected.append((reason, seq))


def read(host: Host, *messages: bytes | PassedOver, proof: int = 0) -> tuple[Sink, str]:
    """`proof` is the seq of the event that shows that the host's numbers started again."""
    sink = Sink()
    nothing: Any = None
    subscriber = Subscriber(nothing, sink, lambda _, event: event.seq == proof)
    with pytest.raises(StreamEnded) as caught:
        subscriber.read(host, Stream(*messages), None)  # type: ignore[arg-type]
    return sink, caught.value.reason


def test_a_quiet_host_keeps_none_of_its_messages() -> None:
    gone: list[bool] = []

    class Message(bytes):
        def __del__(self) -> None:
            gone.append(True)

    class Quiet(Stream):
        def receive(self, patience: float | None = None) -> list[bytes | PassedOver]:
            if not self._messages:
                assert len(gone) == 1
            return super().receive(patience)

    sink, nothing = Sink(), None
    stream = Quiet(Message(frame("#info", {"name": "Hello"})))
    with pytest.raises(StreamEnded):
        Subscriber(nothing, sink, lambda *_: False).read(known_host(), stream, None)  # type: ignore[arg-type]
    assert len(gone) == 1


@pytest.mark.parametrize("broken", BROKEN)
def test_what_cannot_be_read_is_rejected_and_the_stream_goes_on(broken: str) -> None:
    sink, end = read(known_host(), identity_frame(1), BROKEN[broken], identity_frame(3))
    assert sink.taken == [1, 3] and end == "closed"
    ((reason, _),) = sink.rejected
    assert reason.startswith("frame-")


def test_what_the_connection_passed_over_is_rejected_for_its_reason() -> None:
    host = known_host()
    sink, end = read(host, identity_frame(1), PassedOver("message-too-big", "", b"", 6_000_000), identity_frame(3))
    assert (sink.taken, sink.rejected, end) == ([1, 3], [("message-too-big", None)], "closed")


def test_of_what_the_connection_passed_over_the_beginning_tells_the_number() -> None:
    host = known_host()
    over = frame("#commit", {"repo": "did:web:abc.test", "seq": 2, "padding": "z" * 5_000_000})
    sink, _ = read(host, identity_frame(1), PassedOver("message-too-big", "", over[: 64 << 10], len(over)))
    assert sink.rejected == [("message-too-big", 2)] and host.unreadable == 0


def test_a_bug_of_ours_costs_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = frames.decode

    def fail(message: bytes) -> object:
        if message == b"x":
            raise ZeroDivisionError
        return decode(message)

    monkeypatch.setattr(frames, "decode", fail)
    sink, end = read(known_host(), b"x", identity_frame(2))
    assert (sink.taken, sink.rejected, end) == ([2], [("internal-error", None)], "closed")


def test_the_hosts_own_word_ends_the_stream() -> None:
    sink, end = read(known_host(), identity_frame(1), error_frame("FutureCursor"), identity_frame(2))
    assert sink.taken == [1] and end == "future-cursor"


def test_a_cursor_before_what_the_host_has_is_a_gap() -> None:
    host = known_host()
    read(host, frame("#info", {"name": "Hello"}))
    assert not host.cursor._book.gaps
    read(host, frame("#info", {"name": "OutdatedCursor"}))
    assert host.cursor._book.gaps == {host.id: "outdated-cursor"}


def test_a_host_that_sends_something_may_be_asked_live_once_more() -> None:
    host = known_host()
    host.live_restart = True
    read(host, b"\xff")
    assert host.live_restart
    read(host, identity_frame(1))
    assert not host.live_restart


@pytest.mark.parametrize("waits", [False, True])
def test_a_host_whose_turn_is_over_makes_way_unless_it_has_just_waited(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_way: list[int] = []
    sink, nothing = Sink(waits=waits), cast(Any, None)
    monkeypatch.setattr(subscriber, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(subscriber, "yield_hub", lambda: made_way.append(len(sink.taken)))
    # All three have come together.
    stream = Stream(identity_frame(1), identity_frame(2), identity_frame(3))
    with pytest.raises(StreamEnded):
        Subscriber(nothing, sink, lambda *_: False).read(known_host(), cast(Any, stream), None)
    assert sink.taken == [1, 2, 3]
    assert made_way == ([] if waits else [1, 2, 3])


def test_a_rejected_seq_is_believed_if_it_is_near() -> None:
    def bad(seq: object) -> bytes:
        return frame("#identity", {"seq": seq, "did": 7, "time": "2026-11-24T00:00:00.000Z"})

    sink, _ = read(known_host(), identity_frame(10), bad(11), bad(10), bad(12 + LONGEST_STEP), bad("x"))
    assert [seq for _, seq in sink.rejected] == [11, None, None, None]


@pytest.mark.parametrize(
    ("old", "taken"),
    [
        ([identity_frame(seq) for seq in range(1, 41)], list(range(41 - HELD_EVENTS, 41))),
        ([identity_frame(1), identity_frame(1001), identity_frame(5)], [1001, 5]),
        ([identity_frame(7), identity_frame(3)], [3]),
        ([identity_frame(1), sync_frame(2), identity_frame(3)], [1, 3]),
    ],
    ids=["many", "a new number between", "not rising", "what could have proved it"],
)
def test_what_came_before_the_proof_that_numbers_started_again(old: list[bytes], taken: list[int]) -> None:
    sink, _ = read(known_host(), identity_frame(1000), *old, identity_frame(41), proof=41)
    assert sink.taken == [1000, *taken, 41]


def test_the_end_of_a_backlog_is_that_of_the_stream() -> None:
    class Stalled(Stream):
        def receive(self, patience: float | None = None) -> list[bytes | PassedOver]:
            if len(self._messages) == 1:
                self._messages.append(identity_frame(3))
                raise StreamEnded("message-stalled")
            return super().receive(patience)

    sink, nothing = Sink(), cast(Any, None)
    host, stream = known_host(), cast(Any, Stalled(identity_frame(1), identity_frame(2)))
    reader = Subscriber(nothing, sink, lambda *_: False)
    with pytest.raises(StreamEnded) as caught:
        reader.read(host, stream, 0, from_the_start=True)
    assert (sink.taken, caught.value.reason) == ([1], "message-stalled")
    assert reader._backlogs.counter == BACKLOGS_AT_ONCE, "another may be read"


def test_of_two_connections_none_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closing(Stream):
        closed = False

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(backlog, "MAX_MESSAGES", 1)
    monkeypatch.setattr(backlog, "began_long_ago", lambda _: True)
    monkeypatch.setattr(backlog, "reaches", lambda *_: False)
    past, live = Closing(*[identity_frame(seq) for seq in range(1, 9)]), Closing(identity_frame(9))
    sink, nothing = Sink(), cast(Any, None)
    reader = Subscriber(nothing, sink, lambda *_: False)
    monkeypatch.setattr(reader, "open", lambda *_: live)
    with pytest.raises(StreamEnded):
        reader.read(known_host(), cast(Any, past), 0, from_the_start=True)
    assert sink.taken == [9] and past.closed and live.closed


def test_a_host_that_sends_little_else_has_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    host = known_host(trusted=True)
    sink, end = read(host, *[b"\xff"] * 200)
    assert end == "frames-unreadable" and len(sink.rejected) == 100 and host.unreadable == 100
    mixed = [part for seq in range(1, 201) for part in (identity_frame(seq), b"\xff")]
    sink, end = read(known_host(trusted=True), *mixed)
    assert end == "closed" and len(sink.taken) == len(sink.rejected) == 200
    monkeypatch.setattr(subscriber, "UNREADABLE_SECONDS", -1.0)
    assert read(known_host(trusted=True), *[b"\xff"] * 200)[1] == "closed"


def test_the_next_connection_asks_from_behind_what_stopped_the_last() -> None:
    host = known_host()
    for _ in range(3):
        host.note_unreadable()
    host.step_over(alone=False)
    assert host.skip == 3
    host.note_event("", 0.0)
    assert host.skip == 0
    steps = []
    for _ in range(5):
        host.step_over(alone=True)
        steps.append(host.skip)
    # The step before was at the same place already.
    assert steps == [1, 2, 4, 8, 16]
    assert host.cursor._book.gaps == {host.id: "unreadable"}
    other = known_host()
    other.step_over(alone=True)
    assert other.skip == 0

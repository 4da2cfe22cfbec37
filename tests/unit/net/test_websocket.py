"""The WebSocket codec: whatever the pieces, as RFC 6455 says; against websockets' own parser and writer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close, Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.protocol import Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from relay.net import websocket_reader
from relay.net.websocket import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    CloseCode,
    FrameInvalid,
    Opcode,
    binary_frame,
    close_frame,
    control_frame,
    frame_end,
    joined,
)
from relay.net.websocket_reader import (
    KEPT_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_PASSED_OVER_BYTES,
    FrameReader,
    PassedOver,
    close_words,
)
from tests.support.stream import payloads

MASK = bytes((0x11, 0x80, 0x00, 0xFF))
CLIENT_BYTES = 1 << 20
BOTH = pytest.mark.parametrize("masked", [False, True], ids=["server's", "client's"])


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = False, length: int = -1
) -> bytes:
    """A frame, also one that must not be; `length` is said when it is not the payload's."""
    length = len(payload) if length < 0 else length
    head = bytes([fin << 7 | reserved << 4 | opcode])
    if length < 126:
        head += bytes([masked << 7 | length])
    elif length < 65536:
        head += bytes([masked << 7 | 126]) + length.to_bytes(2)
    else:
        head += bytes([masked << 7 | 127]) + length.to_bytes(8)
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))


def reader_of(masked: bool) -> FrameReader:
    return FrameReader(masked=True, max_bytes=CLIENT_BYTES) if masked else FrameReader()


def read_all(data: bytes, *cuts: int, masked: bool = False) -> tuple[list[bytes | PassedOver], FrameReader]:
    """The messages in `data`, given in pieces that end at `cuts`, and those that were passed over."""
    reader = reader_of(masked)
    found: list[bytes | PassedOver] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        reader.feed(data[start:end])
        found += reader.take()
    return found, reader


def read(data: bytes, *cuts: int, masked: bool = False) -> tuple[list[bytes], FrameReader]:
    """The messages alone."""
    found, reader = read_all(data, *cuts, masked=masked)
    return [message for message in found if isinstance(message, bytes)], reader


def refused(data: bytes, *, masked: bool = False) -> str:
    """Why `data` is refused or passed over, also when it comes in two pieces; "" when it is not."""
    reasons = set()
    for cut in (0, len(data) // 2, len(data)):
        found, reader = read_all(data, cut, masked=masked)
        assert reader.ended == (reader.failure is not None)
        assert masked or reader.failure is None or reader.failure.reason == "message-too-big"
        wrong = [message.reason for message in found if isinstance(message, PassedOver)]
        wrong += [reader._wrong[0]] if reader._wrong else []
        wrong += [reader.failure.reason] if reader.failure else []
        reasons.add((wrong or [""])[0])
    (reason,) = reasons
    return reason


# The rules, by the numbers in the module.


@BOTH
@pytest.mark.parametrize("opcode", [0x2, 0x9, 0xA])
@pytest.mark.parametrize("reserved", [1, 2, 4, 7])
def test_rule_1_reserved_bits_are_refused(masked: bool, opcode: int, reserved: int) -> None:
    assert refused(frame(opcode, b"x", reserved=reserved, masked=masked), masked=masked) == "websocket-invalid"


@BOTH
def test_rule_2_other_opcodes_are_refused(masked: bool) -> None:
    for opcode in range(16):
        known = opcode in (0x2, 0x9, 0xA) or (masked and opcode == 0x1)
        if opcode not in (0x0, 0x1, 0x8):
            expected = "" if known else "websocket-invalid"
            assert refused(frame(opcode, masked=masked), masked=masked) == expected, opcode


@BOTH
@pytest.mark.parametrize("size", [0, 10, 125, 126, 200, 65535])
@pytest.mark.parametrize("opcode", [0x2, 0x9])
def test_rule_3_masks_of_the_wrong_side_are_refused(masked: bool, size: int, opcode: int) -> None:
    assert refused(frame(opcode, bytes(size), masked=not masked), masked=masked) == "websocket-invalid"


@BOTH
@pytest.mark.parametrize("opcode", [0x8, 0x9, 0xA])
def test_rule_4_control_frames_are_whole_and_short(masked: bool, opcode: int) -> None:
    assert refused(frame(opcode, fin=False, masked=masked), masked=masked) == "websocket-invalid"
    assert refused(frame(opcode, bytes(126), masked=masked)[:4], masked=masked) == "websocket-invalid"
    _, reader = read(frame(opcode, b"\x03\xe8" + bytes(123), masked=masked), masked=masked)
    assert reader.failure is None and reader.frames == 1


@BOTH
def test_rule_4_a_control_frame_may_come_within_a_message(masked: bool) -> None:
    parts = frame(2, b"a" * 200, fin=False, masked=masked), frame(0, b"b", masked=masked)
    messages, reader = read(parts[0] + frame(9, b"ping", masked=masked) + parts[1], masked=masked)
    assert reader.pings == [b"ping"] and reader.frames == 3 and not reader.ended
    assert messages == ([] if masked else [b"a" * 200 + b"b"])


@BOTH
def test_rule_5_fragments_come_in_turn(masked: bool) -> None:
    def sent(*frames: tuple[int, bool]) -> str:
        return refused(b"".join(frame(opcode, b"x", fin=fin, masked=masked) for opcode, fin in frames), masked=masked)

    assert sent((2, False), (0, False), (0, True), (2, True)) == ""
    assert sent((0, True)) == "websocket-invalid"
    assert sent((2, False), (2, True)) == "websocket-invalid"
    assert sent((2, False), (0, True), (0, True)) == "websocket-invalid"


@BOTH
def test_rule_6_a_length_is_judged_by_its_header(masked: bool) -> None:
    most = CLIENT_BYTES if masked else MAX_MESSAGE_BYTES
    for length in (most + 1, 1 << 62, 1 << 63):
        for fin in (True, False):
            assert refused(frame(2, fin=fin, masked=masked, length=length), masked=masked) == "message-too-big"
    begun = frame(2, b"x" * 10, fin=False, masked=masked)
    assert refused(begun + frame(0, masked=masked, length=most - 9), masked=masked) == "message-too-big"
    assert refused(begun + frame(0, masked=masked, length=most - 10), masked=masked) == ""
    assert refused(frame(2, masked=masked, length=most), masked=masked) == ""


def test_rule_6_a_message_of_the_full_size_passes() -> None:
    payload = b"x" * MAX_MESSAGE_BYTES
    stream = frame(2, payload[:-1], fin=False) + frame(9, b"p") + frame(0, payload[-1:])
    messages, reader = read(stream, 1_000_000, 4_999_999)
    assert messages == [payload] and not reader.ended


def test_rule_7_a_text_message_of_a_server_is_refused() -> None:
    assert refused(frame(1, b"text")) == "text-message"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_rule_7_what_a_client_sends_in_messages_is_not_kept(size: int) -> None:
    stream = frame(1, b"t" * size, masked=True) + frame(9, b"x", masked=True)
    reader = reader_of(masked=True)
    for start in range(0, len(stream), 1000):
        reader.feed(stream[start : start + 1000])
        assert len(reader._buffer) <= 14 + 125 and not reader._part
    assert reader.frames == 2 and reader.pings == [b"x"] and reader.take() == []


@BOTH
def test_rule_8_nothing_is_read_after_the_end(masked: bool) -> None:
    close = frame(8, b"\x03\xe8bye", masked=masked)
    for end in (close, *([frame(3, masked=masked)] if masked else [])):
        stream = frame(9, b"1", masked=masked) + end + frame(9, b"2", masked=masked) + frame(2, b"x", masked=masked)
        messages, reader = read(stream, len(end) + 3, masked=masked)
        assert messages == [] and reader.pings == [b"1"] and reader.ended
        assert reader.closed == (b"\x03\xe8bye" if end is close else None)
        assert len(reader._buffer) <= len(stream)


@given(st.one_of(st.binary(max_size=10), st.tuples(st.integers(0, 5100), st.binary(max_size=5)).map(
    lambda said: said[0].to_bytes(2) + said[1])))  # fmt: skip
def test_rule_9_a_close_frame_says_why(payload: bytes) -> None:
    try:
        close = Close.parse(payload)
        expected = f"{close.code} {close.reason}".strip()
    except (ProtocolError, UnicodeDecodeError):
        expected = ""
    try:
        assert close_words(payload) == expected
    except FrameInvalid as error:
        assert expected == "" and error.code is CloseCode.PROTOCOL_ERROR


WRONG_FRAMES = {
    "a text message": frame(1, b"text"),
    "an empty text message": frame(1),
    "a text message in parts": frame(1, b"te", fin=False) + frame(9, b"") + frame(0, b"xt"),
    "compressed": frame(2, b"x" * 300, reserved=4),
    "compressed in parts": frame(2, b"x" * 300, fin=False, reserved=4) + frame(0, b"y" * 70_000),
    "an opcode that is not there": frame(3, b"x" * 200),
    "a control frame that is not there": frame(11, b"x"),
    "masked": frame(2, b"x" * 130, masked=True),
    "masked and empty": frame(2, masked=True),
    "a masked ping": frame(9, b"x", masked=True),
    "a long ping": frame(9, b"x" * 126),
    "a ping in parts": frame(9, b"x", fin=False),
    "a compressed ping": frame(9, b"x", reserved=4),
    "a continuation of nothing": frame(0, b"x"),
    "a continuation of nothing in parts": frame(0, b"x", fin=False) + frame(0, b"x"),
    "too long": frame(2, bytes(MAX_MESSAGE_BYTES + 1)),
    "too long in parts": frame(2, bytes(3_000_000), fin=False) + frame(0, bytes(2_000_001)),
    "too long in more parts": frame(2, bytes(5_000_000), fin=False) + frame(0, b"x", fin=False) + frame(0, b"x" * 999),
}


@pytest.mark.parametrize("wrong", WRONG_FRAMES)
def test_rule_10_what_comes_behind_is_read(wrong: str) -> None:
    sent = WRONG_FRAMES[wrong]
    stream = frame(2, b"before") + sent + frame(2, b"behind") + frame(9, b"last")
    middle = 8 + len(sent) // 2
    for cuts in ((), (3,), (9, 10, 11), (middle,), (middle, len(stream) - 3), tuple(range(1, min(60, len(stream))))):
        found, reader = read_all(stream, *cuts)
        assert [type(message) for message in found] == [bytes, PassedOver, bytes]
        assert (found[0], found[2]) == (b"before", b"behind") and reader.pings[-1] == b"last"
        assert not reader.ended and not reader._buffer and not reader._part


def test_rule_10_a_message_within_another_is_taken() -> None:
    stream = frame(2, b"begun", fin=False) + frame(2, b"whole") + frame(2, b"more ", fin=False) + frame(0, b"whole")
    found, _ = read_all(stream)
    assert found == [
        PassedOver("websocket-invalid", "a fragment out of turn", b"begun", 5), b"whole", b"more whole"
    ]  # fmt: skip


def test_rule_10_of_a_long_message_only_the_beginning_is_kept() -> None:
    payload = bytes(range(256)) * 40_000
    reader = FrameReader()
    stream = frame(2, payload) + frame(2, b"behind")
    most = 0
    for start in range(0, len(stream), 50_000):
        reader.feed(stream[start : start + 50_000])
        most = max(most, len(reader._buffer) + len(reader._part))
    over, behind = reader.take()
    assert isinstance(over, PassedOver) and behind == b"behind"
    assert (over.reason, over.size, over.head) == ("message-too-big", len(payload), payload[:KEPT_BYTES])
    assert most <= KEPT_BYTES


def test_rule_10_small_frames_that_are_passed_over_count_as_crumbs() -> None:
    _, reader = read(frame(1, b"text") + frame(11) + frame(2, b"x" * 200, reserved=4) + frame(2, b"a message"))
    assert (reader.frames, reader.crumbs) == (4, 2)


def test_rule_10_no_frame_is_waited_for_that_is_too_long_for_anybody() -> None:
    _, reader = read(frame(2, length=MAX_PASSED_OVER_BYTES + 1))
    assert reader.failure is not None and reader.failure.reason == "message-too-big"
    _, reader = read(frame(2, length=MAX_PASSED_OVER_BYTES))
    assert not reader.ended


def test_each_rule_has_a_test_of_its_number() -> None:
    rules = set(re.findall(r"^(\d+)\. ", websocket_reader.__doc__ or "", re.MULTILINE))
    assert rules and rules == {found[1] for name in globals() if (found := re.match(r"test_rule_(\d+)_", name))}


# Both sides against another implementation.


def websockets_say(data: bytes, masked: bool) -> tuple[list[bytes], list[bytes], str]:
    """The same by websockets: its messages and pings, and how the stream ends."""
    if masked:
        protocol: Protocol = ServerProtocol(max_size=CLIENT_BYTES)
    else:
        protocol = ClientProtocol(parse_uri("ws://localhost/"), max_size=MAX_MESSAGE_BYTES)
    # As after a handshake.
    protocol.parser = Protocol.parse(protocol)
    next(protocol.parser)
    protocol.state = protocol.state.OPEN
    protocol.receive_data(data)
    messages: list[bytes] = []
    pings: list[bytes] = []
    part = b""
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode is TheirOpcode.TEXT and not masked:
            return messages, pings, "text-message"
        if event.opcode is TheirOpcode.PING:
            pings.append(bytes(event.data))
        if event.opcode in (TheirOpcode.TEXT, TheirOpcode.BINARY, TheirOpcode.CONT):
            part += event.data
            if event.fin:
                messages.append(part)
                part = b""
    error = protocol.parser_exc
    if isinstance(error, PayloadTooBig):
        return messages, pings, "message-too-big"
    # What a close frame says is for the connection to judge.
    if protocol.close_rcvd is not None or error is None:
        return messages, pings, ""
    return messages, pings, "websocket-invalid"


frames_sent = st.tuples(
    st.sampled_from([0, 0, 1, 2, 2, 2, 2, 3, 9, 9, 10, 11]),
    st.sampled_from([0, 1, 125, 126, 127, 65535, 65536]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0] * 20 + [1, 4]),
    st.sampled_from([False] * 20 + [True]),
)


@BOTH
@given(sent=st.lists(frames_sent, max_size=8), data=st.data())
def test_it_reads_what_websockets_reads_whatever_the_pieces(
    masked: bool, sent: list[tuple[int, int, bool, int, bool]], data: st.DataObject
) -> None:
    stream = b"".join(
        frame(opcode, b"x" * size, fin=fin, reserved=reserved, masked=masked != wrong)
        for opcode, size, fin, reserved, wrong in sent
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    messages, reader = read(stream, *cuts, masked=masked)
    expected, pings, reason = websockets_say(stream, masked)
    if masked or not reason:
        assert messages == ([] if masked else expected) and reader.pings == pings
        assert (reader.failure.reason if reader.failure else "") == reason
        return
    # Of a host's stream the rest is read as well.
    assert messages[: len(expected)] == expected and reader.pings[: len(pings)] == pings
    assert refused(stream)


@BOTH
def test_every_cut_gives_the_same(masked: bool) -> None:
    sent = [(2, b"a" * 300, True), (9, b"ping", True), (2, b"b", False), (10, b"", True), (0, b"c" * 200, True)]
    stream = b"".join(frame(opcode, payload, fin=fin, masked=masked) for opcode, payload, fin in sent)
    for cut in range(len(stream)):
        messages, reader = read(stream, cut, masked=masked)
        assert messages == ([] if masked else [b"a" * 300, b"b" + b"c" * 200])
        assert reader.pings == [b"ping"] and reader.pongs == 1 and reader.frames == 5 and reader.crumbs == 3
        assert not reader.ended


@BOTH
@given(data=st.binary(max_size=300))
def test_any_bytes_are_frames_an_end_or_too_few(masked: bool, data: bytes) -> None:
    _, reader = read(data, masked=masked)
    assert reader.ended or data.endswith(bytes(reader._buffer))


# What is built.


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("payload", [b"", b"abc", bytes(range(125))])
def test_a_control_frame_is_what_another_implementation_reads(mask: bytes | None, payload: bytes) -> None:
    built = control_frame(Opcode.PING, payload, mask)
    assert websockets_say(built, mask is not None) == ([], [payload], "")
    if mask is None:
        assert built == Frame(TheirOpcode.PING, payload).serialize(mask=False)


def test_a_close_frame_is_what_another_implementation_builds() -> None:
    expected = Frame(TheirOpcode.CLOSE, b"\x03\xe9bye").serialize(mask=False)
    assert close_frame(CloseCode.GOING_AWAY, "bye") == expected
    assert len(close_frame(CloseCode.GOING_AWAY, "x" * 500)) <= 127


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 5_000_064])
def test_a_message_is_what_another_implementation_makes(length: int) -> None:
    payload = bytes(length)
    assert binary_frame(payload) == Frame(TheirOpcode.BINARY, payload).serialize(mask=False)


def test_joined_frames_are_read_one_by_one() -> None:
    frames = [bytes([n]) * n * 300 for n in range(5)]
    assert payloads(joined(frames)) == frames
    assert joined([]) == b""


@pytest.mark.parametrize("sizes", [(5, 200, 70_000, 1), (0, 0, 126)])
def test_frame_end_finds_the_next_place_for_another_frame(sizes: tuple[int, ...]) -> None:
    frames = [binary_frame(bytes(size)) for size in sizes]
    chunk = b"".join(frames)
    ends = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    for sent in range(0, len(chunk) + 1, 7):
        assert frame_end(chunk, sent) == min(end for end in ends if end >= sent)
    for end in ends:
        assert frame_end(chunk, end) == end


def test_7_texts_of_a_client_are_kept_where_they_are_asked_for() -> None:
    reader = FrameReader(masked=True, max_bytes=CLIENT_BYTES, texts=True)
    long = bytes(range(256)) * 300
    stream = b"".join(
        (
            frame(TEXT, b"", masked=True),
            frame(BINARY, b"skipped", masked=True),
            frame(TEXT, b"in ", fin=False, masked=True),
            frame(PING, b"between", masked=True),
            frame(CONTINUATION, b"pieces", masked=True),
            frame(BINARY, b"skipped, ", fin=False, masked=True),
            frame(CONTINUATION, b"too", masked=True),
            frame(TEXT, long, masked=True),
        )
    )
    for at in range(0, len(stream), 1000):
        reader.feed(stream[at : at + 1000])
    assert (reader.take(), reader.pings, reader.failure) == ([b"", b"in pieces", long], [b"between"], None)

"""Messages out of a host's bytes: whatever the pieces, as RFC 6455 says; against websockets' own parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol
from websockets.uri import parse_uri

from relay.net.websocket import MAX_MESSAGE_BYTES, MessageReader


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, mask: bool = False) -> bytes:
    length = len(payload)
    head = bytes([fin << 7 | reserved << 4 | opcode])
    if length < 126:
        return head + bytes([mask << 7 | length]) + payload
    if length < 65536:
        return head + bytes([mask << 7 | 126]) + length.to_bytes(2) + payload
    return head + bytes([mask << 7 | 127]) + length.to_bytes(8) + payload


def read(data: bytes, *cuts: int) -> tuple[list[bytes], MessageReader]:
    """The messages in `data`, given in pieces that end at `cuts`."""
    reader = MessageReader()
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        reader.feed(data[start:end])
        found += reader.take()
    return found, reader


def websockets_say(data: bytes) -> tuple[list[bytes], str]:
    """The same by websockets: its messages, and how the stream ends."""
    protocol = ClientProtocol(parse_uri("ws://localhost/"), max_size=MAX_MESSAGE_BYTES)
    # As after a handshake.
    protocol.parser = Protocol.parse(protocol)
    next(protocol.parser)
    protocol.state = protocol.state.OPEN
    protocol.receive_data(data)
    messages: list[bytes] = []
    part = b""
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode is Opcode.TEXT:
            return messages, "text-message"
        if event.opcode in (Opcode.BINARY, Opcode.CONT):
            part += event.data
            if event.fin:
                messages.append(part)
                part = b""
    error = protocol.parser_exc
    if isinstance(error, PayloadTooBig):
        return messages, "message-too-big"
    # What a close frame says is for the connection to judge.
    if protocol.close_rcvd is not None or error is None:
        return messages, ""
    return messages, "websocket-invalid"


frames_sent = st.tuples(
    st.sampled_from([0, 0, 1, 2, 2, 2, 2, 3, 9, 9, 10, 11]),
    st.sampled_from([0, 1, 125, 126, 127, 65535, 65536]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0] * 20 + [1, 4]),
    st.sampled_from([False] * 20 + [True]),
)


@given(st.lists(frames_sent, max_size=8), st.data())
def test_it_reads_what_websockets_reads_whatever_the_pieces(
    sent: list[tuple[int, int, bool, int, bool]], data: st.DataObject
) -> None:
    stream = b"".join(
        frame(opcode, b"x" * size, fin=fin, reserved=reserved, mask=mask) for opcode, size, fin, reserved, mask in sent
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    messages, reader = read(stream, *cuts)
    expected, reason = websockets_say(stream)
    assert messages == expected
    assert (reader.failure.reason if reader.failure else "") == reason


def test_every_cut_gives_the_same() -> None:
    stream = frame(2, b"a" * 300) + frame(9, b"ping") + frame(2, b"b", fin=False) + frame(10) + frame(0, b"c" * 200)
    for cut in range(len(stream)):
        messages, reader = read(stream, cut)
        assert messages == [b"a" * 300, b"b" + b"c" * 200]
        assert reader.pings == [b"ping"] and reader.frames == 5 and reader.crumbs == 3 and not reader.ended


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (frame(2, b"x", reserved=4), "websocket-invalid"),
        (frame(2, b"x" * 10, mask=True), "websocket-invalid"),
        (frame(2, b"x" * 200, mask=True), "websocket-invalid"),
        (frame(3), "websocket-invalid"),
        (frame(9, fin=False), "websocket-invalid"),
        (frame(9, b"x" * 126), "websocket-invalid"),
        (frame(0, b"x"), "websocket-invalid"),
        (frame(2, b"x", fin=False) + frame(2, b"y"), "websocket-invalid"),
        (frame(1, b"text"), "text-message"),
        (b"\x82\x7f" + (MAX_MESSAGE_BYTES + 1).to_bytes(8), "message-too-big"),
        (b"\x02\x7f" + (1 << 63).to_bytes(8), "message-too-big"),
        (frame(2, b"x" * 10, fin=False) + b"\x00\x7f" + (MAX_MESSAGE_BYTES - 9).to_bytes(8), "message-too-big"),
    ],
)
def test_what_a_host_must_not_send_ends_the_stream_on_its_header(stream: bytes, reason: str) -> None:
    messages, reader = read(frame(2, b"before") + stream + frame(2, b"after"), 3)
    assert messages == [b"before"]
    assert reader.ended and reader.failure is not None and reader.failure.reason == reason


def test_a_message_of_the_full_size_passes_and_a_ping_may_come_before_its_last_byte() -> None:
    payload = b"x" * MAX_MESSAGE_BYTES
    stream = frame(2, payload[:-1], fin=False) + frame(9, b"p") + frame(0, payload[-1:])
    messages, reader = read(stream, 1_000_000, 4_999_999)
    assert messages == [payload] and not reader.ended


def test_nothing_is_read_after_a_close() -> None:
    messages, reader = read(frame(8, b"\x03\xe8bye") + frame(2, b"after") + frame(1))
    assert messages == [] and reader.closed == b"\x03\xe8bye" and reader.failure is None

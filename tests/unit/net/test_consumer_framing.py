"""What consumers send, byte by byte: whole frames are taken, halves wait, and the forbidden ends the connection."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode

from relay.web.framing import (
    MAX_PAYLOAD,
    ClientFrame,
    ClientFrameInvalid,
    CloseCode,
    Opcode,
    close_frame,
    control_frame,
    frame_end,
    take_frame,
)


def sent_by_client(opcode: Opcode, payload: bytes) -> bytes:
    return Frame(TheirOpcode(int(opcode)), payload).serialize(mask=True)


def sent_by_server(payload: bytes) -> bytes:
    return Frame(TheirOpcode.BINARY, payload).serialize(mask=False)


@given(st.lists(st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE]), st.binary(max_size=125))))
def test_control_frames_come_out_as_another_library_put_them_in(frames: list[tuple[Opcode, bytes]]) -> None:
    buffer = bytearray(b"".join(sent_by_client(opcode, payload) for opcode, payload in frames))
    taken = [take_frame(buffer) for _ in frames]
    assert taken == [ClientFrame(opcode, payload) for opcode, payload in frames]
    assert take_frame(buffer) is None and not buffer


@pytest.mark.parametrize("size", [0, 125, 126, 65535, MAX_PAYLOAD])
def test_a_data_frame_is_skipped_only_when_it_is_whole(size: int) -> None:
    frame = sent_by_client(Opcode.BINARY, os.urandom(size)) + sent_by_client(Opcode.PING, b"x")
    buffer = bytearray()
    taken = []
    for start in range(0, len(frame), 1000):
        buffer += frame[start : start + 1000]
        while got := take_frame(buffer):
            taken.append(got)
    assert taken == [ClientFrame(Opcode.BINARY, b""), ClientFrame(Opcode.PING, b"x")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sent_by_client(Opcode.BINARY, bytes(MAX_PAYLOAD + 1))[:10], CloseCode.TOO_BIG),
        (bytes((0x82, 0xFF)) + (2**63).to_bytes(8), CloseCode.TOO_BIG),
        (sent_by_server(b"unmasked"), CloseCode.PROTOCOL_ERROR),
        (bytes((0x89, 0xFE)) + (126).to_bytes(2), CloseCode.PROTOCOL_ERROR),
        (bytes((0x09, 0x80, 0, 0, 0, 0)), CloseCode.PROTOCOL_ERROR),
        (bytes((0xC2, 0x80, 0, 0, 0, 0)), CloseCode.PROTOCOL_ERROR),
        (bytes((0x83, 0x80, 0, 0, 0, 0)), CloseCode.PROTOCOL_ERROR),
    ],
)
def test_what_a_client_must_not_send_is_told_by_the_header_alone(data: bytes, code: CloseCode) -> None:
    with pytest.raises(ClientFrameInvalid) as refused:
        take_frame(bytearray(data))
    assert refused.value.code == code


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_an_error_or_too_few(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        while take_frame(buffer) is not None:
            pass
    except ClientFrameInvalid:
        pass
    assert data.endswith(buffer)


def test_built_frames_are_what_another_library_builds() -> None:
    assert control_frame(Opcode.PONG, b"abc") == Frame(TheirOpcode.PONG, b"abc").serialize(mask=False)
    expected = Frame(TheirOpcode.CLOSE, b"\x03\xe9bye").serialize(mask=False)
    assert close_frame(CloseCode.GOING_AWAY, "bye") == expected
    assert len(close_frame(CloseCode.GOING_AWAY, "x" * 500)) <= 127


@pytest.mark.parametrize("sizes", [(5, 200, 70_000, 1), (0, 0, 126)])
def test_frame_end_finds_the_next_place_for_another_frame(sizes: tuple[int, ...]) -> None:
    frames = [sent_by_server(bytes(size)) for size in sizes]
    chunk = b"".join(frames)
    ends = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    for sent in range(0, len(chunk) + 1, 7):
        assert frame_end(chunk, sent) == min(end for end in ends if end >= sent)
    for end in ends:
        assert frame_end(chunk, end) == end

"""WebSocket frames at the bytes' level: reading the few that a consumer may send, building those that are not events.

RFC 6455 without I/O. Used by `connection`. Data frames are recognised only to be skipped: a firehose consumer has
nothing to say, so their payload is never kept.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from relay.kit.errors import RelayError

MAX_PAYLOAD = 64 << 10
MAX_CONTROL_PAYLOAD = 125


class Opcode(IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """RFC 6455 section 7.4.1, those that are sent here."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011


class ClientFrameInvalid(RelayError):
    """A consumer broke the WebSocket protocol; `code` is what to close with."""

    def __init__(self, code: CloseCode, detail: str) -> None:
        super().__init__("websocket-protocol", detail)
        self.code = code


class ClientFrame(NamedTuple):
    """One frame; `payload` is unmasked for control frames and empty for data frames."""

    opcode: Opcode
    payload: bytes


def take_frame(buffer: bytearray) -> ClientFrame | None:
    """The first whole frame, removed from `buffer`; None when more bytes are needed.

    Raises ClientFrameInvalid on what a client must not send, and on a frame above MAX_PAYLOAD as soon as its
    header says so: the buffer never grows past one allowed frame.
    """
    if len(buffer) < 2:
        return None
    opcode = _opcode(buffer[0])
    if not buffer[1] & 0x80:
        raise ClientFrameInvalid(CloseCode.PROTOCOL_ERROR, "unmasked frame")
    length, start = buffer[1] & 0x7F, 2
    if length >= 126:
        start = 4 if length == 126 else 10
        if len(buffer) < start:
            return None
        length = int.from_bytes(buffer[2:start])
    if length > MAX_PAYLOAD:
        raise ClientFrameInvalid(CloseCode.TOO_BIG, f"frame of {length} bytes")
    if opcode >= Opcode.CLOSE and (length > MAX_CONTROL_PAYLOAD or not buffer[0] & 0x80):
        raise ClientFrameInvalid(CloseCode.PROTOCOL_ERROR, "control frame too long or fragmented")
    end = start + 4 + length
    if len(buffer) < end:
        return None
    payload = b""
    if opcode >= Opcode.CLOSE:
        mask = buffer[start : start + 4]
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(buffer[start + 4 : end]))
    del buffer[:end]
    return ClientFrame(opcode, payload)


def _opcode(first_byte: int) -> Opcode:
    if first_byte & 0x70:
        raise ClientFrameInvalid(CloseCode.PROTOCOL_ERROR, "reserved bits set")
    try:
        return Opcode(first_byte & 0x0F)
    except ValueError:
        raise ClientFrameInvalid(CloseCode.PROTOCOL_ERROR, "unknown opcode") from None


def control_frame(opcode: Opcode, payload: bytes = b"") -> bytes:
    """An unmasked control frame, as servers send them."""
    assert opcode >= Opcode.CLOSE and len(payload) <= MAX_CONTROL_PAYLOAD
    return bytes((0x80 | opcode, len(payload))) + payload


def close_frame(code: CloseCode, reason: str = "") -> bytes:
    """A close frame with its code and a short ASCII reason."""
    return control_frame(Opcode.CLOSE, code.to_bytes(2) + reason.encode("ascii", "replace")[:120])


def frame_end(chunk: bytes, sent: int) -> int:
    """Where the frame ends of which byte `sent - 1` is a part: the first point at which other frames may follow.

    `chunk` is whole unmasked frames joined, as consumers get them.
    """
    end = 0
    while end < sent:
        length, header = chunk[end + 1], 2
        if length >= 126:
            header = 4 if length == 126 else 10
            length = int.from_bytes(chunk[end + 2 : end + header])
        end += header + length
    return end

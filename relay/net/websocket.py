"""The constants of the WebSocket wire format, and the frames that we send: RFC 6455 sections 5 and 7.

`websocket_reader` reads with these constants; `stream`, `jsonstream` and `web` build what consumers get, and
`websocket_connection` what hosts get. Without I/O. Must not know of sockets, clocks or what is in a message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

from relay.kit.errors import RelayError

MAX_CONTROL_BYTES = 125

# The bits of a frame's first byte, and of its second.
FIN, RESERVED, RSV1, OPCODE = 0x80, 0x70, 0x40, 0x0F
MASKED = 0x80
# The bit that the opcodes of control frames have and those of messages lack.
CONTROL = 0x8
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
WHOLE = FIN | BINARY
MASK_BYTES = 4
# The header of a frame of 126 to 65,535 bytes, as nearly every event is: first byte, 126, length.
MEDIUM = struct.Struct(">BBH")
_LARGE = struct.Struct(">BBQ")


class Opcode(IntEnum):
    """RFC 6455 section 5.2, the control frames."""

    CLOSE = CLOSE
    PING = PING
    PONG = PONG


class CloseCode(IntEnum):
    """RFC 6455 section 7.4.1, and 1013 of its registry: those that we send."""

    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013


class FrameInvalid(RelayError):
    """The other end sent what it must not. Reasons `websocket-invalid`, `message-too-big`, `text-message`."""

    @property
    def code(self) -> CloseCode:
        """What to close with."""
        return CloseCode.TOO_BIG if self.reason == "message-too-big" else CloseCode.PROTOCOL_ERROR


def control_frame(opcode: Opcode, payload: bytes = b"", mask: bytes | None = None) -> bytes:
    """A control frame: a server's, or a client's with its four random bytes of `mask`."""
    assert len(payload) <= MAX_CONTROL_BYTES
    if mask is None:
        return bytes((FIN | opcode, len(payload))) + payload
    return bytes((FIN | opcode, MASKED | len(payload))) + mask + with_mask(payload, mask)


def close_payload(code: CloseCode, reason: str = "") -> bytes:
    """What a close frame carries: its code and a short ASCII reason."""
    return code.to_bytes(2) + reason.encode("ascii", "replace")[:120]


def close_frame(code: CloseCode, reason: str = "") -> bytes:
    """A server's close frame."""
    return control_frame(Opcode.CLOSE, close_payload(code, reason))


def frame_header(length: int, head: int = WHOLE) -> bytes:
    """The header of a server's frame with a payload of `length` bytes: of a whole binary message, unless `head` says
    otherwise.
    """
    if length < 126:
        return bytes((head, length))
    if length < 65536:
        return MEDIUM.pack(head, 126, length)
    return _LARGE.pack(head, 127, length)


def text_frame(payload: bytes) -> bytes:
    """A server's text message; `payload` is UTF-8."""
    return frame_header(len(payload), FIN | TEXT) + payload


def binary_frame(payload: bytes) -> bytes:
    """A server's binary message."""
    return frame_header(len(payload)) + payload


def joined(payloads: Iterable[bytes]) -> bytes:
    """A server's binary message for each of `payloads`, as one piece."""
    parts: list[bytes] = []
    append, pack = parts.append, MEDIUM.pack
    for payload in payloads:
        size = len(payload)
        # What `frame_header` gives for nearly every event, without the call: replay is as fast as this loop.
        append(pack(WHOLE, 126, size) if 126 <= size < 65536 else frame_header(size))
        append(payload)
    return b"".join(parts)


def payload_start(chunk: bytes, start: int) -> int:
    """Where the payload begins of a server's frame whose header is at `start`."""
    length = chunk[start + 1]
    return start + (2 if length < 126 else 4 if length == 126 else 10)


def frame_end(chunk: bytes, sent: int) -> int:
    """Where the frame ends that holds byte `sent - 1`: the first point at which another frame may follow.

    `chunk` is joined whole frames of a server, as consumers get them.
    """
    end = 0
    while end < sent:
        length, header = chunk[end + 1], 2
        if length >= 126:
            header = 4 if length == 126 else 10
            length = int.from_bytes(chunk[end + 2 : end + header])
        end += header + length
    return end


def with_mask(payload: bytes | memoryview, mask: bytes | memoryview) -> bytes:
    """A payload masked, or unmasked again."""
    size = len(payload)
    key = (bytes(mask) * (size // MASK_BYTES + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


def invalid(detail: str) -> FrameInvalid:
    """The error for a frame that breaks a rule of the RFC."""
    return FrameInvalid("websocket-invalid", detail)

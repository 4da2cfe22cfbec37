"""Events as they go out to consumers: WebSocket frames, unmasked and binary, joined.

Pure functions. Used by the memory tail, by feeds and, for its own frames, by `web`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

_BINARY = 0x82
_MEDIUM = struct.Struct(">BBH")
_LARGE = struct.Struct(">BBQ")


def frame_header(length: int) -> bytes:
    """The header of a final, unmasked, binary frame of `length` bytes (RFC 6455 section 5.2)."""
    if length < 126:
        return bytes((_BINARY, length))
    if length < 65536:
        return _MEDIUM.pack(_BINARY, 126, length)
    return _LARGE.pack(_BINARY, 127, length)


def websocket_frame(payload: bytes) -> bytes:
    """One whole frame with `payload`."""
    return frame_header(len(payload)) + payload


def joined(payloads: Iterable[bytes]) -> bytes:
    """A frame for each of `payloads`, as one piece."""
    parts: list[bytes] = []
    for payload in payloads:
        parts += (frame_header(len(payload)), payload)
    return b"".join(parts)

"""WebSocket framing of events, against the rules of RFC 6455 as the tests' own reader has them."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from relay.stream import wire
from tests.support.stream import payloads


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 5_000_064])
def test_a_frame_is_what_another_implementation_makes(length: int) -> None:
    payload = bytes(length)
    assert wire.websocket_frame(payload) == Frame(Opcode.BINARY, payload).serialize(mask=False)


def test_joined() -> None:
    frames = [bytes([n]) * n * 300 for n in range(5)]
    assert payloads(wire.joined(frames)) == frames
    assert wire.joined([]) == b""

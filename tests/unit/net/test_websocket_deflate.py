"""permessage-deflate, by rule, and against the implementation of a library."""

from __future__ import annotations

import os
import tracemalloc
import zlib

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from relay.net import websocket_deflate
from relay.net.websocket import FIN, RSV1, TEXT, WHOLE, FrameInvalid, frame_header, payload_start, with_mask
from relay.net.websocket_deflate import deflated_frame, inflated, is_offered
from relay.net.websocket_reader import FrameReader

MASK = b"\x01\x80\xff\x00"
TEXTS = [b"", b"x", b"hello " * 1000, os.urandom(70_000).hex().encode()]


def theirs() -> PerMessageDeflate:
    return PerMessageDeflate(True, True, 15, 15)


def client_frame(head: int, payload: bytes) -> bytes:
    header = bytearray(frame_header(len(payload), head))
    header[1] |= 0x80
    return bytes(header) + MASK + with_mask(payload, MASK)


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=10; server_max_window_bits=15",
        'permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits="8"',
        "permessage-bzip2, permessage-deflate; server_max_window_bits=9, permessage-deflate",
        " permessage-deflate ;client_max_window_bits ",
    ],
)
def test_1_what_is_taken(offer: str) -> None:
    assert is_offered(offer)


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; unknown",
        "permessage-deflate-more",
        ", ; =" * 1000,
    ],
)
def test_1_what_is_not(offer: str) -> None:
    assert not is_offered(offer)


@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_3_what_we_send_is_read_by_others(text: bytes) -> None:
    for head, opcode in ((FIN | TEXT, Opcode.TEXT), (WHOLE, Opcode.BINARY)):
        frame = deflated_frame(text, head)
        assert frame[0] == head | RSV1
        payload = frame[payload_start(frame, 0) :]
        assert theirs().decode(Frame(opcode, payload, rsv1=True)).data == text


def test_2_each_is_read_without_those_before_it() -> None:
    """And to compress it takes no memory but for what comes out: a compressor is made once."""
    texts = [os.urandom(30).hex().encode() * (number + 1) for number in range(50)]
    frames = [deflated_frame(text, WHOLE) for pair in zip(texts, texts, strict=True) for text in pair]
    read = [inflated(frame[payload_start(frame, 0) :], 1 << 20) for frame in frames]
    assert read == [text for pair in zip(texts, texts, strict=True) for text in pair]
    tracemalloc.start()
    deflated_frame(texts[0], WHOLE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_2_what_one_began_that_failed_is_in_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self) -> None:
            self._theirs = compressobj(websocket_deflate.LEVEL, zlib.DEFLATED, -15)
            self._failed = False

        def compress(self, payload: bytes) -> bytes:
            return self._theirs.compress(payload)

        def flush(self, mode: int) -> bytes:
            if not self._failed:
                self._failed = True
                raise MemoryError
            return self._theirs.flush(mode)

    compressobj = zlib.compressobj
    monkeypatch.setattr(zlib, "compressobj", lambda *_: Failing())
    websocket_deflate._compressor.cache_clear()
    with pytest.raises(MemoryError):
        deflated_frame(b"somebody's", WHOLE)
    monkeypatch.undo()
    sent = deflated_frame(b"another's", WHOLE)
    assert inflated(sent[payload_start(sent, 0) :], 1000) == b"another's"


@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_3_what_others_send_is_read(text: bytes) -> None:
    compressed = bytes(theirs().encode(Frame(Opcode.TEXT, text)).data)
    reader = FrameReader(masked=True, max_bytes=1 << 20, texts=True, deflate=True)
    half = len(compressed) // 2
    reader.feed(client_frame(TEXT | RSV1, compressed[:half]))
    reader.feed(client_frame(0x80, compressed[half:]))
    reader.feed(client_frame(FIN | TEXT, b"as it is"))
    assert (reader.take(), reader.failure) == ([text, b"as it is"], None)


def test_3_only_where_it_was_agreed_on() -> None:
    for head, deflate in ((FIN | TEXT | RSV1, False), (FIN | TEXT | RSV1 | 0x20, True), (FIN | 0x9 | RSV1, True)):
        reader = FrameReader(masked=True, max_bytes=1 << 20, texts=True, deflate=deflate)
        reader.feed(client_frame(head, b""))
        assert reader.failure is not None and reader.failure.reason == "websocket-invalid"


def test_4_a_bomb() -> None:
    compressed = bytes(theirs().encode(Frame(Opcode.TEXT, bytes(50 << 20))).data)
    tracemalloc.start()
    with pytest.raises(FrameInvalid) as caught:
        inflated(compressed, 1 << 20)
    assert caught.value.reason == "message-too-big"
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 << 20, "it is not inflated beyond its bound"
    with pytest.raises(FrameInvalid, match="compressed"):
        inflated(b"\xff" * 20, 1 << 20)

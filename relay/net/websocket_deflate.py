"""Compressed messages: the extension permessage-deflate (RFC 7692), without anything kept from one to the next.

`web` and `jsonstream` agree on it with consumers that offer it; a message is compressed once for all who have it. What
they send is inflated by `websocket_reader`. Must not know of sockets, or who may have it.

1. An offer is taken when it has parameters of the RFC alone, and lets us keep to our window of 32 KiB.
2. Neither side takes over its context, which the answer says.
3. A compressed message has the bit RSV1 in its first frame, and lacks the four bytes that end each block.
4. What is inflated has a bound.
"""

from __future__ import annotations

import zlib
from functools import cache

from relay.net.websocket import RSV1, FrameInvalid, frame_header, invalid

ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
LEVEL = 1

_NAME = "permessage-deflate"
_FLAGS = frozenset({"server_no_context_takeover", "client_no_context_takeover"})
_CLIENT_WINDOW = "client_max_window_bits"
_SERVER_WINDOW = "server_max_window_bits"
_END = b"\x00\x00\xff\xff"


def is_offered(extensions: str) -> bool:
    """Whether one of the offers in a client's `Sec-WebSocket-Extensions` can be taken."""
    return any(map(_can_be_taken, extensions[:1024].split(",")))


def deflated_frame(payload: bytes, head: int) -> bytes:
    """A server's whole message that is compressed; `head` is that of one that is not. For one thread at a time."""
    compressor = _compressor()
    try:
        data = compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH)
    except BaseException:
        # It may hold the beginning of this message.
        _compressor.cache_clear()
        raise
    return frame_header(len(data) - len(_END), head | RSV1) + data[: -len(_END)]


def inflated(payload: bytes, max_bytes: int) -> bytes:
    """What a compressed message says. Raises FrameInvalid: it is broken, or longer than `max_bytes`."""
    decompressor = zlib.decompressobj(-15)
    try:
        data = decompressor.decompress(payload + _END, max_bytes + 1)
    except zlib.error as error:
        raise invalid(f"compressed: {error}") from None
    if len(data) > max_bytes:
        raise FrameInvalid("message-too-big", f"a message of more than {max_bytes} bytes")
    return data


@cache
def _compressor() -> zlib._Compress:
    """The one for all messages: a full flush has it forget each. To make it takes 270 KB, and longer than a message."""
    return zlib.compressobj(LEVEL, zlib.DEFLATED, -15)


def _can_be_taken(offer: str) -> bool:
    name, *parameters = (part.strip() for part in offer.split(";"))
    seen: set[str] = set()
    for parameter in parameters:
        key, equals, value = (part.strip() for part in parameter.partition("="))
        bits = value.strip('"')
        if key in seen or not (
            (key in _FLAGS and not equals)
            or (key == _CLIENT_WINDOW and (not equals or bits in _WINDOWS))
            or (key == _SERVER_WINDOW and bits == "15")
        ):
            return False
        seen.add(key)
    return name == _NAME


_WINDOWS = frozenset(map(str, range(8, 16)))

"""Requests and answers between a node and its NATS process, as they cross the socket pair: a length, then a tuple.

Used on both sides; both are of one version. Must load neither gevent nor asyncio.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Iterator
from typing import Any

_LENGTH = struct.Struct("<I")

# What a node asks: a number of its own, then one of these with its arguments. The answer is the number and a result.
# (APPEND, place of the last message, data) -> (APPENDED, place), (REFUSED,) when another message is the last
# (GET, place) -> (FOUND, data) or (NONE,)
# (ENDS,) -> (FOUND, first place, last place)
# (TIP, place): tell the others that there is a message; no answer
APPEND, GET, ENDS, TIP = "append", "get", "ends", "tip"
APPENDED, REFUSED, FOUND, NONE = "appended", "refused", "found", "none"
# To any: what went wrong.
AWAY = "away"
# Unasked for, with the number 0: (TIP, place), (CONNECTED, server), (CUT,)
CONNECTED, CUT = "connected", "cut"


def encode(message: tuple[Any, ...]) -> bytes:
    """`message`, of numbers, texts and bytes."""
    data = marshal.dumps(message)
    return _LENGTH.pack(len(data)) + data


class Inbox:
    """Whole messages out of what a socket gives."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Any, ...]]:
        """The messages that are whole with `data`."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._data)[0]
            if len(self._data) < end:
                return
            message = marshal.loads(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield message

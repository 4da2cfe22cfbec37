"""Messages between the relay and a process of its own, as they cross a socket: marshalled, each behind its length.

Used by `ingest` for worker processes and by `cluster` for the one that speaks NATS, on both sides: they are of one
version and trust each other. Must load neither gevent nor asyncio, and must not know what a message says.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from typing import Any

_LENGTH_BYTES = 4


def encode(message: Any) -> bytes:
    """`message`, of numbers, text, bytes, lists, tuples and dicts, as it goes over the socket."""
    data = marshal.dumps(message)
    return len(data).to_bytes(_LENGTH_BYTES) + data


class Inbox:
    """Whole messages out of the pieces that a socket gives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The messages that `data` completes. All of them have to be taken."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH_BYTES:
            end = start + _LENGTH_BYTES + int.from_bytes(buffer[start : start + _LENGTH_BYTES])
            if len(buffer) < end:
                break
            yield marshal.loads(buffer[start + _LENGTH_BYTES : end])
            start = end
        del buffer[:start]

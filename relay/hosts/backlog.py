"""The backlog of a host that is new or was quiet: what it sends at once when it is asked for all that it has.

Asked by `subscriber`, which decides whether a backlog is taken or passed over. Reads it within bounds, and counts,
compares and dates what came. Must not know what becomes of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

from relay.atproto import frames
from relay.atproto.errors import ProtocolError
from relay.atproto.frames import Info, StreamError
from relay.hosts.host import seconds_of
from relay.net.websocket_connection import Connection, StreamEnded
from relay.net.websocket_reader import PassedOver

# A backlog up to this size is always taken, a larger one only if it began less than MAX_AGE_SECONDS ago.
MAX_MESSAGES = 500
MAX_BYTES = 2 << 20
MAX_AGE_SECONDS = 7200.0
# It is over after a pause of this length, and is not read for longer than this.
PAUSE_SECONDS = 1.0
READ_SECONDS = 10.0


def read(stream: Connection) -> tuple[list[bytes | PassedOver], StreamEnded | None]:
    """What comes before a pause or the bounds of a backlog, or before the stream ends; and that end."""
    held: list[bytes | PassedOver] = []
    size, give_up = 0, time.monotonic() + READ_SECONDS
    while time.monotonic() < give_up and len(held) <= MAX_MESSAGES and size <= MAX_BYTES:
        try:
            messages = stream.receive(PAUSE_SECONDS)
        except StreamEnded as end:
            return held, StreamEnded(end.reason, end.detail)
        if not messages:
            break
        held += messages
        size += _size_of(messages)
    return held, None


def is_much(messages: list[bytes | PassedOver]) -> bool:
    """Whether a backlog is larger than what is always taken."""
    return len(messages) > MAX_MESSAGES or _size_of(messages) > MAX_BYTES


def reaches(past: Connection, held: list[bytes | PassedOver], news: list[bytes | PassedOver]) -> bool:
    """Read on in `past`, within the same bounds, until it has what a new connection brought: then it lacks nothing,
    whatever time its events state. What is read is added to `held`."""
    if not news:
        return False
    first = news[0]
    size, give_up = 0, time.monotonic() + PAUSE_SECONDS
    more = held
    while first not in more:
        if len(held) > 2 * MAX_MESSAGES or size > MAX_BYTES or time.monotonic() > give_up:
            return False
        more = past.receive(PAUSE_SECONDS)
        held += more
        size += _size_of(more)
    return True


def began_long_ago(messages: Iterable[bytes | PassedOver]) -> bool:
    """By the time that the first readable event states."""
    for message in messages:
        with suppress(ProtocolError):
            event = None if isinstance(message, PassedOver) else frames.decode(message)
            if event is not None and not isinstance(event, StreamError | Info):
                stated = seconds_of(event.time)
                if stated is not None:
                    return time.time() - stated > MAX_AGE_SECONDS
    return False


def _size_of(messages: Iterable[bytes | PassedOver]) -> int:
    return sum(len(message.head if isinstance(message, PassedOver) else message) for message in messages)

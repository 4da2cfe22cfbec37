"""Where a consumer begins: a time of Jetstream's, a seq of the firehose, or now.

1. Microseconds since 1970 are behind the message of that time: clients ask for the last one that they have. They come
   from any Jetstream of the network.
2. `seq:N`, and N alone where it is too small for a time, is behind that event: exact, and this relay's alone.
3. What is ahead of now, or of the newest event, is now. What is older than the replay window is its oldest event.
4. Nothing is now.
"""

from __future__ import annotations

from relay.atproto.frames import MAX_OPS
from relay.jsonstream.integers import whole_number
from relay.stream.feed import Feed
from relay.stream.firehose import Firehose

# Jetstream tells the two kinds apart by this: no seq reaches it, and a time did in 2001.
FIRST_TIME_US = 10**15
TIMES_END = 2**63


class CursorInvalid(ValueError):
    """What is wrong with a cursor, in words for whoever sent it."""


class Cursor:
    """A cursor that was read. `time_us` and `seq` are None where they were not given."""

    def __init__(self, text: str | None) -> None:
        """Raises CursorInvalid."""
        self.seq: int | None = None
        self.time_us: int | None = None
        if not text:
            return
        digits = text.removeprefix("seq:")
        number = whole_number(digits, TIMES_END)
        if number is None:
            raise CursorInvalid("cursor is microseconds since 1970, or seq: and a seq of the firehose")
        if digits != text or number < FIRST_TIME_US:
            self.seq = number
        else:
            self.time_us = number

    def feed(self, firehose: Firehose) -> tuple[Feed, int]:
        """A feed from there, and the first time that messages may have. Reads the log in a thread. Raises LogError."""
        # No later event is this close to the newest one. What is ahead is not looked for: meanwhile events may come.
        if self.time_us is not None and self.time_us < firehose.newest_us + MAX_OPS:
            # A commit's operations have times behind its own.
            return firehose.attach_at(self.time_us - MAX_OPS + 2), self.time_us + 1
        if self.seq is not None and self.seq <= firehose.last_seq:
            return firehose.attach(self.seq), 0
        return firehose.attach(None), 0

"""A feed: one consumer's position in the log, not a buffer, and how it reads on from there.

At the head every feed hands out the same chunk. Behind it, a feed takes chunks from memory or blocks from the disk
until it has caught up. Made by `firehose`, read by `web` and `jsonstream`. Must not know of sockets, limits or pings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from itertools import cycle

import gevent
from gevent.threadpool import ThreadPool

from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import FellBehind, LogReader
from relay.eventlog.record import Record
from relay.kit.background import in_thread, yield_hub
from relay.kit.errors import RelayError
from relay.net.websocket import joined
from relay.stream.at_hand import AtHand
from relay.stream.pieces import LargeChunks, pieces_of
from relay.stream.read_budget import Share
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Chunk, Tail, chunk_of

# A turn of a feed that is behind is long where it has waited long: while the relay works through a backlog of its own,
# consumers that are handed a piece at a time would never be at the head again. All of them together get this share.
TURN_SHARE = 0.2
MAX_TURN_SECONDS = 0.005
# For as long a feed goes on with pieces of a chunk of which conversion leaves nothing.
PIECES_SECONDS = 0.001


class ConsumerTooSlow(RelayError):
    """The consumer's position fell out of the replay window."""

    def __init__(self) -> None:
        super().__init__("consumer-too-slow", "the next event is older than the replay window")


class Turns:
    """The turns of the hub of the feeds that are behind. Those who read the log share a few `lines` of them."""

    def __init__(self, lines: int) -> None:
        self._lines: Iterator[Hashable] = cycle([object() for _ in range(lines)])
        self._waiting = 0

    def wait(self, *, in_line: bool) -> float:
        """Let all others have a turn. Returns when this one ends, in monotonic seconds."""
        asked = time.monotonic()
        self._waiting += 1
        try:
            yield_hub(next(self._lines) if in_line else None)
        finally:
            sharing, self._waiting = self._waiting, self._waiting - 1
        began = time.monotonic()
        return began + min(TURN_SHARE * (began - asked) / sharing, MAX_TURN_SECONDS)


class LogSource:
    """The log as one feed reads it: the hub what is in the page cache, a native thread the rest."""

    __slots__ = ("_at_hand", "_log", "_pool", "_reader")

    def __init__(self, log: SegmentLog, at_hand: AtHand, pool: ThreadPool) -> None:
        self._log = log
        self._at_hand = at_hand
        self._pool = pool
        self._reader = LogReader(log)

    def at_hand(self, after_seq: int, head: int) -> tuple[bytes, int] | None:
        """What `AtHand.after` gives. Never waits."""
        return self._at_hand.after(after_seq, head, self._reader)

    def read(self, after_seq: int) -> list[Record]:
        """What `LogReader.read` gives or raises, from a native thread."""
        return in_thread(self._pool, self._reader.read, after_seq)

    def let_go(self) -> None:
        """Close the file, which takes room while it is open, even when it is deleted."""
        self._reader.let_go()

    def bytes_after(self, seq: int) -> int:
        """What `SegmentLog.bytes_after` gives, from a native thread."""
        return in_thread(self._pool, self._log.bytes_after, seq)


class Feed:
    """One consumer's way through the log: `position` is the seq up to which everything was handed out.

    `outdated`: the cursor was older than the window, so the feed starts later than was asked for. `convert`, for
    consumers who do not take the firehose as it is, makes the bytes that go out from a chunk, without its events up to
    the given seq. While `waits` is set nothing is handed out. `at_end` is called when the feed is closed.
    """

    __slots__ = (
        "__weakref__",
        "_large",
        "_reading",
        "_share",
        "_source",
        "_suppressions",
        "_tail",
        "_turn_end",
        "_turns",
        "at_end",
        "convert",
        "outdated",
        "position",
        "waits",
    )

    def __init__(
        self,
        position: int,
        outdated: bool,
        tail: Tail,
        suppressions: Suppressions,
        source: LogSource,
        share: Share,
        turns: Turns,
        large: LargeChunks,
    ) -> None:
        self.position = position
        self.outdated = outdated
        self.convert: Callable[[Chunk, int], bytes] | None = None
        self.at_end: Callable[[], None] | None = None
        self.waits = False
        self._tail = tail
        self._suppressions = suppressions
        self._source = source
        self._share = share
        self._turns = turns
        self._large = large
        # Whether the log was read since the last events from memory.
        self._reading = False
        self._turn_end = 0.0

    def next(self, timeout: float) -> bytes | None:
        """The next events as joined WebSocket frames; None when none were found for `timeout` seconds. Empty when
        nothing was left of them after conversion.

        Those of the last call count as sent. Raises ConsumerTooSlow when they are no longer in the log, LogError
        when the disk fails.
        """
        if self.waits:
            gevent.sleep(timeout)
            return None
        if self._reading:
            self._share.sent()
        deadline = time.monotonic() + timeout
        while True:
            before = self.position
            found = self._tail.after(before) if self.convert is None else self._converted(before)
            if found is not None:
                data, self.position = found
                if self._reading:
                    self._reading = False
                    self._share.give_back()
                    self._source.let_go()
            elif self.position < self._tail.head:
                self._reading = True
                read = self._from_log(before, deadline)
                if read is None:
                    return None
                data = read
            else:
                self._tail.wait(self.position, deadline, converts=self.convert is not None)
                data = b""
            if data or (self.convert is not None and self.position != before):
                return data
            # Also when it is behind: millions of events in a row may be hidden.
            if time.monotonic() >= deadline:
                return None

    @property
    def behind(self) -> bool:
        """True when something is published that was not handed out."""
        return self.position < self._tail.head

    def give_way(self) -> None:
        """Let all others have a turn, unless the last one was waited for so long that more may be handed out in it."""
        if time.monotonic() >= self._turn_end:
            self._turn_end = self._turns.wait(in_line=self._reading)

    @property
    def reads_log(self) -> bool:
        """True when what is handed out comes from the log, and not from memory."""
        return self._reading

    def close(self) -> None:
        """Nothing more is read."""
        self._reading = False
        self._share.give_back()
        if self.at_end is not None:
            self.at_end()

    def bytes_left(self) -> int:
        """About how many bytes of the log come after `position`. Blocks on the disk. Raises LogError."""
        return self._source.bytes_after(self.position)

    @property
    def in_the_way(self) -> bool:
        """True when what was handed out last has been in memory for long and others wait for that room."""
        return self._share.in_the_way

    def _converted(self, position: int) -> tuple[bytes, int] | None:
        """What `Tail.after` gives, converted; of a large chunk the next piece."""
        chunk = self._tail.chunk_after(position)
        assert self.convert is not None
        if chunk is None:
            return None
        pieces = self._large.after(chunk, position)
        if pieces is None:
            return self.convert(chunk, position), chunk.last_seq
        data, last_seq, end = b"", chunk.last_seq, time.monotonic() + PIECES_SECONDS
        for piece in pieces:
            data, last_seq = self.convert(piece, position), piece.last_seq
            if data or time.monotonic() > end:
                break
        return data, last_seq

    def _from_log(self, position: int, deadline: float) -> bytes | None:
        """The next events of the log; None when it was not this feed's turn until `deadline`."""
        found = self._from_page_cache(position, deadline)
        return self._from_disk(position, deadline) if found is None else found

    def _from_page_cache(self, position: int, deadline: float) -> bytes | None:
        """The same where no disk is needed, or None. It does not stand in line behind those who wait for the disk."""
        if self.convert is not None or not (self._share.has_room or self._ask(deadline)):
            return None
        found = self._source.at_hand(position, self._tail.head)
        if found is None:
            return None
        data, self.position = found
        self._share.settle(len(data))
        if not data:
            # All of it is hidden, and so may be the next million events.
            self.give_way()
        return data

    def _from_disk(self, position: int, deadline: float) -> bytes | None:
        """The same in any case, read in a thread."""
        if not self._ask(deadline):
            return None
        head = self._tail.head
        size = 0
        try:
            records = self._source.read(position)
            size = sum(len(record.frame) for record in records)
        except FellBehind:
            raise ConsumerTooSlow from None
        finally:
            self._share.settle(size)
        if records and records[-1].seq > head:
            # Durable but not yet published: whether it hides something is not yet known.
            records = [record for record in records if record.seq <= head]
        if not records:
            # Nothing is left up to the head: those seqs were passed over, or their records are damaged.
            self.position = head
            return b""
        if self.convert is not None:
            data = b"".join(self._converted_in_turns(records, position))
            # What is in memory from here on: JSON may be several times as long as what was read.
            self._share.settle(len(data))
        else:
            data = joined(self._suppressions.shown(records))
        self.position = records[-1].seq
        return data

    def _converted_in_turns(self, records: list[Record], position: int) -> Iterator[bytes]:
        assert self.convert is not None
        for number, piece in enumerate(pieces_of(records)):
            if number:
                self.give_way()
            yield self.convert(chunk_of(piece, piece[-1].seq, self._suppressions), position)

    def _ask(self, deadline: float) -> bool:
        return self._share.ask(max(deadline - time.monotonic(), 0.0))

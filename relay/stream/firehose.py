"""What consumers read: a feed is a position in the log, not a buffer.

At the head every feed hands out the same chunk. Behind it, a feed takes chunks from memory or blocks from the disk
until it has caught up. Made by `web` for each consumer. Must not know of sockets, limits or pings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from itertools import cycle
from typing import NamedTuple
from weakref import WeakSet

import gevent
from gevent.threadpool import ThreadPool

from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import FellBehind, LogReader, last_seq_before
from relay.eventlog.record import Record
from relay.kit import metrics
from relay.kit.background import in_thread, yield_hub
from relay.kit.errors import RelayError
from relay.net.websocket import joined
from relay.stream.at_hand import AtHand
from relay.stream.read_budget import ReadBudget, Share
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Chunk, Tail, chunk_of

READ_THREADS = 4
# The turns of the hub that all who read the log share: with one for each, fifty would leave too few to hosts' events.
REPLAY_TURNS = 4
# A turn of one of them is long where it has waited long: while the relay works through a backlog of its own, consumers
# that read a piece at a time would never be at the head again. With less than a hundred of them it stays a piece.
TURN_SHARE = 0.01
MAX_TURN_SECONDS = 0.002


class FutureCursor(RelayError):
    """A cursor above every seq that was given out."""

    def __init__(self, cursor: int, last_seq: int) -> None:
        super().__init__("future-cursor", f"cursor {cursor} is ahead of {last_seq}")


class ConsumerTooSlow(RelayError):
    """The consumer's position fell out of the replay window."""

    def __init__(self) -> None:
        super().__init__("consumer-too-slow", "the next event is older than the replay window")


class Window(NamedTuple):
    """The replay window: seqs, the times of their events in Unix seconds (None when there are none), files."""

    first_seq: int
    last_seq: int
    oldest_at: float | None
    newest_at: float | None
    segments: int


class Firehose:
    """Everything that is published and still in the window."""

    def __init__(self, log: SegmentLog, tail: Tail, suppressions: Suppressions) -> None:
        self._log = log
        self._tail = tail
        self._suppressions = suppressions
        self._pool = ThreadPool(READ_THREADS)
        self._budget = ReadBudget()
        self._at_hand = AtHand(suppressions)
        # Bounded by the consumers.
        self._feeds: WeakSet[Feed] = WeakSet()
        self._turns: Iterator[Hashable] = cycle([object() for _ in range(REPLAY_TURNS)])
        metrics.LOG_FIRST_SEQ.set_function(lambda: log.first_seq)
        metrics.LOG_LAST_SEQ.set_function(lambda: log.last_seq)
        metrics.LOG_SEGMENTS.set_function(lambda: len(log.segments))

    @property
    def first_seq(self) -> int:
        """The oldest seq that can be replayed."""
        return self._log.first_seq

    @property
    def last_seq(self) -> int:
        """The newest seq that consumers may have."""
        return self._tail.head

    @property
    def newest_us(self) -> int:
        """The time of the newest event in the log, in microseconds; 0 when there is none."""
        return self._log.last_time_us

    def window(self) -> Window:
        """What can be replayed now."""
        segments = self._log.segments
        if not segments:
            return Window(0, self.last_seq, None, None, 0)
        newest = self._log.last_time_us / 1e6 or None
        return Window(segments[0].first_seq, self.last_seq, segments[0].created_us / 1e6, newest, len(segments))

    def attach(self, cursor: int | None) -> Feed:
        """A feed of the events with seq > `cursor`: 0 is the whole window, None is live. Raises FutureCursor."""
        if cursor is None:
            return self._feed(self.last_seq, outdated=False)
        if cursor > self.last_seq:
            raise FutureCursor(cursor, self.last_seq)
        oldest = self.first_seq - 1
        return self._feed(max(cursor, oldest), outdated=0 < cursor < oldest)

    def attach_at(self, time_us: int) -> Feed:
        """A feed that begins with the oldest event in the window whose time is not before `time_us`; live if there is
        none. Reads in a native thread. Raises LogError `log-io`.
        """
        before = in_thread(self._pool, last_seq_before, self._log, time_us)
        # The log has events a moment before consumers may have them.
        return self.attach(min(before, self.last_seq))

    def trimmed(self, first_seq: int) -> None:
        """Forget what was hidden of events that are gone, now that the log begins at `first_seq`.

        Feeds that have a deleted segment open still read it.
        """
        read = (feed.position + 1 for feed in self._feeds if feed.reads_log)
        self._suppressions.forget_before(min((first_seq, *read)))

    def close(self) -> None:
        """Stop the threads that read for feeds; feeds that are behind end with an error."""
        self._pool.kill()

    def _feed(self, position: int, *, outdated: bool) -> Feed:
        source = LogSource(self._log, self._at_hand, self._pool)
        feed = Feed(position, outdated, self._tail, self._suppressions, source, Share(self._budget), self._turns)
        self._feeds.add(feed)
        return feed


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
        turns: Iterator[Hashable],
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
        """Let all others have a turn, unless the last one was waited for so long that more may be read in it. Those who
        read the log come next in a few turns for all of them.
        """
        if not self._reading:
            yield_hub()
            return
        asked = time.monotonic()
        if asked >= self._turn_end:
            yield_hub(next(self._turns))
            began = time.monotonic()
            self._turn_end = began + min(TURN_SHARE * (began - asked), MAX_TURN_SECONDS)

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
        """What `Tail.after` gives, converted."""
        chunk = self._tail.chunk_after(position)
        assert self.convert is not None
        return None if chunk is None else (self.convert(chunk, position), chunk.last_seq)

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
        self.position = records[-1].seq
        if self.convert is not None:
            data = self.convert(chunk_of(records, self.position, self._suppressions), position)
            # What is in memory from here on: JSON may be several times as long as what was read.
            self._share.settle(len(data))
            return data
        return joined(self._suppressions.shown(records))

    def _ask(self, deadline: float) -> bool:
        return self._share.ask(max(deadline - time.monotonic(), 0.0))

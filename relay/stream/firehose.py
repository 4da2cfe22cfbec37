"""What consumers may read: the replay window, and a feed of it for each consumer.

Asked by `web`, `jsonstream` and `edge`. How a feed reads is in `feed`. Must not know of sockets, limits or pings.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakSet

from gevent.threadpool import ThreadPool

from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import last_seq_before
from relay.kit import metrics
from relay.kit.background import end_threads, in_thread
from relay.kit.errors import RelayError
from relay.stream.at_hand import AtHand
from relay.stream.feed import Feed, LogSource, Turns
from relay.stream.pieces import LargeChunks
from relay.stream.read_budget import ReadBudget, Share
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail

READ_THREADS = 4
# The turns of the hub that all who read the log share: with one for each, fifty would leave too few to hosts' events.
REPLAY_TURNS = 4


class FutureCursor(RelayError):
    """A cursor above every seq that was given out."""

    def __init__(self, cursor: int, last_seq: int) -> None:
        super().__init__("future-cursor", f"cursor {cursor} is ahead of {last_seq}")


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
        self._turns = Turns(REPLAY_TURNS)
        self._large = LargeChunks()
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

        Feeds that have a deleted segment open still read it, and the tail may begin before the log.
        """
        read = (feed.position + 1 for feed in self._feeds if feed.reads_log)
        self._suppressions.forget_before(min((first_seq, self._tail.first_seq, *read)))

    def close(self) -> None:
        """Stop the threads that read for feeds; feeds that are behind end with an error."""
        end_threads(self._pool)

    def _feed(self, position: int, *, outdated: bool) -> Feed:
        source = LogSource(self._log, self._at_hand, self._pool)
        share = Share(self._budget)
        feed = Feed(position, outdated, self._tail, self._suppressions, source, share, self._turns, self._large)
        self._feeds.add(feed)
        return feed

"""A standby's side of the stream: takes every message into this node's own log, and claims when the active one is lost.

Run by `standby`. The records are written by the group commit, as those of the active node and of an edge are. Rules 1,
2 and 6 of `protocol`. Must not know what is in a frame, or what becomes of a node that has claimed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import gevent
from gevent.event import Event as Signal

from relay.cluster.link import Link
from relay.cluster.protocol import ClusterError, Kind, Message, Place, decode, encode, find_place
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.record import Record, records_in
from relay.kit import metrics
from relay.kit.errors import RelayError, StoreError
from relay.stream.group_commit import GroupCommit
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail

# How often to look for a message that nobody has told of.
LOOK_SECONDS = 0.25
RETRY_SECONDS = 0.5
# What only an operator can change is looked at again after this long.
STUCK_SECONDS = 5.0
# A stream that does not answer for a moment is not news.
AWAY_SECONDS = 10.0
# How often to look whether the stream has lost messages.
LOOK_BACK_SECONDS = 1.0
LOGGED_SECONDS = 5.0

log = logging.getLogger(__name__)


class Follower:
    """The way from the stream into the log. `stored` gives the seq up to which SQL has everything, and may raise
    StoreError: a node with less in its log does not claim. `claimed` is set once this is the active node.
    """

    def __init__(
        self,
        link: Link,
        segment_log: SegmentLog,
        tail: Tail,
        suppressions: Suppressions,
        node: str,
        stored: Callable[[], int],
    ) -> None:
        self.claimed = Signal()
        self.place: Place | None = None
        self._link = link
        self._log = segment_log
        self._node = node
        self._stored = stored
        self._trouble: str | None = "not connected yet"
        self._away_since: float | None = time.monotonic()
        # When the last message came, and since when the stream has answered that there is none.
        self._came_at = time.monotonic()
        self._answers_since: float | None = None
        self._looked_at = 0.0
        # The newest record that was put, in the log already or on its way there.
        self._last = segment_log.last_seq
        self._commits: GroupCommit[Record] = GroupCommit(
            "cluster", segment_log, tail, suppressions, _as_they_are, _nothing_more
        )
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def on_failure(self, make_room: Callable[[], None]) -> None:
        """Have `make_room` called when the log cannot be written, which may be for lack of room."""
        self._commits.make_room = make_room

    @property
    def problem(self) -> str | None:
        """Why this node does not follow, in words, or None."""
        if self._commits.problem:
            return self._commits.problem
        away = self._away_since is not None and time.monotonic() - self._away_since < AWAY_SECONDS
        return None if away or self._trouble is None else f"cluster: {self._trouble}"

    @property
    def active(self) -> str:
        """The active node, as far as this one knows; empty when there is none."""
        return self.place.active if self.place is not None and not self.place.released else ""

    def start(self) -> None:
        """Begin."""
        self._commits.start()
        self._greenlet = gevent.spawn(self._run)

    def stop(self, timeout: float) -> None:
        """End, with what was taken in the log within `timeout` seconds."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=1.0)
        self._commits.stop(timeout)

    def close_log(self, timeout: float) -> None:
        """Close the log within `timeout` seconds; it is left as it is when the disk does not answer."""
        self._commits.close_log(timeout)

    def _run(self) -> None:
        while not self.claimed.is_set():
            try:
                self._step()
            except RelayError as error:
                stuck = error.reason != "cluster-away"
                self._answers_since = None
                if str(error) != self._trouble:
                    (log.error if stuck else log.warning)("this node does not follow the cluster: %s", error)
                self._trouble = str(error)
                if stuck:
                    # Looked for again: the stream may have changed.
                    self.place, self._away_since = None, 0.0
                elif self._away_since is None:
                    self._away_since = time.monotonic()
                gevent.sleep(STUCK_SECONDS if stuck else RETRY_SECONDS)
            except Exception as error:
                # A bug: it may be another message's turn when it is looked for again.
                log.exception("following the cluster crashed")
                self._trouble = f"it crashed: {type(error).__name__}"
                self.place, self._answers_since, self._away_since = None, None, 0.0
                gevent.sleep(STUCK_SECONDS)

    def _step(self) -> None:
        """Take one message, or wait for one."""
        place = self.place
        if place is None:
            place = self.place = self._find()
        data = self._link.get(place.at + 1)
        now = time.monotonic()
        self._trouble, self._away_since = None, None
        if data is not None:
            self._came_at, self._answers_since = now, None
            self._take(place, data)
            return
        if self._answers_since is None or now >= self._looked_at + LOOK_BACK_SECONDS:
            self._look_back(place)
            self._looked_at = now
        if self._answers_since is None:
            self._answers_since = now
        if place.may_claim(now - self._came_at, now - self._answers_since) and self._claim(place):
            self.claimed.set()
            return
        self._link.tip.clear()
        self._link.tip.wait(LOOK_SECONDS)

    def _look_back(self, place: Place) -> None:
        """See whether the stream still has what was taken, and what comes next."""
        first, end = self._link.ends()
        if end < place.at:
            self.place = None
            raise ClusterError(
                "cluster-away", f"the stream has lost messages: it had {place.at} of them, and has {end}"
            )
        if first > place.at + 1:
            # This node stood still for longer than the stream keeps them; whether it lacks events is looked at anew.
            self.place = None
            raise ClusterError("cluster-away", f"messages {place.at + 1} to {first - 1} have left the stream untaken")

    def _take(self, place: Place, data: bytes) -> None:
        block = place.take(place.at + 1, decode(data))
        metrics.CLUSTER_TERM.set(place.term)
        if not block:
            return
        for record in _records_of(block):
            if record.seq > self._last:
                self._commits.put(record, record.size)
                self._last = record.seq
            place.note(record.seq)

    def _find(self) -> Place:
        """Where this log ends in the stream."""
        self._wait_until_logged()
        first, end = self._link.ends()
        place = find_place(first, end, self._last, self._at, lambda block: _records_of(block)[-1].seq, self._has_same)
        if place.tail < place.last:
            log.error("the cluster's stream has lost events %d to %d, which this log has", place.tail + 1, place.last)
        return place

    def _has_same(self, block: bytes) -> bool:
        newest = _records_of(block)[-1]
        found = LogReader(self._log).read(newest.seq - 1, 1) if newest.seq >= self._log.first_seq else []
        # What has left the replay window cannot be compared.
        return newest.seq < self._log.first_seq or found[:1] == [newest]

    def _at(self, place: int) -> Message:
        data = self._link.get(place)
        if data is None:
            raise ClusterError("cluster-away", f"message {place} has left the stream")
        return decode(data)

    def _wait_until_logged(self) -> None:
        give_up = time.monotonic() + LOGGED_SECONDS
        while self._log.last_seq < self._last:
            if time.monotonic() > give_up:
                raise ClusterError("cluster-away", "what was taken is not in this node's log yet")
            gevent.sleep(LOGGED_SECONDS / 500)

    def _claim(self, place: Place) -> bool:
        """Become the active node, if this one has everything."""
        try:
            stored = self._stored()
        except StoreError as error:
            log.warning("this node does not take over without the database: %s", error)
            gevent.sleep(RETRY_SECONDS)
            return False
        if place.last < stored:
            self._trouble = f"this log ends at {place.last}, and the database has {stored}: it does not take over"
            gevent.sleep(RETRY_SECONDS)
            return False
        self._wait_until_logged()
        data = encode(Message(Kind.CLAIM, 0, place.tail, self._node))
        try:
            if self._link.append(place.at, data) is None:
                return False
        except ClusterError:
            # It may still be there.
            if self._link.get(place.at + 1) != data:
                return False
        place.take(place.at + 1, decode(data))
        log.warning("this is the active node now, term %d, after seq %d", place.term, place.last)
        return True


def _records_of(block: bytes) -> list[Record]:
    records, end = records_in(block)
    if end != len(block) or not records:
        raise ClusterError("cluster-message", f"a block of {len(block)} bytes cannot be read")
    return records


def _as_they_are(records: list[Record]) -> list[Record]:
    return records


def _nothing_more(_batch: list[Record], _records: list[Record]) -> None:
    pass

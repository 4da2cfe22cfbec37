"""The active node's side of the stream: appends each batch before it is published, and a beat when there is none.

The group commit calls `replicate`, which returns once the batch is in the stream. When another node has claimed,
`superseded` is called, which ends the process: nothing more is published. Rules 3 to 6 of `protocol`. Must not know
what is in a block.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import gevent
from gevent.lock import BoundedSemaphore

from relay.cluster.link import Link
from relay.cluster.protocol import BEAT_SECONDS, ClusterError, Found, Kind, Message, encode, judge
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.writer import Block, encode_block
from relay.kit import metrics
from relay.kit.background import Loop

RETRY_SECONDS = 0.1
# When a batch takes longer than this, the stream counts as not answering.
SLOW_SECONDS = 3.0
RELEASE_SECONDS = 3.0

log = logging.getLogger(__name__)


class Replication:
    """The term `term` of `node`, whose claim is the last message, behind the relay's seq `last`."""

    def __init__(self, link: Link, node: str, term: int, last: int, superseded: Callable[[], None]) -> None:
        self.node = node
        self.term = term
        self._link = link
        self._superseded = superseded
        self._at = term
        self._last = last
        self._turn = BoundedSemaphore()
        # What was being appended when its greenlet was ended, as some are with the relay, with the last seq behind it:
        # it may yet get there.
        self._broken_off: dict[bytes, int] = {}
        self._appended_at = time.monotonic()
        self._since: float | None = None
        self._beats = Loop("beat", self._beat, BEAT_SECONDS / 2)
        metrics.CLUSTER_TERM.set(term)

    @property
    def problem(self) -> str | None:
        """Why nothing is published, in words, or None."""
        since = self._since
        waited = 0.0 if since is None else time.monotonic() - since
        return f"cluster: the stream has not answered for {waited:.0f} s" if waited > SLOW_SECONDS else None

    def start(self) -> None:
        """Begin to say that this node is there."""
        self._beats.start()

    def replicate(self, block: Block) -> None:
        """Return once `block` is in the stream, however long that takes."""
        started = time.perf_counter()
        with self._turn:
            self._append(Kind.BLOCK, block.data, block.last_seq)
        metrics.CLUSTER_APPEND_SECONDS.observe(time.perf_counter() - started)

    def restore(self, segment_log: SegmentLog, until: int) -> None:
        """Append what `segment_log` has up to the seq `until` and the stream has lost. Raises LogError."""
        reader = LogReader(segment_log)
        while self._last < until and (records := reader.read(self._last)):
            self.replicate(encode_block(records))

    def release(self) -> None:
        """Let another node go on at once. Nothing may be replicated from now on."""
        self._beats.stop()
        try:
            with gevent.Timeout(RELEASE_SECONDS, ClusterError("cluster-away", "no answer in time")), self._turn:
                self._append(Kind.RELEASE)
        except ClusterError as error:
            log.warning("the cluster is not told that this node ends: %s", error)

    def _beat(self) -> None:
        if time.monotonic() - self._appended_at < BEAT_SECONDS:
            return
        with self._turn:
            self._append(Kind.BEAT)

    def _append(self, kind: Kind, block: bytes = b"", last: int = 0) -> None:
        """Append a message until it is certain that it is there, or that it never will be. A `block` ends with the seq
        `last`.
        """
        data = b""
        self._since = time.monotonic()
        try:
            # Anew each time: what was broken off may turn out to be before it.
            while not self._is_appended(data := encode(Message(kind, self.term, self._last, self.node, block))):
                gevent.sleep(RETRY_SECONDS)
        except BaseException:
            self._broken_off[data] = max(last, self._last)
            raise
        finally:
            self._since = None
        self._at += 1
        self._last = max(last, self._last)
        self._appended_at = time.monotonic()
        try:
            self._link.tell(self._at)
        except ClusterError:
            # The others look by themselves.
            return

    def _is_appended(self, data: bytes) -> bool:
        try:
            if self._link.append(self._at, data) is not None:
                return True
            found = self._link.get(self._at + 1)
            if found is None:
                self._look_for_the_next()
        except ClusterError as error:
            if self._since is not None and time.monotonic() - self._since < 2 * RETRY_SECONDS:
                log.warning("the cluster's stream does not answer, events wait: %s", error)
            metrics.CLUSTER_APPEND_FAILURES.inc()
            return False
        outcome = judge(data, found)
        if outcome is Found.SUPERSEDED and found in self._broken_off:
            self._last = self._broken_off.pop(found)
            self._at += 1
        elif outcome is Found.SUPERSEDED:
            self._give_up()
        return outcome is Found.APPENDED

    def _look_for_the_next(self) -> None:
        """See why there is no message behind the last one. Raises ClusterError `cluster-away`."""
        first, end = self._link.ends()
        if end < self._at:
            log.critical("the cluster's stream has lost messages: this node's term ends, and a new one begins")
            self._superseded()
        elif first > self._at + 1:
            # It has left the stream by now, so it was not of this node, which stood still for as long.
            self._give_up()

    def _give_up(self) -> None:
        log.critical("another node is active now: nothing is published here from now on")
        self._superseded()

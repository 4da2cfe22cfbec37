"""A node's term as the active one, from the claim to the end: what its relay does beyond what any relay does.

Made by `node`, given to the relay by `app`, which calls its methods in its own order. Must not know how a batch gets
into the stream.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable

from flask import Blueprint

from relay.cluster.link import Link
from relay.cluster.replication import Replication
from relay.cluster.routes import ClusterStatus, cluster_routes
from relay.eventlog.high_water import RESERVE
from relay.eventlog.log import SegmentLog
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import LogError
from relay.store.database import Database
from relay.stream import decisions, ownership
from relay.stream.stream import Stream

LOOK_SECONDS = 0.5
# Another node's disk is as good: one that takes nothing for this long ends the term.
DISK_SECONDS = 2.0

log = logging.getLogger(__name__)


class Term:
    """One term. `handed_over`: an operator ended it. `end` ends the process at once. `in_doubt`: the stream had lost
    messages, and with them maybe events that only others have.
    """

    def __init__(self, link: Link, replication: Replication, end: Callable[[], None], *, in_doubt: bool) -> None:
        self.handed_over = False
        self.node = replication.node
        self._link = link
        self._replication = replication
        self._end = end
        self._in_doubt = in_doubt
        self._stream: Stream | None = None
        self._trouble_since: float | None = None
        self._watch = Loop("cluster's disk", self._look, LOOK_SECONDS)
        metrics.CLUSTER_ACTIVE.set(1)

    @property
    def problem(self) -> str | None:
        """Why nothing is published, in words, or None."""
        return self._replication.problem

    def take(self, segment_log: SegmentLog, db: Database) -> None:
        """Make the database this node's, before anything is read from it. Raises StoreError, LogError."""
        try:
            # Of an earlier term: others have decided since, and the database has that.
            (segment_log.directory / decisions.NAME).unlink(missing_ok=True)
        except OSError as error:
            raise LogError("log-io", str(error)) from error
        ownership.take(segment_log, db)
        if self._in_doubt:
            segment_log.advance(segment_log.next_seq + RESERVE)

    def join(self, stream: Stream) -> None:
        """Have all that `stream` takes go through the cluster's stream first."""
        self._stream = stream
        stream.sequencer.replicate_with(self._replication.replicate)

    def start(self) -> None:
        """Watch this node's disk from now on."""
        self._watch.start()

    def stop(self) -> None:
        """Let another node go on; `stream` has been drained."""
        self._watch.stop()
        self._replication.release()

    def routes(self) -> Blueprint:
        """The cluster's routes, as the active node has them."""
        return cluster_routes(self._status, self._hand_over)

    def _hand_over(self) -> None:
        log.warning("an operator ends the term of this node")
        self.handed_over = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _status(self) -> ClusterStatus:
        last = self._stream.firehose.last_seq if self._stream is not None else 0
        replication = self._replication
        return ClusterStatus(
            replication.node, "active", replication.node, replication.term, last, self._link.server, self.problem
        )

    def _look(self) -> None:
        problem = self._stream.sequencer.problem if self._stream is not None else None
        now = time.monotonic()
        if problem is None:
            self._trouble_since = None
        elif self._trouble_since is None:
            self._trouble_since = now
        elif now - self._trouble_since > DISK_SECONDS:
            log.critical("this node cannot go on, another one is to: %s", problem)
            self._replication.release()
            self._end()

"""A node that stands by: follows the cluster's stream into its own log, serves consumers, and waits.

Run by `node` until `claimed` is set; then the relay is built over the same log. It writes nothing to the database:
that is the active node's.
"""

from __future__ import annotations

import logging
import time

from flask import Blueprint, Flask
from gevent.event import Event as Signal

from relay.cluster.following import Follower
from relay.cluster.link import Link
from relay.cluster.protocol import Place
from relay.cluster.replication import Replication
from relay.cluster.routes import ClusterStatus, cluster_routes, create_standby_app
from relay.config import Settings
from relay.edge.hidden import apply_after
from relay.edge.serving import Serving
from relay.eventlog import spare
from relay.eventlog.log import SegmentLog
from relay.kit import metrics
from relay.kit.vitals import Vitals
from relay.store import projection
from relay.store.open import look_into
from relay.stream.suppressions import Suppressions
from relay.web.services import Services

DRAIN_SECONDS = 2.0

log = logging.getLogger(__name__)


class Standby:
    """All parts of a node that stands by, wired."""

    def __init__(self, settings: Settings, link: Link, node: str) -> None:
        """Raises StoreError, LogError."""
        self._node = node
        self._link = link
        self._vitals = Vitals("relay")
        spare.give_back(settings.persist_dir)
        self._db = look_into(settings.database_url, max_connections=settings.max_db_connections)
        self._log = SegmentLog(settings.persist_dir, copy=True)
        suppressions = Suppressions()
        suppressions.restore(self._db.read(projection.suppressions_if_any))
        stored = self._db.read(projection.position_if_any)
        apply_after(self._log, suppressions, min(stored, self._log.last_seq))
        self._serving = Serving(settings, self._db, self._log, suppressions)
        self._follower = Follower(
            link,
            self._log,
            self._serving.tail,
            suppressions,
            node,
            lambda: self._db.read(projection.position_if_any),
        )
        self._follower.on_failure(self._serving.retention.wake)

        def create_app(services: Services, more: list[Blueprint]) -> Flask:
            return create_standby_app(services, [cluster_routes(self._status, None), *more])

        self._serving.open(create_app, lambda: self._follower.problem, "standby", node)
        metrics.CLUSTER_ACTIVE.set(0)

    @property
    def claimed(self) -> Signal:
        """Set once this node is the active one."""
        return self._follower.claimed

    @property
    def place(self) -> Place:
        """Where this node stands in the stream once it has claimed."""
        place = self._follower.place
        assert place is not None and self.claimed.is_set()
        return place

    def restore(self, replication: Replication) -> bool:
        """Give the stream what it has lost, if it has. True when that was so. Raises LogError."""
        place = self.place
        if place.tail == place.last:
            return False
        replication.restore(self._log, place.last)
        return True

    def start(self) -> None:
        """Start everything, the following last. Raises OSError when a port is taken."""
        self._vitals.start()
        self._serving.start()
        self._follower.start()
        log.info("node %s stands by, on port %d", self._node, self._serving.api.port)

    def stop(self) -> None:
        """End all of it; consumers go on with their cursors."""
        deadline = time.monotonic() + DRAIN_SECONDS
        self._follower.stop(DRAIN_SECONDS)
        self._serving.stop(min(max(deadline - time.monotonic(), 0.2), 0.5))
        self._follower.close_log(DRAIN_SECONDS)
        self._db.close()
        self._vitals.stop()

    def _status(self) -> ClusterStatus:
        place = self._follower.place
        return ClusterStatus(
            self._node,
            "standby",
            self._follower.active,
            place.term if place is not None else 0,
            self._log.last_seq,
            self._link.server,
            self._follower.problem,
        )

"""Builds an edge's parts, wires them, starts and stops them in order: what `app` is to a relay.

Run by `app` with RELAY_MODE=edge. What events flow into starts before them and stops after them.
"""

from __future__ import annotations

import logging
import time

from relay.atproto.errors import SyntaxInvalid
from relay.atproto.hostname import parse_endpoint
from relay.config import Settings
from relay.edge.copier import Copier
from relay.edge.hidden import Hidden
from relay.edge.routes import create_edge_app
from relay.edge.serving import Serving
from relay.edge.source import Source
from relay.edge.upstream_hosts import UpstreamHosts
from relay.eventlog import identity, spare
from relay.eventlog.log import SegmentLog
from relay.kit.errors import ConfigError, LogError
from relay.kit.minute_line import MinuteLine
from relay.kit.vitals import Vitals
from relay.net.http import SERVER, GuardedHttp
from relay.store import installation
from relay.store.open import open_database
from relay.stream.suppressions import Suppressions

DRAIN_SECONDS = 25.0

log = logging.getLogger(__name__)


class Edge:
    """All parts of one edge, wired."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError without an upstream, StoreError, LogError."""
        try:
            upstream = parse_endpoint(settings.edge_upstream)
        except SyntaxInvalid:
            raise ConfigError("RELAY_EDGE_UPSTREAM: an edge needs the address of a relay") from None
        if identity.load(settings.persist_dir):
            raise LogError("log-relay", f"the log in {settings.persist_dir} is a relay's, or was promoted to one")
        self._vitals = Vitals("edge")
        # The upstream's address is the operator's word.
        http = GuardedHttp(SERVER, allow_insecure=True)
        spare.give_back(settings.persist_dir)
        self._db = open_database(settings.database_url, max_connections=settings.max_db_connections, hold=True)
        self._db.write(installation.claim, "edge")
        self._log = SegmentLog(settings.persist_dir, copy=True)
        suppressions = Suppressions()
        self._hidden = Hidden(self._db, self._log, suppressions)
        self._serving = serving = Serving(settings, self._db, self._log, suppressions)
        self._copier = Copier(
            self._log, serving.tail, suppressions, self._hidden.advance, backfill=settings.edge_backfill
        )
        self._copier.on_failure(serving.retention.wake)
        self._source = Source(http, upstream, self._copier)
        self._upstream_hosts = UpstreamHosts(http, upstream, settings.persist_dir, lambda: self._log.last_seq)
        serving.open(
            create_edge_app, lambda: self._copier.problem or self._hidden.problem or self._source.problem, "edge"
        )
        self._minute_line = MinuteLine("edge", serving.health.problem)

    def start(self) -> None:
        """Start everything, the upstream last. Raises OSError when a port is taken."""
        self._vitals.start()
        self._hidden.start()
        self._copier.start()
        self._serving.start()
        self._source.start()
        self._upstream_hosts.start()
        self._minute_line.start()
        log.info("serving on port %d, metrics on port %d", self._serving.api.port, self._serving.metrics.port)

    def stop(self) -> None:
        """Drain: no more events in, those that are in into the log, all that is logged to the consumers."""
        deadline = time.monotonic() + DRAIN_SECONDS
        self._minute_line.stop()
        self._upstream_hosts.stop()
        self._source.stop()
        self._copier.stop(10.0)
        self._serving.stop(min(max(deadline - time.monotonic(), 0.5), 5.0))
        self._hidden.stop()
        self._copier.close_log(5.0)
        self._db.close()
        self._vitals.stop()

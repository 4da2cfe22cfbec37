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
from relay.edge.source import Source
from relay.edge.upstream_hosts import UpstreamHosts
from relay.eventlog import identity, spare
from relay.eventlog.log import SegmentLog
from relay.eventlog.retention import Keep, Retention
from relay.kit.errors import ConfigError, LogError
from relay.kit.minute_line import MinuteLine
from relay.kit.vitals import Vitals
from relay.net.http import SERVER, GuardedHttp
from relay.store import installation
from relay.store.open import open_database
from relay.stream.firehose import Firehose
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail
from relay.web.callers import AdminAuth, passwords_or_random
from relay.web.consumers import Consumers
from relay.web.health import HealthWatch
from relay.web.metrics_server import MetricsServer
from relay.web.server import ApiServer
from relay.web.services import Services

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
        tail = Tail(self._log.last_seq, suppressions)
        self._copier = Copier(self._log, tail, suppressions, self._hidden.advance, backfill=settings.edge_backfill)
        self._source = Source(http, http.tls_context(), upstream, SERVER, self._copier)
        self._upstream_hosts = UpstreamHosts(
            http, http.tls_context(), upstream, settings.persist_dir, lambda: self._log.last_seq
        )
        self._firehose = Firehose(self._log, tail, suppressions)
        keep = Keep(settings.replay_window, settings.persist_max_bytes, settings.persist_min_free)
        # Whatever SQL has: marks hide what is older than they are, and go with it.
        self._retention = Retention(self._log, keep, lambda: self._log.next_seq, suppressions.forget_before)
        self._copier.on_failure(self._retention.wake)
        services = Services(
            settings=settings,
            db=self._db,
            firehose=self._firehose,
            consumers=Consumers(settings.max_consumers, settings.max_consumers_per_address),
            auth=AdminAuth(passwords_or_random(settings.admin_passwords)),
            problem=lambda: self._copier.problem or self._hidden.problem or self._source.problem,
            role="edge",
        )
        more = []
        if settings.json_stream:
            from relay.jsonstream.routes import json_stream

            more.append(json_stream(self._firehose, settings.json_zstd_dictionary))
        self._api = ApiServer(create_edge_app(services, more), services, settings.api_bind)
        self._health = HealthWatch(services)
        self._metrics = MetricsServer(settings.metrics_bind, self._health.problem)
        self._minute_line = MinuteLine("edge", self._health.problem)

    def start(self) -> None:
        """Start everything, the upstream last. Raises OSError when a port is taken."""
        self._vitals.start()
        self._metrics.start()
        self._hidden.start()
        self._copier.start()
        self._retention.start()
        self._health.start()
        self._api.start()
        self._source.start()
        self._upstream_hosts.start()
        self._minute_line.start()
        log.info("serving on port %d, metrics on port %d", self._api.port, self._metrics.port)

    def stop(self) -> None:
        """Drain: no more events in, those that are in into the log, all that is logged to the consumers."""
        deadline = time.monotonic() + DRAIN_SECONDS
        self._minute_line.stop()
        self._upstream_hosts.stop()
        self._source.stop()
        self._copier.stop(10.0)
        self._api.stop(min(max(deadline - time.monotonic(), 0.5), 5.0))
        self._retention.stop()
        self._hidden.stop()
        self._firehose.close()
        self._log.close()
        self._health.stop()
        self._db.close()
        self._metrics.stop()
        self._vitals.stop()

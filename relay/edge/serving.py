"""What serves consumers the log of another relay: that of an edge, and of a node of a cluster that stands by.

`edge` and `cluster.standby` build it over their log, say with `open` what answers on the ports, and start and stop it
in their own order. Must not know where the log's events come from.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Flask

from relay.config import Settings
from relay.eventlog.log import SegmentLog
from relay.eventlog.retention import Keep, Retention
from relay.store.database import Database
from relay.stream.firehose import Firehose
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail
from relay.web.callers import AdminAuth, passwords_or_random
from relay.web.consumers import Consumers
from relay.web.health import HealthWatch
from relay.web.metrics_server import MetricsServer
from relay.web.server import ApiServer
from relay.web.services import Services

CreateApp = Callable[[Services, list[Blueprint]], Flask]


def further_streams(settings: Settings, firehose: Firehose) -> list[Blueprint]:
    """The routes of the streams beside the firehose that are switched on, of a relay too. Raises ConfigError."""
    if not settings.json_stream:
        return []
    from relay.jsonstream.routes import json_stream

    return [json_stream(firehose, settings.json_zstd_dictionary)]


class Serving:
    """The tail, the feeds and the retention of a log that is written elsewhere, and the ports on which it is served."""

    def __init__(self, settings: Settings, db: Database, segment_log: SegmentLog, suppressions: Suppressions) -> None:
        self.tail = Tail(segment_log.last_seq, suppressions)
        self.firehose = Firehose(segment_log, self.tail, suppressions)
        keep = Keep(settings.replay_window, settings.persist_max_bytes, settings.persist_min_free)
        # Whatever SQL has: marks hide what is older than they are, and go with it.
        self.retention = Retention(segment_log, keep, lambda: segment_log.next_seq, self.firehose.trimmed)
        self._settings = settings
        self._db = db

    def open(self, create_app: CreateApp, problem: Callable[[], str | None], role: str, node: str = "") -> None:
        """Say what answers: the routes, and what `Services` says of the rest. Raises ConfigError."""
        settings = self._settings
        services = Services(
            settings=settings,
            db=self._db,
            firehose=self.firehose,
            consumers=Consumers(settings.max_consumers, settings.max_consumers_per_address),
            auth=AdminAuth(passwords_or_random(settings.admin_passwords)),
            problem=problem,
            role=role,
            node=node,
        )
        app = create_app(services, further_streams(settings, self.firehose))
        self.api = ApiServer(app, services, settings.api_bind)
        self.health = HealthWatch(services)
        self.metrics = MetricsServer(settings.metrics_bind, self.health.problem)

    def start(self) -> None:
        """Serve, and trim the log. Raises OSError when a port is taken."""
        self.metrics.start()
        self.retention.start()
        self.health.start()
        self.api.start()

    def stop(self, timeout: float) -> None:
        """Let consumers have all that is logged within `timeout` seconds, and serve no more. The log may be closed."""
        self.api.stop(timeout)
        self.retention.stop()
        self.firehose.close()
        self.health.stop()
        self.metrics.stop()

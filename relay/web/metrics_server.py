"""Prometheus metrics: of HTTP requests on the API, and the exposition of all of them.

`track_requests` is called by `application`, MetricsServer is run by `app`. Holds no instruments of its own: those
are in `relay.kit.metrics`.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress

import gevent
from flask import Flask
from gevent.event import AsyncResult
from gevent.pool import Pool
from gevent.pywsgi import LoggingLogAdapter, WSGIServer
from gevent.threadpool import ThreadPool
from prometheus_client import make_wsgi_app
from prometheus_flask_exporter import PrometheusMetrics

from relay.kit import metrics
from relay.kit.values import Bind
from relay.web.timed import TimedHandler

FIREHOSE_PATH = r"/xrpc/com\.atproto\.sync\.subscribeRepos$"
MAX_CONNECTIONS = 64
CONNECTION_SECONDS = 10.0
STOP_SECONDS = 5.0
STOP_POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


def track_requests(app: Flask) -> None:
    """Count and time the requests of `app` by route.

    By rule, since paths come from outside and have no bound; without the firehose, whose requests last for days.
    """
    PrometheusMetrics(app, path=None, defaults_prefix="relay", group_by="url_rule", excluded_paths=FIREHOSE_PATH)


class MetricsHandler(TimedHandler):
    """A scraper's connection, which is over after some seconds, whatever it says or reads meanwhile."""

    request_timeout = 5.0

    def handle(self) -> None:
        """Serve the connection until it ends."""
        with suppress(TimeoutError), gevent.Timeout(CONNECTION_SECONDS, TimeoutError("the connection takes too long")):
            super().handle()


class MetricsServer:
    """Serves every instrument at `/metrics` on an address of its own, from a native thread with a hub of its own.

    So a scrape is answered while the relay's hub is busy, and a scraper that does not read waits for itself alone.
    """

    def __init__(self, bind: Bind) -> None:
        self._bind = bind
        self._thread = ThreadPool(1)
        self._serving: AsyncResult[None] | None = None
        self._stopping = False
        self.port = bind.port

    def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        listener = _listener(self._bind)
        self.port = listener.getsockname()[1]
        # A gevent socket belongs to the hub of the thread that made it, so only the descriptor is handed over.
        self._serving = self._thread.spawn(self._serve, listener.detach())

    def stop(self) -> None:
        """Close the port and every connection."""
        self._stopping = True
        if self._serving is not None:
            self._serving.get(timeout=STOP_SECONDS)

    def _serve(self, descriptor: int) -> None:
        pool = Pool(MAX_CONNECTIONS)
        metrics.QUEUE_SIZE.labels("metrics-connections").set_function(lambda: len(pool))
        metrics.QUEUE_CAPACITY.labels("metrics-connections").set(MAX_CONNECTIONS)
        server = WSGIServer(
            socket.socket(fileno=descriptor),
            make_wsgi_app(),
            spawn=pool,
            handler_class=MetricsHandler,
            log=None,
            error_log=LoggingLogAdapter(log, logging.DEBUG),
        )
        server.start()
        while not self._stopping:
            gevent.sleep(STOP_POLL_SECONDS)
        server.stop(timeout=STOP_POLL_SECONDS)


def _listener(bind: Bind) -> socket.socket:
    if bind.host or not socket.has_dualstack_ipv6():
        family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
        return socket.create_server((bind.host, bind.port), family=family, backlog=MAX_CONNECTIONS)
    return socket.create_server(("::", bind.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=MAX_CONNECTIONS)

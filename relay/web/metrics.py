"""Prometheus metrics: of HTTP requests on the API, and the exposition of all of them.

`track_requests` is called by `application`, MetricsServer is run by `app`. Holds no instruments of its own: those
are in `relay.metrics`.
"""

from __future__ import annotations

from flask import Flask
from gevent.pywsgi import WSGIServer
from prometheus_client import make_wsgi_app
from prometheus_flask_exporter import PrometheusMetrics

from relay.config import Bind

FIREHOSE_PATH = r"/xrpc/com\.atproto\.sync\.subscribeRepos$"


def track_requests(app: Flask) -> None:
    """Count and time the requests of `app` by route.

    By rule, since paths come from outside and have no bound; without the firehose, whose requests last for days.
    """
    PrometheusMetrics(app, path=None, defaults_prefix="relay", group_by="url_rule", excluded_paths=FIREHOSE_PATH)


def bound_port(server: WSGIServer) -> int:
    """The port that a started server listens on."""
    assert server.server_port is not None
    return server.server_port


class MetricsServer:
    """Serves every instrument at `/metrics` on an address of its own."""

    def __init__(self, bind: Bind) -> None:
        self._server = WSGIServer((bind.host, bind.port), make_wsgi_app(), log=None)

    @property
    def port(self) -> int:
        """The port, known once started."""
        return bound_port(self._server)

    def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        self._server.start()

    def stop(self) -> None:
        """Close the port and every connection."""
        self._server.stop(timeout=1)

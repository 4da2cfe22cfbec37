"""The port for Prometheus: the exposition of all metrics, beside `/_health`.

MetricsServer is run by `app` and `edge`. Holds no instruments of its own: those are in `relay.kit.metrics`.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, cast

import gevent
from gevent.event import AsyncResult
from gevent.event import Event as Signal
from gevent.pool import Pool
from gevent.threadpool import ThreadPool
from prometheus_client import make_wsgi_app

from relay.kit import metrics
from relay.kit.limits import Pace
from relay.kit.values import Bind
from relay.web.http_connection import HttpConnection, HttpServer
from relay.web.http_input import Head

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_CONNECTIONS = 64
# A client for which there is no room here waits a second before it tries again.
BACKLOG = 1024
CONNECTION_SECONDS = 10.0
# Writing all metrics down takes milliseconds, in which the relay's hub may have to wait.
REQUESTS_PER_SECOND = 30
REQUESTS_BURST = 60
STOP_SECONDS = 5.0
CLOSE_SECONDS = 0.2
LOOK_SECONDS = 60.0

Connection: TypeAlias = "gevent.Greenlet[..., object]"


class MetricsHandler(HttpConnection):
    """A scraper's connection, which ends after some seconds, whatever it sends or reads.

    Once there are too many the oldest goes: a scrape is over long before that, and idle connections keep nobody out.
    """

    idle_seconds = head_seconds = body_seconds = answer_seconds = 5.0
    server: Listener

    def handle(self) -> None:
        """Serve the connection until it ends."""
        open_ones, this = self.server.open_ones, cast(Connection, gevent.getcurrent())
        if len(open_ones) >= MAX_CONNECTIONS:
            oldest = next(iter(open_ones))
            del open_ones[oldest]
            oldest.kill(block=False)
        open_ones[this] = None
        try:
            with suppress(TimeoutError), gevent.Timeout(CONNECTION_SECONDS, TimeoutError("it takes too long")):
                super().handle()
        finally:
            open_ones.pop(this, None)

    def admit(self, head: Head) -> None:
        """Let those that ask too fast wait."""
        gevent.sleep(self.server.pace.reserve(time.monotonic()))


class Listener(HttpServer):
    """The server, with its connections in the order in which they came."""

    # Otherwise nobody could see that they run out.
    uses_reserve = True

    def __init__(self, listener: socket.socket, app: WSGIApplication) -> None:
        self.open_ones: dict[Connection, None] = {}
        self.pace = Pace(REQUESTS_PER_SECOND, REQUESTS_BURST)
        # Those that are told to end are in it until they have.
        pool = Pool(2 * MAX_CONNECTIONS)
        super().__init__(listener, app, MetricsHandler, spawn=pool)


def metrics_app(problem: Callable[[], str | None]) -> WSGIApplication:
    """Answers `/metrics` with the exposition and `/_health` as the API does, going by `problem`; 404 for all else."""
    exposition: WSGIApplication = make_wsgi_app()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            written = exposition(environ, start_response)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else written
        if environ["PATH_INFO"] != "/_health":
            status, said = "404 Not Found", {"error": "NotFound", "message": "only /metrics and /_health are here"}
        elif (found := problem()) is not None:
            status, said = "500 Internal Server Error", {"status": "error", "msg": found}
        else:
            status, said = "200 OK", {"status": "ok"}
        body = json.dumps(said).encode() + b"\n"
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return answer


class MetricsServer:
    """Serves every instrument at `/metrics` on an address of its own, from a native thread with a hub of its own.

    So a scrape is answered while the relay's hub is busy, and a scraper that does not read waits for itself alone.
    `problem` is called from that thread for `/_health`.
    """

    def __init__(self, bind: Bind, problem: Callable[[], str | None]) -> None:
        self._bind = bind
        self._app = metrics_app(problem)
        self._thread = ThreadPool(1)
        self._serving: AsyncResult[None] | None = None
        self._stopping = False
        # Called from the relay's thread, once the other one serves.
        self._wake: Callable[[], object] = bool
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
        self._wake()
        if self._serving is not None:
            self._serving.get(timeout=STOP_SECONDS)

    def _serve(self, descriptor: int) -> None:
        server = Listener(socket.socket(fileno=descriptor), self._app)
        metrics.show_bound("metrics-connections", lambda: len(server.open_ones), MAX_CONNECTIONS)
        stopped = Signal()
        called = gevent.get_hub().loop.async_()
        called.start(stopped.set)
        self._wake = called.send
        server.start()
        while not self._stopping:
            stopped.wait(LOOK_SECONDS)
        server.stop(timeout=CLOSE_SECONDS)


def _listener(bind: Bind) -> socket.socket:
    if bind.host or not socket.has_dualstack_ipv6():
        family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
        return socket.create_server((bind.host, bind.port), family=family, backlog=BACKLOG)
    return socket.create_server(("::", bind.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)

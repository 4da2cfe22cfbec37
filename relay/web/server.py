"""The listening server of the API and the firehose: connections in, requests to the application, drain at the end.

Run by `app`. A handler of gevent-websocket's, made to refuse before it upgrades and to bound how long a client may
take to ask. Must not know of routes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from flask import Flask
from gevent.pool import Pool
from gevent.pywsgi import Input, LoggingLogAdapter, WSGIServer
from geventwebsocket.handler import WebSocketHandler
from werkzeug import Request

from relay.kit import metrics
from relay.kit.values import Bind
from relay.net.http import SERVER
from relay.web import firehose
from relay.web.services import Services
from relay.web.timed import TimedHandler

log = logging.getLogger(__name__)

REQUESTS_BESIDE_CONSUMERS = 1000
METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS"))
_UNKNOWN_METHOD = b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Handler(TimedHandler, WebSocketHandler):  # type: ignore[misc]
    """One connection: requests one after the other, or one WebSocket."""

    def run_application(self) -> None:
        """Let the application answer a method it may know: others would be labels of metrics without a bound."""
        if self.command not in METHODS:
            self.close_connection = True
            self.socket.sendall(_UNKNOWN_METHOD)
            return
        super().run_application()

    def run_websocket(self) -> None:
        """Let the application take the WebSocket, then run the consumer it hands over, without the request around it.

        In place of the library's: a consumer sends its own close frame, and thousands of them must be small.
        """
        environ, application = self.environ, self.application
        assert environ is not None and application is not None
        list(application(environ, lambda *_: self.write))
        environ[firehose.WEBSOCKET].closed = True
        consume = environ[firehose.CONSUME]
        # What pywsgi still looks at when the consumer has ended, as small as it can be.
        self.environ, self.wsgi_input = {}, Input(None, 0)  # type: ignore[arg-type]
        del environ, self.websocket, self.rfile
        consume()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Name this relay in the upgrade's answer as well, where other relays look for it."""
        if not any(name == "Server" for name, _ in headers):
            headers = [*headers, ("Server", SERVER)]
        return super().start_response(status, headers, exc_info)

    def log_request(self) -> None:
        """Requests are counted, not logged."""


class Listener(WSGIServer):
    """pywsgi's server, with the hook that gevent-websocket asks before it upgrades."""

    pre_start_hook: Callable[[Handler], bool]


class ApiServer:
    """Listens, and on stop lets consumers have what is logged before it goes."""

    def __init__(self, app: Flask, services: Services, bind: Bind) -> None:
        self._services = services
        capacity = services.settings.max_consumers + REQUESTS_BESIDE_CONSUMERS
        self._pool = pool = Pool(capacity)
        metrics.QUEUE_SIZE.labels("api-connections").set_function(lambda: len(pool))
        metrics.QUEUE_CAPACITY.labels("api-connections").set(capacity)
        services.consumers.export_lag(lambda: services.firehose.last_seq)
        self._server = Listener(
            (bind.host, bind.port),
            app,
            backlog=1024,
            spawn=self._pool,
            handler_class=Handler,
            log=None,
            error_log=LoggingLogAdapter(log, logging.DEBUG),
        )
        self._server.pre_start_hook = self._answer_without_upgrade

    @property
    def port(self) -> int:
        """The port, known once started."""
        assert self._server.server_port is not None
        return self._server.server_port

    def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        self._server.start()

    def stop(self, timeout: float) -> None:
        """Take no more connections, send consumers all that is logged and a close frame, end the rest."""
        deadline = time.monotonic() + timeout
        self._server.close()
        if not self._services.consumers.leave(timeout):
            log.warning("%d consumers did not take the rest in time", len(list(self._services.consumers)))
        self._server.stop(timeout=max(0.1, min(1.0, deadline - time.monotonic())))

    def _answer_without_upgrade(self, handler: Handler) -> bool:
        """gevent-websocket's hook: True when the request goes to the application as it is."""
        environ = handler.environ
        assert environ is not None
        if environ["PATH_INFO"] != firehose.PATH or environ.get("HTTP_UPGRADE", "").lower() != "websocket":
            return True
        environ[firehose.REFUSAL] = firehose.refusal(self._services, Request(environ))
        return environ[firehose.REFUSAL] is not None

"""A small HTTP and WebSocket server on loopback, a thread for each connection: the base of `network`.

A subclass answers requests, and may take WebSocket connections over. Each request gets a connection of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

# Connections that break off are what some scenarios are about.
_log = logging.getLogger("relay.conformance.server")
_log.addHandler(logging.NullHandler())
_log.propagate = False

Answer = tuple[int, Any]


class LoopbackServer:
    """Serves from `start` to `stop`. `port` 0 is any free one. `requests` counts those without an upgrade."""

    def __init__(self, port: int = 0) -> None:
        self.requests = 0
        self._server = serve(
            self._take_over,
            "127.0.0.1",
            port,
            process_request=self._process,
            compression=None,
            ping_interval=None,
            close_timeout=1,
            server_header="conformance-host",
            logger=_log,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.socket.getsockname()[1])

    def start(self) -> None:
        """Serve, in threads of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop taking connections."""
        self._server.shutdown()
        self._thread.join(5)

    def answer(self, path: str, query: dict[str, str], agent: str | None) -> Answer:
        """Status and JSON for a GET of somebody with that User-Agent."""
        raise NotImplementedError

    def stream(self, connection: ServerConnection, query: dict[str, str]) -> None:
        """Serve a WebSocket until it is over."""
        raise NotImplementedError

    def _process(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        self.requests += 1
        target = urlsplit(request.path)
        status, value = self.answer(target.path, _query(target.query), request.headers.get("User-Agent"))
        body = json.dumps(value).encode()
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
        return Response(status, "Status", headers, body)

    def _take_over(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        with contextlib.suppress(ConnectionClosed):
            self.stream(connection, _query(urlsplit(connection.request.path).query))


def _query(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}

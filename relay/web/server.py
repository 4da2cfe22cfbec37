"""The listening server of the API and the firehose: connections in, requests to the application, drain at the end.

Run by `app` and `edge`. Bounds connections and requests by who makes them, and turns a request into a WebSocket when a
view asks for that. Must not know of routes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any

import gevent
from flask import Flask
from gevent.pool import Pool
from gevent.pywsgi import Input
from gevent.socket import socket as Socket  # noqa: N812
from geventwebsocket.handler import WebSocketHandler

from relay.kit import metrics
from relay.kit.limits import Pace, Paces, Places
from relay.kit.values import Bind
from relay.net.http import SERVER
from relay.web.callers import client_address, counted_as, is_proxy
from relay.web.http_connection import CONSUME, EXTENSIONS, HttpConnection, HttpServer
from relay.web.http_input import FILTER, USUAL, Bounds, Head, RequestInvalid
from relay.web.services import Services

log = logging.getLogger(__name__)

# How many connections that are not a consumer's are served, in total and for one address: its own connections, and its
# requests through a proxy. Above the total there is still room to refuse some.
REQUESTS_BESIDE_CONSUMERS = 1000
ROOM_TO_REFUSE = 100
CONNECTIONS_PER_ADDRESS = 200
MANY_CONNECTIONS = 500
SHORT_IDLE_SECONDS = 5.0
REQUESTS_PER_ADDRESS = 100
# Those of one address that come faster wait for their turn.
REQUESTS_PER_SECOND = 100
REQUESTS_BURST = 200
MAX_ADDRESSES = 10_000
# The head of a request for the JSON stream begins so: its target may hold a long filter. How many requests with longer
# heads than usual are taken at a time, in total and from one address; and how many pieces of them in a second, each of
# which takes some milliseconds.
FILTERED = b"GET /subscribe?"
LONG_HEADS = 64
LONG_HEADS_PER_ADDRESS = 32
LONG_PIECE_BYTES = 64 << 10
LONG_PIECES_PER_SECOND = 40
LONG_PIECES_BURST = 80
# Of these, the ones that a path does not have get the application's 405.
METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"))

Consume = Callable[[Socket, bytes], None]


class ApiConnection(HttpConnection, WebSocketHandler):  # type: ignore[misc]
    """Requests one after the other, or one WebSocket."""

    server: Listener

    def __init__(self, sock: Any, address: Any, server: Listener) -> None:
        super().__init__(sock, address, server)
        peer = str(address[0]) if address else ""
        # What comes through a proxy is counted request by request, as only those tell whose it is.
        self._through_proxy = is_proxy(peer, server.trusted)
        self._peer = peer
        self._key = None if self._through_proxy else counted_as(peer)
        if self._key is not None:
            self.input.line = self._key
        self._request_key: str | None = None
        self._has_place = False
        self._has_long_head = False

    def handle(self) -> None:
        """Serve the connection until it ends, if there is a place for it."""
        self._has_place = self.server.take_place(self._key)
        if not self._has_place:
            self.refuse(RequestInvalid(429, "too-many", "too many connections, in total or from your address"))
            return
        self._wait()
        try:
            super().handle()
        finally:
            self._go_on()
            self._give_back()

    def handle_one_request(self) -> Any:
        """One request and its answer; None when the connection is over."""
        try:
            return super().handle_one_request()
        finally:
            self._end_request()

    def read_requestline(self) -> Any:
        """The beginning of the next request, whose head is there as a whole then."""
        self._wait()
        line = super().read_requestline()
        self._go_on()
        return line

    def read_body(self, head: Head) -> bytes:
        """The whole body. Raises RequestInvalid."""
        if head.length != 0:
            self._wait()
        body = super().read_body(head)
        self._go_on()
        return body

    def give_way(self) -> None:
        """End, and leave the place to others. Called while it waits for its client."""
        metrics.HTTP_REFUSED.labels("gave-way").inc()
        self._go_on()
        self._give_back()
        with suppress(OSError):
            self.socket.shutdown(SHUT_RDWR)

    def idle_wait(self) -> float:
        """Seconds for the next request to begin: few when places are."""
        return self.idle_seconds if len(self.server.connections) < MANY_CONNECTIONS else SHORT_IDLE_SECONDS

    def bounds_of(self, start: bytes) -> Bounds:
        """What a head may have that begins so."""
        return FILTER if self.server.has_filters and start.startswith(FILTERED) else USUAL

    def take_more(self, start: bytes) -> Bounds:
        """The same, once it has as much as is usual, which few may have at a time. Raises RequestInvalid."""
        bounds = self.bounds_of(start)
        if bounds is not USUAL:
            self._has_long_head = self.server.long_heads.take(self._key)
            if not self._has_long_head:
                raise RequestInvalid(429, "too-many", "too many requests with long filters at a time")
        return bounds

    def admit(self, head: Head) -> None:
        """Refuse a method that no route has, which would be a label of metrics, and a client with many requests."""
        if head.method not in METHODS:
            raise RequestInvalid(501, "head-malformed", "no such method")
        forwarded_for = head.fields.get("x-forwarded-for", "")
        key = self._key
        if self._through_proxy and forwarded_for:
            key = counted_as(client_address(self._peer, forwarded_for, self.server.trusted))
            if not self.server.requests.take(key):
                raise RequestInvalid(429, "too-many", "too many requests at a time from your address")
            self._request_key = self.input.line = key
        elif key is None and (self._served > 1 or head.wants_websocket):
            # Nobody says whose it is: it waits behind those that ask for the first time.
            self.input.line = self._peer
        if key is not None:
            # Bounded by how many of an address can wait at a time.
            gevent.sleep(self.server.paces.reserve(key, time.monotonic()))
        if self._has_long_head:
            pieces = len(head.target) // LONG_PIECE_BYTES + 1
            gevent.sleep(self.server.long_pace.reserve(time.monotonic(), pieces))

    def run_application(self) -> None:
        """Let the application answer, or upgrade and run the consumer that it hands over."""
        super().run_application()
        environ = self.environ
        assert environ is not None
        consume: Consume | None = environ.get(CONSUME)
        if consume is None:
            return
        self.upgrade_websocket()
        self.write(b"")
        # It holds both the environment and this connection, and would with them outlive the consumer.
        environ.pop("wsgi.websocket").closed = True
        received = bytes(self.input.received)
        # Thousands of consumers that last for days must be small: what pywsgi still looks at when one has ended.
        self.environ, self.wsgi_input = {}, Input(None, 0)  # type: ignore[arg-type]
        self.headers, self.response_headers, self.path = None, None, ""  # type: ignore[assignment]
        self.input.received = bytearray()
        del environ, self.websocket
        self._end_request()
        self._give_back()
        consume(self.socket, received)

    def process_result(self) -> None:
        """Send what the application says, unless it has handed over a consumer."""
        if self.environ is not None and CONSUME not in self.environ:
            super().process_result()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Name this relay in the upgrade's answer too: other relays look for it there."""
        if not any(name == "Server" for name, _ in headers):
            headers = [*headers, ("Server", SERVER)]
        if self.environ is not None and EXTENSIONS in self.environ:
            headers = [*headers, ("Sec-WebSocket-Extensions", self.environ[EXTENSIONS])]
        return super().start_response(status, headers, exc_info)

    def _wait(self) -> None:
        # One that has given way ends as soon as it looks for more.
        if self._has_place:
            self.server.waiting.setdefault(self._key, {})[self] = None

    def _go_on(self) -> None:
        of_key = self.server.waiting.get(self._key)
        if of_key is not None:
            of_key.pop(self, None)
            if not of_key:
                del self.server.waiting[self._key]

    def _give_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self.server.connections.give_back(self._key)

    def _end_request(self) -> None:
        if self._request_key is not None:
            self.server.requests.give_back(self._request_key)
            self._request_key = None
        if self._has_long_head:
            self._has_long_head = False
            self.server.long_heads.give_back(self._key)


class Listener(HttpServer):
    """The API's port. `connections` are those that are not a consumer's, `requests` those that came through proxies,
    `long_heads` requests with more in their heads than is usual. `waiting` are the connections without a whole request,
    by address, None for nobody's, and in the order in which they began to wait.
    """

    def __init__(self, app: Flask, services: Services, bind: Bind) -> None:
        capacity = services.settings.max_consumers + REQUESTS_BESIDE_CONSUMERS + ROOM_TO_REFUSE
        pool = Pool(capacity)
        metrics.show_bound("api-connections", lambda: len(pool), capacity)
        self.trusted = services.settings.trusted_proxies
        self.connections: Places[str] = Places(REQUESTS_BESIDE_CONSUMERS, CONNECTIONS_PER_ADDRESS)
        self.requests: Places[str] = Places(REQUESTS_BESIDE_CONSUMERS, REQUESTS_PER_ADDRESS)
        self.paces: Paces[str] = Paces(REQUESTS_PER_SECOND, REQUESTS_BURST, MAX_ADDRESSES)
        self.has_filters = services.settings.json_stream
        self.waiting: dict[str | None, dict[ApiConnection, None]] = {}
        self.long_heads: Places[str] = Places(LONG_HEADS, LONG_HEADS_PER_ADDRESS)
        self.long_pace = Pace(LONG_PIECES_PER_SECOND, LONG_PIECES_BURST)
        metrics.show_bound("api-addresses", self.paces.__len__, MAX_ADDRESSES)
        metrics.show_bound("api-long-heads", lambda: len(self.long_heads), LONG_HEADS)
        metrics.show_bound("api-requests", lambda: len(self.connections), REQUESTS_BESIDE_CONSUMERS)
        super().__init__((bind.host, bind.port), app, ApiConnection, backlog=1024, spawn=pool)

    def take_place(self, key: str | None) -> bool:
        """Take a place for a connection of the address `key`. A client that asks for nothing gives way to one that may.

        False when there is none.
        """
        if self.connections.take(key):
            return True
        if key is not None and self.connections.taken_by(key) >= CONNECTIONS_PER_ADDRESS:
            others = self.waiting.get(key, {})
        else:
            others = max(self.waiting.values(), key=len, default={})
        if others:
            next(iter(others)).give_way()
        return self.connections.take(key)

    def pre_start_hook(self, connection: ApiConnection) -> bool:
        """gevent-websocket's: True, as every request goes to the application, which says whether to upgrade."""
        return True


class ApiServer:
    """Listens, and on stop lets consumers have what is logged before it goes."""

    def __init__(self, app: Flask, services: Services, bind: Bind) -> None:
        self._services = services
        services.consumers.export_lag(lambda: services.firehose.last_seq)
        self._server = Listener(app, services, bind)

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
            log.info("%d consumers did not take the last events in time", len(list(self._services.consumers)))
        self._server.stop(timeout=max(0.1, min(1.0, deadline - time.monotonic())))

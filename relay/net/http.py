"""HTTP to strangers: checked addresses only, bounded in time, size and headers, no redirects.

Every outgoing request of the relay goes through a GuardedHttp (DID documents, status questions, sibling relays), and
the upstream WebSockets take their connected sockets from it. Knows nothing of DIDs.
"""

from __future__ import annotations

import calendar
import json
import math
import socket
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode
from weakref import WeakSet

import gevent
import urllib3
from urllib3 import exceptions as failures
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.util import Url, parse_url

from relay.kit import descriptors
from relay.kit.errors import HttpError
from relay.kit.tls import verifying_context
from relay.kit.version import package_version
from relay.net.address import Address, resolve_public
from relay.net.http_pools import pool_classes
from relay.net.tls_socket import TlsSocket

RELAY_MARK = "atproto-relay"
"""Relays of any make know each other by this: they do not subscribe to one another, and pass nothing on twice."""
SERVER = f"atproto-relay-python/{package_version()} ({RELAY_MARK})"
"""Names what runs here."""

DEFAULT_TIMEOUT = 10.0
DEFAULT_MAX_BYTES = 64 << 10

# A fault of this machine: it says nothing about the other side.
NO_DESCRIPTORS = "http-no-descriptors"

HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"

# Connections kept open for a next request: hosts, and connections to each.
KEPT_HOSTS = 128
KEPT_PER_HOST = 128
# How often to look for kept connections that the other side has ended.
ENDED_SECONDS = 1.0


def xrpc_url(base: str, method: str, query: Mapping[str, str]) -> str:
    """The address of a query of the host at the address `base`; `method` is its NSID."""
    return f"{base}/xrpc/{method}?{urlencode(query, quote_via=quote, safe=':')}"


class Response(NamedTuple):
    """An answer. Header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json_object(self) -> dict[str, Any] | None:
        """The JSON object in the body; None when the body is something else."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def retry_after(self, longest: float = math.inf, unsaid: float = 0.0) -> float:
        """For how many seconds the other side asks to be left alone, at most `longest`; `unsaid` if it does not say."""
        text = self.headers.get("Retry-After", "")
        if text.isascii() and text.isdigit():
            return min(float(text), longest)
        try:
            moment = calendar.timegm(time.strptime(text, HTTP_DATE))
        except ValueError:
            return unsaid
        return min(max(moment - time.time(), 0.0), longest)


class GuardedHttp:
    """A keep-alive HTTP client that is safe to point at addresses which strangers choose.

    With `allow_insecure`, plain http and addresses that are not public are taken too.
    """

    def __init__(self, user_agent: str, allow_insecure: bool) -> None:
        self.allow_insecure = allow_insecure
        self.user_agent = user_agent
        # One context for all: one per connection costs 880 KiB and 22 ms each.
        self._tls = verifying_context()
        self._tls.sslsocket_class = TlsSocket  # type: ignore[assignment]
        self._pools = urllib3.PoolManager(
            KEPT_HOSTS, maxsize=KEPT_PER_HOST, retries=False, ssl_context=self._tls, timeout=DEFAULT_TIMEOUT
        )
        self._pools.pool_classes_by_scheme = pool_classes(self._opened)
        self._hosts_asked: WeakSet[HTTPConnectionPool] = WeakSet()
        self._looked_at = 0.0

    def for_operator(self) -> GuardedHttp:
        """A client of the same kind for addresses that the operator wrote down: those may be plain and private."""
        return GuardedHttp(self.user_agent, allow_insecure=True)

    def tls_context(self) -> ssl.SSLContext:
        """The TLS context, shared by every connection: verifies the peer's certificate and name."""
        return self._tls

    def get(
        self,
        url: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_bytes: int = DEFAULT_MAX_BYTES,
        headers: Mapping[str, str] | None = None,
        beginning: bool = False,
    ) -> Response:
        """GET `url`, the whole answer within `timeout` seconds. A redirect is an answer like any other.

        With `beginning`, of a longer body `max_bytes` are read and the connection is closed. Raises AddressRefused, or
        HttpError with one of its reasons.
        """
        return self.request("GET", url, timeout=timeout, max_bytes=max_bytes, headers=headers, beginning=beginning)

    def post_json(
        self,
        url: str,
        value: object,
        *,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Response:
        """POST `value` as JSON; otherwise as `get`."""
        body = json.dumps(value).encode()
        return self.request("POST", url, body, timeout=timeout, headers={"Content-Type": "application/json"})

    def connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """A TCP connection to a checked address of `host`, within `timeout` seconds for name and addresses together.
        What is done with it has no timeout yet.

        Raises AddressRefused, or HttpError `http-connect`, `http-timeout` or `http-no-descriptors`.
        """
        deadline = time.monotonic() + timeout
        refusal: OSError = TimeoutError()
        # A name server is asked with one as well, and would seem to be silent.
        if not descriptors.some_left():
            raise HttpError(NO_DESCRIPTORS, host)
        addresses = resolve_public(host, port, self.allow_insecure, timeout)
        for tried, address in enumerate(addresses):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                # An address that swallows everything leaves time for the next one.
                return _connected(address, left / (len(addresses) - tried))
            except OSError as error:
                if error.errno in descriptors.EXHAUSTED:
                    raise HttpError(NO_DESCRIPTORS, host) from None
                refusal = error.with_traceback(None)
        if isinstance(refusal, TimeoutError):
            raise HttpError("http-timeout", f"no connection to {host} in time")
        raise HttpError("http-connect", f"{host}: {refusal}")

    def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_bytes: int = DEFAULT_MAX_BYTES,
        headers: Mapping[str, str] | None = None,
        beginning: bool = False,
    ) -> Response:
        """Any request, with `body` as it is; otherwise as `get`."""
        address = self._checked(url)
        sent = {"User-Agent": self.user_agent, "Accept-Encoding": "identity", **(headers or {})}
        try:
            # urllib3's own timeout would be per read: a host that trickles bytes would never meet it.
            with gevent.Timeout(timeout, HttpError("http-timeout", url)):
                pool = self._pools.connection_from_host(address.host, address.port, address.scheme)
                self._hosts_asked.add(pool)
                answer = pool.urlopen(
                    method,
                    address.request_uri,
                    body=body,
                    headers=sent,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=urllib3.Timeout(connect=timeout, read=None),
                )
                try:
                    content = _beginning(answer, max_bytes) if beginning else _read_body(answer, max_bytes)
                    return Response(answer.status, answer.headers, content)
                except BaseException:
                    # What is left unread must not be taken for the answer to the next request.
                    answer.close()
                    raise
                finally:
                    answer.release_conn()
        except failures.TimeoutError as error:
            raise HttpError("http-timeout", str(error)) from None
        except failures.SSLError as error:
            raise HttpError("http-tls", str(error)) from None
        except (failures.HTTPError, HTTPException, OSError, ValueError) as error:
            raise HttpError("http-broken", f"{url}: {error}") from None

    def _close_ended(self) -> None:
        """Close the kept connections that the other side has ended; called when a new one is made.

        Otherwise they would take their descriptors until the same host is asked again.
        """
        now = time.monotonic()
        if now - self._looked_at < ENDED_SECONDS:
            return
        self._looked_at = now
        for pool in list(self._hosts_asked):
            # Those that are in use are not in the queue.
            for kept in list(pool.pool.queue) if pool.pool is not None else ():
                if kept is not None and not kept.is_connected:
                    kept.close()

    def _opened(self, connection: HTTPConnection) -> socket.socket:
        timeout = connection.timeout if isinstance(connection.timeout, int | float) else DEFAULT_TIMEOUT
        self._close_ended()
        return self.connect(connection.host, connection.port, timeout)

    def _checked(self, url: str) -> Url:
        try:
            parts = parse_url(url)
        except failures.LocationParseError as error:
            raise HttpError("http-url", str(error)) from None
        if not parts.host or not (parts.scheme == "https" or (parts.scheme == "http" and self.allow_insecure)):
            raise HttpError("http-url", f"{url} is not an https address")
        return parts


def _connected(address: Address, timeout: float) -> socket.socket:
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if not descriptors.spare(connection.fileno()):
            raise descriptors.exhausted()
        connection.settimeout(timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect(address.sockaddr)
        # This one's part of the time is not that of what follows, which has a deadline as a whole.
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_body(answer: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    declared = answer.headers.get("Content-Length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise HttpError("http-too-large", f"{declared} bytes announced")
    body = _read_up_to(answer, max_bytes + 1)
    if len(body) > max_bytes:
        raise HttpError("http-too-large", f"over {max_bytes} bytes")
    return body


def _beginning(answer: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    body = _read_up_to(answer, max_bytes)
    if len(body) == max_bytes:
        answer.close()
    return body


def _read_up_to(answer: urllib3.BaseHTTPResponse, size: int) -> bytes:
    """The first `size` bytes of the body, or all of it."""
    body = bytearray()
    while len(body) < size:
        # Never decoded: a compressed answer was not asked for, and could grow without bound.
        part = answer.read(size - len(body), decode_content=False)
        if not part:
            break
        body += part
    return bytes(body)

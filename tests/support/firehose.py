"""The firehose of a started relay, by a client that others wrote and by raw sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection

from relay.atproto import frames
from tests.support.wait import until
from tests.support.web import Web
from tests.support.websocket import connect

PATH = "/xrpc/com.atproto.sync.subscribeRepos"


@contextmanager
def consumer(web: Web, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    with connect(web.stream + query, max_size=None, ping_interval=None, **options) as client:
        number = len(list(web.services.consumers))
        until(lambda: number or list(web.services.consumers))
        yield client


def seqs(client: ClientConnection, count: int) -> list[int]:
    """The numbers of the next events, which may be larger than what a host may send of their kind."""
    return [frames.peek(client.recv(timeout=60)).seq for _ in range(count)]  # type: ignore[union-attr, arg-type]


def handshake(query: str = "", extra: str = "") -> bytes:
    return (
        f"GET {PATH}{query} HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    ).encode()


@contextmanager
def raw(web: Web, request: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", web.server.port), timeout=60) as sock:
        sock.sendall(request)
        yield sock


def head_of(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1)
    return data

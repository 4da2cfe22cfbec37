"""The consumers' side of the WebSocket handshake, as bytes. Must not know of sockets."""

from __future__ import annotations

import base64
import os
from urllib.parse import urlsplit

PATH = "/xrpc/com.atproto.sync.subscribeRepos"


def request_for(url: str) -> bytes:
    """What a consumer of the relay at `url` sends; the URL may carry a cursor."""
    parts = urlsplit(url)
    return upgrade_request(PATH + (f"?{parts.query}" if parts.query else ""), parts.netloc)


def upgrade_request(target: str, host: str) -> bytes:
    """The handshake for `target`, a path and its query."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "User-Agent: bench-network", "", ""]
    return "\r\n".join(lines).encode()


def split_upgrade(received: bytes) -> bytes | None:
    """What has come after the answer's head; None while that is not whole. AssertionError when it is no upgrade."""
    head, end, rest = received.partition(b"\r\n\r\n")
    if not end:
        return None
    assert b" 101 " in head.split(b"\r\n")[0], head
    return rest

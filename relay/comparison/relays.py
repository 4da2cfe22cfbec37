"""A relay as a consumer meets it: its firehose, followed through breaks, and its list of hosts.

Used by `comparison` for each of the two. Both addresses are the operator's word, so they may be plain and private.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import gevent

from relay.atproto import frames
from relay.atproto.errors import FrameError, SyntaxInvalid
from relay.atproto.events import Account, Commit, Identity, StreamError, Sync
from relay.atproto.hostname import parse_endpoint
from relay.comparison.matching import Seen
from relay.kit.errors import HttpError
from relay.net import websocket_client
from relay.net.http import GuardedHttp, Response, xrpc_url
from relay.net.pages import Ending
from relay.net.websocket_client import PATH
from relay.net.websocket_connection import Connection, StreamEnded, stream_error
from relay.net.websocket_reader import PassedOver

RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 1.0
PAGE_SECONDS = 30.0
PAGE_BYTES = 4 << 20
PAGE_HOSTS = 500
MAX_HOSTS = 50_000

_NAMES = {Commit: "#commit", Sync: "#sync", Identity: "#identity", Account: "#account"}


class FollowedRelay:
    """One of the two relays. `headers` go with requests, not with the firehose's."""

    def __init__(self, http: GuardedHttp, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self.breaks = 0
        self.unreadable = 0
        self.events = 0
        self._http = http.for_operator()
        self._headers = headers
        self._endpoint = parse_endpoint(url)
        self._cursor: int | None = None

    def open(self) -> Connection:
        """A connection to its firehose, behind what came last. Raises StreamEnded."""
        path = PATH if self._cursor is None else f"{PATH}?cursor={self._cursor}"
        return websocket_client.dial(self._http, self._endpoint, path, relay=True)

    def follow(self, first: Connection, take: Callable[[Seen], None], until: Callable[[], bool]) -> None:
        """Give every event to `take` until `until` says so; connect again after a break, behind what came last."""
        connection: Connection | None = first
        while not until():
            try:
                with closing(connection or self.open()) as stream:
                    connection = None
                    while not until():
                        self._read(stream.receive(PATIENCE_SECONDS), take)
            except StreamEnded:
                self.breaks += 1
                gevent.sleep(RETRY_SECONDS)

    def hosts(self) -> dict[str, str]:
        """The hosts that it lists, each with its status. Raises HttpError."""
        found: dict[str, str] = {}
        cursor, ending, seen = "", Ending(), 0
        while seen < MAX_HOSTS:
            page = self._object(
                xrpc_url(self.url, "com.atproto.sync.listHosts", {"limit": str(PAGE_HOSTS), "cursor": cursor})
            )
            if not isinstance(page.get("hosts"), list):
                raise HttpError("http-broken", f"{self.url} does not answer with a list of hosts")
            listed = [host for host in page["hosts"] if isinstance(host, dict)]
            seen += len(listed)
            found.update({host["hostname"]: str(host.get("status")) for host in listed if _has_hostname(host)})
            following = page.get("cursor")
            if not isinstance(following, str) or not following or ending.repeats(following) or not listed:
                break
            cursor = following
        return found

    def why(self, did: str) -> dict[str, Any] | None:
        """What it says is the matter with an account, None when it does not say."""
        answer = self._get(f"{self.url}/account/{did}")
        return answer.json_object() if answer.status == 200 else None

    def _read(self, messages: list[bytes | PassedOver], take: Callable[[Seen], None]) -> None:
        now = time.monotonic()
        for message in messages:
            try:
                event = None if isinstance(message, PassedOver) else frames.decode(message)
            except FrameError:
                self.unreadable += 1
                continue
            if isinstance(event, StreamError):
                raise stream_error(event)
            if isinstance(event, Commit | Sync | Identity | Account):
                self.events += 1
                self._cursor = event.seq
                mark = event.rev if isinstance(event, Commit | Sync) else f"{event.kind} {event.time}"
                take(Seen(event.did, mark, _NAMES[type(event)], now))

    def _object(self, url: str) -> dict[str, Any]:
        answer = self._get(url)
        found = answer.json_object()
        if answer.status != 200 or found is None:
            raise HttpError("http-broken", f"{url} answers HTTP {answer.status}")
        return found

    def _get(self, url: str) -> Response:
        return self._http.get(url, timeout=PAGE_SECONDS, max_bytes=PAGE_BYTES, headers=self._headers)


def _has_hostname(host: dict[str, Any]) -> bool:
    """Whether a relay names a host in its one spelling: nothing else may stand in a command that is shown."""
    name = host.get("hostname")
    try:
        return isinstance(name, str) and parse_endpoint(name).hostname == name
    except SyntaxInvalid:
        return False

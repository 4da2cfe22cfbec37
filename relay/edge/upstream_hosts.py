"""Keeps beside an edge's log which hosts its upstream relay has, and where it stands in the stream of each.

Asks the upstream's `listHosts` once a minute, so that an edge that is promoted (`promote`) goes on where the relay that
it replaces has ended. A list is kept once the log has all that it stands for. Must not know of promotion.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import gevent
from gevent.threadpool import ThreadPool

from relay.atproto import frames
from relay.atproto.errors import FrameError, SyntaxInvalid
from relay.atproto.frames import Info, Peeked, StreamError
from relay.atproto.hostname import Endpoint, parse_endpoint
from relay.eventlog import disk
from relay.kit import metrics
from relay.kit.background import Loop, in_thread
from relay.kit.errors import HttpError, RelayError
from relay.net import websocket_client
from relay.net.http import GuardedHttp, xrpc_url
from relay.net.pages import Ending, read_cursor
from relay.net.websocket_client import PATH
from relay.net.websocket_connection import stream_error
from relay.net.websocket_reader import PassedOver

NAME = "upstream-hosts"
EVERY_SECONDS = 60.0
# An upstream that has no hosts yet.
NONE_SECONDS = 5.0
# One that does not say, or is away.
RETRY_SECONDS = 300.0

PAGE_SECONDS = 30.0
PAGE_BYTES = 4 << 20
PAGE_HOSTS = 1_000
MAX_PAGES = 500
MAX_HOSTS = 50_000
MAX_FILE_BYTES = 32 << 20
# How long the upstream may have no event, and how long the log may take until it has that.
EVENT_SECONDS = 300.0
LOGGED_SECONDS = 300.0
LOOK_SECONDS = 0.2

STATUSES = frozenset({"active", "idle", "offline", "throttled", "banned"})

log = logging.getLogger(__name__)


class UpstreamHost(NamedTuple):
    """A host as the upstream lists it: up to `seq` the upstream has settled its events."""

    hostname: str
    seq: int
    accounts: int
    status: str


class Listed(NamedTuple):
    """The hosts, asked for at `at` (seconds since the epoch)."""

    at: float
    hosts: list[UpstreamHost]


class UpstreamHosts:
    """The list in `directory`. `last_seq` gives the newest seq of the edge's log."""

    def __init__(self, http: GuardedHttp, upstream: Endpoint, directory: Path, last_seq: Callable[[], int]) -> None:
        self._http = http
        self._upstream = upstream
        self._directory = directory
        self._last_seq = last_seq
        self._disk = ThreadPool(1)
        self._loop = Loop("hosts of the upstream", self._pass, EVERY_SECONDS)
        self._trouble = ""

    def start(self) -> None:
        """Start asking."""
        self._loop.start()

    def stop(self) -> None:
        """Stop; the last list stays."""
        self._loop.stop()

    def _pass(self) -> float:
        try:
            listed = Listed(time.time(), self._ask())
            if not listed.hosts:
                return NONE_SECONDS
            if not self._wait_until_logged(self._newest_seq()):
                return EVERY_SECONDS
            in_thread(self._disk, store, self._directory, listed)
        except (RelayError, OSError) as error:
            if str(error) != self._trouble:
                log.warning("the hosts of upstream %s are not noted: %s", self._upstream.hostname, error)
            self._trouble = str(error)
            return RETRY_SECONDS
        self._trouble = ""
        metrics.EDGE_HOSTS_NOTED.set(listed.at)
        return EVERY_SECONDS

    def _ask(self) -> list[UpstreamHost]:
        """All hosts of the upstream. Raises RelayError."""
        found: list[UpstreamHost] = []
        cursor: str | None = None
        ending = Ending()
        for _ in range(MAX_PAGES):
            query = {"limit": str(PAGE_HOSTS), **({"cursor": cursor} if cursor else {})}
            url = xrpc_url(self._upstream.url, "com.atproto.sync.listHosts", query)
            answer = self._http.get(url, timeout=PAGE_SECONDS, max_bytes=PAGE_BYTES)
            page = answer.json_object() if answer.status == 200 else None
            if page is None or not isinstance(page.get("hosts"), list):
                raise HttpError("http-refused", f"listHosts answers HTTP {answer.status}, without a list of hosts")
            found += [host for host in map(_read, page["hosts"]) if host is not None]
            try:
                cursor = read_cursor(page.get("cursor"))
            except ValueError as error:
                raise HttpError("http-refused", f"listHosts: {error}") from None
            if cursor is None or ending.repeats(cursor) or len(found) > MAX_HOSTS:
                break
        return found[:MAX_HOSTS]

    def _newest_seq(self) -> int:
        """A seq that the upstream gave out after this was called. Raises StreamEnded; 0 when there was none in time."""
        give_up = time.monotonic() + EVENT_SECONDS
        with closing(websocket_client.dial(self._http, self._upstream, PATH, relay=True)) as stream:
            while (left := give_up - time.monotonic()) > 0:
                for frame in stream.receive(left):
                    event = _peek(frame)
                    if isinstance(event, StreamError):
                        raise stream_error(event)
                    if isinstance(event, Peeked):
                        return event.seq
        return 0

    def _wait_until_logged(self, seq: int) -> bool:
        give_up = time.monotonic() + LOGGED_SECONDS
        while seq and time.monotonic() < give_up:
            if self._last_seq() >= seq:
                return True
            gevent.sleep(LOOK_SECONDS)
        return False


def store(directory: Path, listed: Listed) -> None:
    """Replace the list in `directory`, durable on return. Raises OSError."""
    disk.replace(directory / NAME, json.dumps(listed).encode())


def load(directory: Path) -> Listed | None:
    """The list in `directory`; None when there is none or it cannot be read."""
    try:
        at, hosts = json.loads(disk.start_of_file(directory / NAME, MAX_FILE_BYTES))
        return Listed(float(at), [UpstreamHost(*host) for host in hosts])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("the file %s is damaged, and is not used: %s", NAME, error)
        return None


def _read(listed: object) -> UpstreamHost | None:
    """A host of the upstream's list; None when it has sent nothing, or cannot be read."""
    if not isinstance(listed, dict):
        return None
    hostname, seq = listed.get("hostname"), listed.get("seq")
    if not isinstance(hostname, str) or type(seq) is not int or not 0 < seq < 1 << 53:
        return None
    try:
        parse_endpoint(hostname)
    except SyntaxInvalid:
        return None
    accounts, status = listed.get("accountCount"), listed.get("status")
    return UpstreamHost(
        hostname,
        seq,
        accounts if type(accounts) is int and 0 < accounts < 1 << 53 else 0,
        status if isinstance(status, str) and status in STATUSES else "active",
    )


def _peek(frame: bytes | PassedOver) -> Peeked | Info | StreamError | None:
    if isinstance(frame, PassedOver):
        return None
    try:
        return frames.peek(frame)
    except FrameError:
        return None

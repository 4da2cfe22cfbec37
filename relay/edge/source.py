"""Keeps one connection to the upstream relay and hands every event on, from where the copier left off.

Run by `edge`. The upstream's notices and errors end here; `problem` says in words why nothing comes. Must not know
what becomes of events.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from typing import Protocol

import gevent

from relay.atproto import frames
from relay.atproto.errors import FrameError
from relay.atproto.frames import Info, Peeked, StreamError
from relay.atproto.hostname import Endpoint
from relay.kit import metrics
from relay.kit.background import yield_hub
from relay.net import websocket_client
from relay.net.http import GuardedHttp
from relay.net.websocket_client import PATH
from relay.net.websocket_connection import TURN_SECONDS, Connection, StreamEnded, stream_error
from relay.net.websocket_reader import PassedOver

RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
# However much longer the upstream asks to be left alone: an edge's consumers get nothing meanwhile.
LONGEST_RETRY_SECONDS = 60.0
STEADY_SECONDS = 60.0
# A short break is not news for a load balancer: consumers lose nothing by it. Nor is a connection good news before it
# has stood for a while or brought something: an upstream may take it and hang up.
BREAK_SECONDS = 10.0
PROVEN_SECONDS = 5.0

log = logging.getLogger(__name__)


class Copy(Protocol):
    """Where events go: `edge.copier.Copier`."""

    @property
    def cursor(self) -> int | None:
        """The seq to go on after; None to begin with what comes now."""

    def put(self, event: Peeked, frame: bytes) -> bool:
        """Take one event; blocks while there is no room. False when it is passed over, as its seq does not rise."""


class Source:
    """The connection, for ever. `upstream` is what an operator calls it."""

    def __init__(self, http: GuardedHttp, upstream: Endpoint, copy: Copy) -> None:
        self._http = http
        self._upstream = upstream
        self._copy = copy
        self._ended = "not connected yet"
        # Since when nothing can come, and since when a connection stands that has not shown that something can.
        self._away_since: float | None = time.monotonic()
        self._open_since: float | None = None
        self._ahead = False
        # Since when all that came was passed over, and when something last was.
        self._behind_since: float | None = None
        self._behind_at = 0.0
        self._greenlet: gevent.Greenlet[[], None] | None = None
        metrics.EDGE_CONNECTED.set_function(lambda: float(self._open_since is not None))

    @property
    def problem(self) -> str | None:
        """Why nothing comes, once that has lasted."""
        if self._ahead:
            return f"upstream {self._upstream.hostname} is behind this edge's log: {self._ended}"
        # Not every relay refuses a cursor that is ahead of it.
        if self._behind_since is not None and self._behind_at - self._behind_since >= BREAK_SECONDS:
            return f"upstream {self._upstream.hostname} is behind this edge's log: all that it sends has lower numbers"
        now = time.monotonic()
        if self._away_since is None or now - self._away_since < BREAK_SECONDS:
            return None
        if self._open_since is not None and now - self._open_since >= PROVEN_SECONDS:
            return None
        return f"upstream {self._upstream.hostname}: {self._ended}"

    def start(self) -> None:
        """Begin."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """End the connection."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=1.0)

    def _run(self) -> None:
        failures = 0
        while True:
            opened, asked_for = time.monotonic(), 0.0
            try:
                self._copy_stream()
            except StreamEnded as error:
                self._note_end(error)
                asked_for = min(error.retry_after, LONGEST_RETRY_SECONDS)
            except Exception as error:
                log.exception("copying from upstream %s crashed", self._upstream.hostname)
                self._note_end(StreamEnded("internal-error", type(error).__name__))
            failures = 0 if time.monotonic() - opened > STEADY_SECONDS else failures
            gevent.sleep(max(asked_for, RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]))
            failures += 1

    def _note_end(self, error: StreamEnded) -> None:
        repeated = self._away_since is not None and str(error) == self._ended
        self._ended = str(error)
        self._ahead = error.reason == "future-cursor"
        self._open_since = None
        if self._away_since is None:
            self._away_since = time.monotonic()
        say = log.debug if repeated else log.warning
        say("the connection to upstream %s ended: %s", self._upstream.hostname, error)

    def _copy_stream(self) -> None:
        cursor = self._copy.cursor
        path = PATH if cursor is None else f"{PATH}?cursor={cursor}"
        with closing(websocket_client.dial(self._http, self._upstream, path, relay=True)) as stream:
            log.info("connected to upstream %s, cursor %s", self._upstream.hostname, cursor)
            self._open_since = time.monotonic()
            self._read(stream)

    def _read(self, stream: Connection) -> None:
        turn = time.monotonic()
        while True:
            for frame in stream.receive():
                self._take(frame)
                if time.monotonic() - turn > TURN_SECONDS:
                    yield_hub()
                    turn = time.monotonic()

    def _take(self, frame: bytes | PassedOver) -> None:
        if isinstance(frame, PassedOver):
            metrics.EDGE_PASSED_OVER.labels("unreadable").inc()
            log.error(
                "a message of upstream %s is passed over: %s: %s", self._upstream.hostname, frame.reason, frame.detail
            )
            return
        try:
            event = frames.peek(frame)
        except FrameError as error:
            metrics.EDGE_PASSED_OVER.labels("unreadable").inc()
            log.error("an event of upstream %s cannot be read: %s", self._upstream.hostname, error)
            return
        if isinstance(event, StreamError):
            raise stream_error(event)
        self._away_since, self._ahead = None, False
        if isinstance(event, Info):
            self._note_info(event)
        elif event is None:
            metrics.EDGE_PASSED_OVER.labels("unknown").inc()
        elif self._copy.put(event, frame):
            self._behind_since = None
        else:
            self._behind_at = time.monotonic()
            self._behind_since = self._behind_since or self._behind_at

    def _note_info(self, info: Info) -> None:
        log.warning("upstream %s says %.100r: %.200r", self._upstream.hostname, info.name, info.message)
        if info.name == "OutdatedCursor":
            metrics.EDGE_GAPS.inc()

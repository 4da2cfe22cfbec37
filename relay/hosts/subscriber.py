"""Reads one host's event stream for the life of one connection and puts each event into its lane.

Run by the dialler in a greenlet of its own, which decides what follows when it ends. Waiting for the host's limits or
for a lane stops the reading, so that TCP pushes back on the host and on nobody else.
"""

from __future__ import annotations

import logging
import ssl
import time
from typing import Protocol

import gevent

from relay.atproto import frames
from relay.atproto.errors import FrameError, ProtocolError
from relay.atproto.frames import Event, Info, Kind, StreamError
from relay.hosts.host import Host
from relay.kit import metrics
from relay.net import websocket_client
from relay.net.websocket_client import PATH, TURN_SECONDS, Connection, Network, StreamEnded, Timing, stream_error

LONGEST_WAIT_SECONDS = 1.0

log = logging.getLogger(__name__)

_RECEIVED = {kind: metrics.EVENTS_RECEIVED.labels(kind.name.lower()) for kind in Kind}


class EventSink(Protocol):
    """Where events go: the lanes."""

    def put(self, host: Host, event: Event) -> None:
        """Take one event; blocks while there is no room."""

    def reject(self, host: Host, seq: int | None, reason: str, did: str | None) -> None:
        """Count an event that cannot be taken."""


class Subscriber:
    """Opens connections to hosts and reads them to their end."""

    def __init__(
        self, network: Network, tls: ssl.SSLContext, sink: EventSink, user_agent: str, timing: Timing | None = None
    ) -> None:
        self._network = network
        self._user_agent = user_agent
        self._tls = tls
        self._sink = sink
        self._timing = timing or Timing()

    def open(self, host: Host, cursor: int | None) -> Connection:
        """Connect to the host, for the events after `cursor` or from now on. Raises StreamEnded."""
        path = PATH if cursor is None else f"{PATH}?cursor={cursor}"
        return websocket_client.dial(self._network, self._tls, host.endpoint, path, self._user_agent, self._timing)

    def read(self, host: Host, stream: Connection) -> None:
        """Hand on every event of `stream`. Returns never; raises StreamEnded when the connection has to end."""
        last_seq = 0
        turn = time.monotonic()
        while True:
            for message in stream.receive():
                self._wait_for_limits(host)
                last_seq = self._take(host, message, last_seq)
                host.live_restart = False
                # Neither a socket that always has data nor a queue that always has room switches by itself.
                if time.monotonic() - turn > TURN_SECONDS:
                    gevent.sleep(0)
                    turn = time.monotonic()

    def _wait_for_limits(self, host: Host) -> None:
        while True:
            wait, tier = host.limiter.take(int(time.monotonic() * 1000), host.rates)
            if not wait:
                return
            # In pieces, so that a limit which an admin raises meanwhile counts at once.
            seconds = min(wait / 1000, LONGEST_WAIT_SECONDS)
            host.note_throttled(tier, time.time())
            gevent.sleep(seconds)
            metrics.HOST_THROTTLED_SECONDS.labels(tier).inc(seconds)

    def _take(self, host: Host, message: bytes, last_seq: int) -> int:
        """Handle one message; the `seq` that the next event has to exceed."""
        try:
            event = frames.decode(message)
        except ProtocolError as error:
            self._reject_frame(host, error)
            return last_seq
        if event is None:
            return last_seq
        if isinstance(event, StreamError):
            raise stream_error(event)
        if isinstance(event, Info):
            metrics.UPSTREAM_INFOS.labels("OutdatedCursor" if event.name == "OutdatedCursor" else "other").inc()
            log.info("host %s says %.100r: %.200r", host.hostname, event.name, event.message)
            return last_seq
        _RECEIVED[event.kind].inc()
        host.note_event(event.time, time.time())
        if event.seq <= last_seq:
            self._sink.reject(host, None, "seq-not-rising", event.did)
            return last_seq
        self._sink.put(host, event)
        return event.seq

    def _reject_frame(self, host: Host, error: ProtocolError) -> None:
        """Pass over one bad event; raise StreamEnded when the stream itself is broken (event stream spec)."""
        if not isinstance(error, FrameError) or error.fatal:
            raise StreamEnded("frame-invalid", str(error)) from None
        self._sink.reject(host, error.seq, error.reason, error.did)

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
from relay.net.websocket import PassedOver
from relay.net.websocket_client import PATH, TURN_SECONDS, Connection, Network, StreamEnded, Timing, stream_error

LONGEST_WAIT_SECONDS = 1.0
# A host has to wait that sends this many messages in as many seconds that cannot be read, and half as many that can.
UNREADABLE_ALLOWED = 100
UNREADABLE_SECONDS = 60.0
# The seq of an event that is rejected may be nonsense: the cursor follows it by this much at most.
LONGEST_STEP = 1_000_000

log = logging.getLogger(__name__)

_RECEIVED = {kind: metrics.EVENTS_RECEIVED.labels(kind.name.lower()) for kind in Kind}


class EventSink(Protocol):
    """Where events go: `ingest.lanes.Lanes`."""

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
        reading = _Reading(host, self._sink)
        turn = time.monotonic()
        while True:
            for message in stream.receive():
                self._wait_for_limits(host)
                reading.take(message)
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


class _Reading:
    """What one connection has brought so far."""

    def __init__(self, host: Host, sink: EventSink) -> None:
        self._host = host
        self._sink = sink
        self._last_seq = 0
        self._window_since = 0.0
        self._readable = 0
        self._unreadable = 0

    def take(self, message: bytes | PassedOver) -> None:
        """Handle one message. Raises StreamEnded for the host's own word, or when hardly anything can be read."""
        if isinstance(message, PassedOver):
            self._reject(message.reason, None, None)
            self._note_unreadable(f"{message.reason}: {message.detail}")
            return
        try:
            event = frames.decode(message)
        except ProtocolError as error:
            told = error if isinstance(error, FrameError) else None
            self._reject(error.reason, told.seq if told else None, told.did if told else None)
            if told is None or told.fatal:
                self._note_unreadable(str(error))
            return
        except Exception as error:
            # A bug of ours: the message would come again after every reconnect, and stop the host for good.
            log.exception("a message of %s cannot be read", self._host.hostname)
            self._reject("internal-error", None, None)
            self._note_unreadable(f"internal-error: {type(error).__name__}")
            return
        if isinstance(event, StreamError):
            raise stream_error(event)
        self._host.live_restart = False
        if event is None:
            return
        if isinstance(event, Info):
            metrics.UPSTREAM_INFOS.labels("OutdatedCursor" if event.name == "OutdatedCursor" else "other").inc()
            log.info("host %s says %.100r: %.200r", self._host.hostname, event.name, event.message)
            return
        self._put(event)

    def _put(self, event: Event) -> None:
        self._readable += 1
        _RECEIVED[event.kind].inc()
        self._host.note_event(event.time, time.time())
        if event.seq <= self._last_seq:
            self._sink.reject(self._host, None, "seq-not-rising", event.did)
            return
        self._sink.put(self._host, event)
        self._last_seq = event.seq

    def _reject(self, reason: str, seq: int | None, did: str | None) -> None:
        """Count a message that is no event. The cursor moves past it if its `seq` can be believed."""
        newest = max(self._last_seq, self._host.cursor.position)
        if seq is not None and not newest < seq <= newest + LONGEST_STEP:
            seq = None
        if seq is None:
            self._host.note_unread()
        self._sink.reject(self._host, seq, reason, did)

    def _note_unreadable(self, words: str) -> None:
        """Raise StreamEnded when the host sends little else."""
        now = time.monotonic()
        if now - self._window_since > UNREADABLE_SECONDS:
            self._window_since = now
            self._readable = self._unreadable = 0
        self._unreadable += 1
        if self._unreadable >= UNREADABLE_ALLOWED and self._unreadable > 2 * self._readable:
            raise StreamEnded("frames-unreadable", f"{self._unreadable} messages in a minute, the last one {words}")

"""The way of events from subscribers to the gate: 32 lanes.

Subscribers put events in, and wait here when the relay cannot take more. All events of an account go into the same
lane, chosen by a stable hash of its DID, so they are judged in order. Must not know what a subscriber is, or how events
are judged.
"""

from __future__ import annotations

import time
from zlib import crc32

import gevent

from relay.atproto.frames import Event
from relay.hosts.host import Host
from relay.ingest.delivery import Delivery, Fetched, Sampler
from relay.ingest.gate import Gate
from relay.ingest.hosting import Hosting
from relay.ingest.lane import QUEUE_CAPACITY, Lane
from relay.ingest.parking import Parking
from relay.ingest.rejections import Rejections
from relay.ingest.waits import Waits
from relay.kit import metrics
from relay.stream.cursors import NONE_YET
from relay.stream.projector import Projector
from relay.stream.sequencer import Sequencer

LANES = 32
WAIT_SECONDS = 1.0


class Lanes:
    """All lanes. Called by subscribers and, at start and stop, by `app`."""

    def __init__(
        self,
        gate: Gate,
        waits: Waits,
        hosting: Hosting,
        sequencer: Sequencer,
        projector: Projector,
        rejections: Rejections,
    ) -> None:
        self._gate = gate
        self._projector = projector
        self._rejections = rejections
        self._parking = Parking()
        self._sampler = Sampler()
        self._lanes = [Lane(gate, waits, hosting, sequencer, rejections, self._parking) for _ in range(LANES)]
        self._greenlets: list[gevent.Greenlet[[], None]] = []
        metrics.show_bound(
            "partitions", lambda: sum(lane.queue.qsize() for lane in self._lanes), LANES * QUEUE_CAPACITY
        )

    def start(self) -> None:
        """Start the lanes."""
        self._greenlets = [gevent.spawn(lane.run) for lane in self._lanes]

    def put(self, host: Host, event: Event) -> None:
        """Take one event of `host`; blocks while the host's budget or the lane is full.

        An event that the log or a lane already has is counted and skipped: a reconnect repeats some.
        """
        self._start_if_new(host, event.seq)
        lane = self._lanes[crc32(event.did.encode()) % LANES]
        self._wait_for_room(host, lane)
        if not host.cursor.begin(event.seq):
            lane.room.release()
            host.share.end()
            metrics.EVENTS_JUDGED.labels(event.kind.name.lower(), "duplicate").inc()
            self._rejections.note(host, "duplicate", event.did, event.seq)
            return
        # From `begin` to the queue nothing switches: a killed subscriber leaves no seq begun but never finished.
        delivery = Delivery(host, event, self._sampler.next())
        host.share.charge(delivery.price)
        host.budget.take(delivery.size)
        self._gate.look_ahead(delivery)
        lane.queue.put_nowait(delivery)

    def put_fetched(self, host: Host, event: Event, *, silent: bool = False) -> Fetched:
        """Take what `host` was asked for as if it had sent it now; blocks as `put`. `silent`: consumers get nothing."""
        lane = self._lanes[crc32(event.did.encode()) % LANES]
        self._wait_for_room(host, lane)
        delivery = Fetched(host, event, silent=silent)
        host.share.charge(delivery.price)
        host.budget.take(delivery.size)
        lane.queue.put_nowait(delivery)
        return delivery

    def reject(
        self,
        host: Host,
        seq: int | None,
        reason: str,
        did: str | None,
        detail: str = "",
        frame: bytes = b"",
        size: int = 0,
    ) -> None:
        """Count an event that never became one; with a `seq`, the host's cursor moves past it.

        `frame` is the beginning of its `size` bytes, or all of them.
        """
        self._rejections.note(host, reason, did, seq, detail, frame, size)
        if seq is not None:
            self._start_if_new(host, seq)
            if host.cursor.begin(seq):
                host.cursor.finish(seq)

    def stop(self, timeout: float) -> None:
        """Wait for at most `timeout` seconds until the lanes are empty; the rest comes again from the hosts."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not all(lane.idle for lane in self._lanes):
            gevent.sleep(0.02)
        gevent.killall(self._greenlets, timeout=5)
        for lane in self._lanes:
            lane.kill()

    def _start_if_new(self, host: Host, seq: int) -> None:
        """Store where a host's numbers start before its first event is taken up: see `HostCursor.start`."""
        if host.cursor.position == NONE_YET:
            host.cursor.start(seq - 1)
            while not self._projector.wait_until_stored(WAIT_SECONDS):
                pass

    def _wait_for_room(self, host: Host, lane: Lane) -> None:
        """Take a place in the lane, once the host may have more in flight. From then on the host has work."""
        while host.budget.full:
            host.budget.wait_for_room(WAIT_SECONDS)
        while host.cursor.full:
            gevent.sleep(WAIT_SECONDS)
        self._parking.wait_for_place(host)
        host.share.begin()
        try:
            while not lane.room.acquire(timeout=WAIT_SECONDS):
                pass
        except BaseException:
            host.share.end()
            raise

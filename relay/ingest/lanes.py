"""The door of the event path: subscribers put events in, and wait here when the relay cannot take more.

Owns the lanes and the choice of lane by DID. Called by subscribers and, at start and stop, by `app`. Must not know
what a subscriber is.
"""

from __future__ import annotations

import time
from zlib import crc32

import gevent

from relay.atproto.frames import Event
from relay.hosts.host import Host
from relay.ingest.delivery import Item
from relay.ingest.gate import Gate
from relay.ingest.partition import QUEUE_CAPACITY, Parking, Partition
from relay.ingest.rejections import Rejections
from relay.ingest.stopwatch import Sampler
from relay.ingest.waits import Errands
from relay.kit import metrics
from relay.stream.cursors import NONE_YET
from relay.stream.projector import Projector
from relay.stream.sequencer import Sequencer

PARTITIONS = 32
WAIT_SECONDS = 1.0


class Intake:
    """A fixed set of lanes, each event's chosen by a stable hash of its DID."""

    def __init__(
        self, gate: Gate, errands: Errands, sequencer: Sequencer, projector: Projector, rejections: Rejections
    ) -> None:
        self._gate = gate
        self._projector = projector
        self._rejections = rejections
        self._parking = Parking()
        self._sampler = Sampler()
        self._partitions = [Partition(gate, errands, sequencer, rejections, self._parking) for _ in range(PARTITIONS)]
        self._greenlets: list[gevent.Greenlet[[], None]] = []
        metrics.QUEUE_SIZE.labels("partitions").set_function(lambda: sum(p.queue.qsize() for p in self._partitions))
        metrics.QUEUE_CAPACITY.labels("partitions").set(PARTITIONS * QUEUE_CAPACITY)

    def start(self) -> None:
        """Start the lanes."""
        self._greenlets = [gevent.spawn(partition.run) for partition in self._partitions]

    def put(self, host: Host, event: Event) -> None:
        """Take one event of `host`; blocks while the host's budget or the lane is full.

        An event that the log or a lane already has (a reconnect repeats them) is counted and skipped.
        """
        self._start_if_new(host, event.seq)
        size = len(event.frame)
        partition = self._partitions[crc32(event.did.encode()) % PARTITIONS]
        self._wait_for_room(host, partition)
        if not host.cursor.begin(event.seq):
            partition.room.release()
            metrics.EVENTS_JUDGED.labels(event.kind.name.lower(), "duplicate").inc()
            self._rejections.note(host, "duplicate", event.did, event.seq)
            return
        # From `begin` to here nothing switches: a subscriber that is killed leaves no seq begun and never finished.
        host.budget.take(size)
        item = Item(host, event, size, watch=self._sampler.next())
        self._gate.look_ahead(item)
        partition.queue.put_nowait(item)

    def reject(self, host: Host, seq: int | None, reason: str, did: str | None) -> None:
        """Count an event that never became one; with a `seq`, the host's cursor moves past it."""
        self._rejections.note(host, reason, did, seq)
        if seq is not None:
            self._start_if_new(host, seq)
            if host.cursor.begin(seq):
                host.cursor.finish(seq)

    def stop(self, timeout: float) -> None:
        """Wait until the lanes are empty, for `timeout` seconds at most; the rest comes again from the hosts."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not all(partition.idle for partition in self._partitions):
            gevent.sleep(0.02)
        gevent.killall(self._greenlets, timeout=5)
        for partition in self._partitions:
            partition.kill()

    def _start_if_new(self, host: Host, seq: int) -> None:
        """Have it stored where a host's numbers start before its first event is taken up: see `HostCursor.start`."""
        if host.cursor.position == NONE_YET:
            host.cursor.start(seq - 1)
            while not self._projector.wait_until_stored(WAIT_SECONDS):
                pass

    def _wait_for_room(self, host: Host, partition: Partition) -> None:
        """Return with one place in the lane taken, once the host may have more in flight."""
        while host.budget.full:
            host.budget.wait_for_room(WAIT_SECONDS)
        while host.cursor.full or (self._parking.full and host.budget.parked):
            gevent.sleep(WAIT_SECONDS)
        while not partition.room.acquire(timeout=WAIT_SECONDS):
            pass

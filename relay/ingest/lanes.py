"""The way of events from subscribers through the gate to the sequencer: 32 lanes.

Subscribers put events in, and wait here when the relay cannot take more. All events of an account go into the same
lane, chosen by a stable hash of its DID, so they are judged in order. When one has to wait, its account gets a line of
its own beside the lane (`lines`), and the lane goes on. Must not know what a subscriber is, or how events are judged.
"""

from __future__ import annotations

import logging
import time
from zlib import crc32

import gevent
from gevent.lock import BoundedSemaphore
from gevent.queue import Queue

from relay.atproto.errors import ProtocolError
from relay.atproto.frames import Account, Event, Kind
from relay.hosts.host import Host
from relay.ingest.delivery import Again, Delivery, Fetched, Hold, Rejected, Sampler, Wait
from relay.ingest.gate import Gate
from relay.ingest.hosting import Hosting
from relay.ingest.lines import Lines
from relay.ingest.look_ahead import LookAhead
from relay.ingest.parking import Parking
from relay.ingest.rejections import Rejections
from relay.ingest.waits import Waits
from relay.kit import metrics
from relay.kit.background import yield_hub
from relay.kit.errors import IdentityError, StoreError
from relay.stream.cursors import NONE_YET
from relay.stream.projector import Projector
from relay.stream.sequencer import Sequencer

LANES = 32
# Short, because everything in a lane is behind what waits in it: when thousands of new accounts send at once, their
# events wait in their hosts' sockets instead.
QUEUE_CAPACITY = 16
# A lane with work lets others have a turn after this many events, which is all that its queue holds, or once their
# verification took this long: events judged in a row find the caches warm, and those that wait for room come together.
EVENTS_PER_TURN = QUEUE_CAPACITY
TURN_SECONDS = 0.003
WAIT_SECONDS = 1.0
STORE_RETRY_SECONDS = 1.0
# Drops by which nothing is missed, if the DID document is up to date; and their name for who fetched the event, if not.
WRONG_HOST = "wrong-host"
BY_DOCUMENT = frozenset({WRONG_HOST, "did-tombstone"})
NOT_READ = "identity-not-read"

log = logging.getLogger(__name__)


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
        look_ahead: LookAhead,
    ) -> None:
        self._gate = gate
        self._look_ahead = look_ahead
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

    def put(self, host: Host, event: Event) -> bool:
        """Take one event of `host`; blocks while the host's budget or the lane is full. True when it had to wait.

        An event that the log or a lane already has is counted and skipped: a reconnect repeats some.
        """
        if host.cursor.position == NONE_YET:
            self._store_start(host, event.seq)
        lane = self._lanes[crc32(event.did.encode()) % LANES]
        waited = self._wait_for_room(host, lane)
        if not host.cursor.begin(event.seq):
            lane.room.release()
            host.share.end()
            metrics.EVENTS_JUDGED.labels(event.kind.name.lower(), "duplicate").inc()
            self._rejections.note(host, "duplicate", event.did, event.seq)
            return waited
        # From `begin` to the queue nothing switches: a killed subscriber leaves no seq begun but never finished.
        delivery = Delivery(host, event, self._sampler.next())
        host.share.charge(delivery.price)
        host.budget.take(delivery.size)
        if self._gate.pool is not None:
            self._gate.verify_ahead(delivery)
        if lane.queue.qsize():
            self._look_ahead.want(event.did)
        lane.queue.put_nowait(delivery)
        return waited

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
            if host.cursor.position == NONE_YET:
                self._store_start(host, seq)
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

    def _store_start(self, host: Host, seq: int) -> None:
        """Store where a host's numbers start before its first event is taken up: see `HostCursor.start`."""
        host.cursor.start(seq - 1)
        while not self._projector.wait_until_stored(WAIT_SECONDS):
            pass

    def _wait_for_room(self, host: Host, lane: Lane) -> bool:
        """Take a place in the lane, once the host may have more in flight. From then on the host has work.

        True when there was none at first.
        """
        waited = False
        while host.budget.full:
            waited = True
            host.budget.wait_for_room(WAIT_SECONDS)
        while host.cursor.full:
            waited = True
            gevent.sleep(WAIT_SECONDS)
        if self._parking.full:
            self._parking.wait_for_place(host)
        host.share.begin()
        try:
            if not lane.room.acquire(blocking=False):
                waited = True
                # Ended by the lane, which goes on for ever: in a backlog a timer for each event would cost too much.
                lane.room.acquire()
        except BaseException:
            host.share.end()
            raise
        return waited


class Lane:
    """A queue, the greenlet that has its events judged in order, and the lines beside it. `room` is acquired before
    `queue` is filled: that bound is the backpressure on subscribers.
    """

    def __init__(
        self,
        gate: Gate,
        waits: Waits,
        hosting: Hosting,
        sequencer: Sequencer,
        rejections: Rejections,
        parking: Parking,
    ) -> None:
        self.room = BoundedSemaphore(QUEUE_CAPACITY)
        self.queue: Queue[Delivery] = Queue()
        self._gate = gate
        self._hosting = hosting
        self._sequencer = sequencer
        self._rejections = rejections
        self._lines = Lines(waits, hosting, parking, self._settle, self._drop)
        self._busy = False

    @property
    def idle(self) -> bool:
        """True when nothing is queued, being judged, or parked."""
        return not self._busy and self.queue.empty() and not self._lines.by_account and not self._lines.asides

    def run(self) -> None:
        """Work through the queue, for ever. Waiting for work is the one wait here without a timeout."""
        lines, handled, took = self._lines, 0, 0.0
        while True:
            delivery = self.queue.get()
            self.room.release()
            self._busy = True
            if not (lines.by_account or lines.asides) or not lines.join(delivery):
                wait = self._settle(delivery)
                if wait is not None:
                    lines.begin(delivery, wait)
            self._busy = False
            delivery.end_work()
            handled += 1
            took += delivery.took
            if self.queue.empty():
                handled, took = 0, 0.0
            elif handled >= EVENTS_PER_TURN or took > TURN_SECONDS:
                # A queue that is never empty never switches by itself.
                handled, took = 0, 0.0
                yield_hub()

    def kill(self) -> None:
        """Kill the greenlets of the lines."""
        self._lines.kill()

    def _settle(self, delivery: Delivery) -> Wait | None:
        """Judge `delivery` and pass it on or drop it. Returns what it is held for, if it has to wait."""
        if delivery.watch is not None:
            delivery.watch.end("parked" if delivery.done else "queued")
        while True:
            if delivery.check is not None:
                delivery.check.wait()
            try:
                self._gate.judge(delivery)
            except Hold as hold:
                # Not the exception itself: its traceback and its frames hold each other until the next collection.
                return hold.wait
            except Again:
                continue
            except (Rejected, IdentityError) as error:
                self._drop(delivery, error.reason, error.detail)
            except ProtocolError as error:
                self._drop(delivery, error.reason, str(error))
            except StoreError as error:
                # Without SQL no account's state is known: this lane waits, and pushes back on its hosts.
                log.debug("waiting for the database: %s", error)
                gevent.sleep(STORE_RETRY_SECONDS)
                continue
            except Exception:
                log.exception("judging an event of %s crashed", delivery.event.did)
                self._drop(delivery, "internal-error", "")
            else:
                self._pass_on(delivery)
            return None

    def _pass_on(self, delivery: Delivery) -> None:
        if delivery.watch is not None:
            delivery.watch.end("judged")
        _ACCEPTED[delivery.event.kind].inc()
        if isinstance(delivery, Fetched) and delivery.silent:
            self._hosting.enter(delivery)
            delivery.finish()
            return
        self._sequencer.submit(delivery)

    def _drop(self, delivery: Delivery, reason: str, detail: str) -> None:
        _DROPPED[delivery.event.kind].inc()
        host, event = delivery.host, delivery.event
        # By a document that may be outdated. The account's next event may be long in coming.
        doubted = delivery.refresh_denied and reason in BY_DOCUMENT
        delivery.refuse(NOT_READ if doubted else reason)
        missed = not isinstance(delivery, Fetched)
        if missed and reason == WRONG_HOST and not (isinstance(event, Account) and not event.active):
            # The directory may not have the new document of an account that moves yet.
            doubted = doubted or self._rejections.is_first_claim(host, event.did)
        self._rejections.note(host, reason, event.did, event.seq, detail, event.frame, missed=missed, doubted=doubted)
        delivery.finish()


_ACCEPTED, _DROPPED = (
    {kind: metrics.EVENTS_JUDGED.labels(kind.name.lower(), outcome) for kind in Kind}
    for outcome in ("accepted", "dropped")
)

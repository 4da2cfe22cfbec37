"""One lane of the event path: a queue, the greenlet that works it off, and the accounts parked beside it.

The intake puts every event of one account into the same lane, so that they are judged in order. An event that has to
wait moves with its account to a line of its own, and the lane goes on. Must not know how events are judged.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial

import gevent
from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from gevent.queue import Queue

from relay.atproto.errors import ProtocolError
from relay.atproto.frames import Kind
from relay.ingest.delivery import Errand, Hold, Item, Rejected, Unverified
from relay.ingest.gate import Gate
from relay.ingest.rejections import Rejections
from relay.ingest.waits import Errands
from relay.kit import metrics
from relay.kit.errors import IdentityError, StoreError
from relay.stream.sequencer import Sequencer, Submission

# Short, since every account of a lane is behind what waits in it: thousands of new accounts' events at once wait in
# their hosts' sockets instead.
QUEUE_CAPACITY = 16
PARKED_EVENTS = 10_000
PARKED_BYTES = 128 << 20
EVENTS_PER_TURN = 4
STORE_RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


class Parking:
    """How many events wait beside the lanes, over all of them. At the bound, hosts that have events here wait."""

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        metrics.QUEUE_SIZE.labels("parked").set_function(lambda: self.events)
        metrics.QUEUE_CAPACITY.labels("parked").set(PARKED_EVENTS)
        metrics.QUEUE_SIZE.labels("parked-bytes").set_function(lambda: self.bytes)
        metrics.QUEUE_CAPACITY.labels("parked-bytes").set(PARKED_BYTES)

    @property
    def full(self) -> bool:
        """True when a host with parked events must not park more."""
        return self.events >= PARKED_EVENTS or self.bytes >= PARKED_BYTES

    def enter(self, item: Item) -> None:
        """Count `item` as parked."""
        self.events += 1
        self.bytes += item.size
        item.host.budget.parked += 1

    def leave(self, item: Item) -> None:
        """`item` is judged at last."""
        self.events -= 1
        self.bytes -= item.size
        item.host.budget.parked -= 1


class Partition:
    """A lane. The intake takes a place in `room`, then fills `queue`: that bound is the backpressure on subscribers."""

    def __init__(
        self, gate: Gate, errands: Errands, sequencer: Sequencer, rejections: Rejections, parking: Parking
    ) -> None:
        self.room = BoundedSemaphore(QUEUE_CAPACITY)
        self.queue: Queue[Item] = Queue()
        self._gate = gate
        self._errands = errands
        self._sequencer = sequencer
        self._rejections = rejections
        self._parking = parking
        self._lines: dict[str, deque[Item]] = {}
        self._attendants = Group()
        self._busy = False

    @property
    def idle(self) -> bool:
        """True when nothing is queued, being judged, or parked."""
        return not self._busy and self.queue.empty() and not self._lines

    def run(self) -> None:
        """Work the queue off, for ever. Waiting for work is the one wait here without a timeout."""
        handled = 0
        while True:
            item = self.queue.get()
            self.room.release()
            self._busy = True
            self._take(item)
            self._busy = False
            handled += 1
            if handled % EVENTS_PER_TURN == 0:
                # A queue that always has something never switches by itself.
                gevent.sleep(0)

    def kill(self) -> None:
        """End the parked accounts' greenlets; their events stay unfinished and come again from the host."""
        self._attendants.kill(timeout=5)

    def _take(self, item: Item) -> None:
        did = item.event.did
        line = self._lines.get(did)
        if line is not None:
            self._parking.enter(item)
            line.append(item)
            return
        errand = self._settle(item)
        if errand is not None:
            self._parking.enter(item)
            self._lines[did] = line = deque([item])
            self._attendants.spawn(self._attend, did, line, errand)

    def _attend(self, did: str, line: deque[Item], errand: Errand | None) -> None:
        """Work off one parked account's line, in order, with every errand that its first event waits for."""
        while line:
            item = line[0]
            while errand is not None and self._ran(item, errand):
                errand = self._settle(item)
            line.popleft()
            self._parking.leave(item)
            gevent.sleep(0)
            errand = self._settle(line[0]) if line else None
        # No switch since the line was seen empty: the next event of the account finds it gone.
        del self._lines[did]

    def _ran(self, item: Item, errand: Errand) -> bool:
        """Run the errand that `item` is held for. False when it failed, and the event is dropped for it."""
        try:
            self._errands.run(item, errand)
        except IdentityError as error:
            self._drop(item, error.reason, error.detail)
            return False
        except StoreError as error:
            log.warning("account status not stored: %s", error)
        item.done |= {errand}
        return True

    def _settle(self, item: Item) -> Errand | None:
        """Judge `item` and pass it on or drop it; or say what it is held for."""
        if item.watch is not None:
            item.watch.end("parked" if item.done else "queued")
        while True:
            if item.check is not None:
                item.check.wait()
            try:
                submission = self._gate.judge(item)
            except Hold as hold:
                # Not the exception itself: its traceback holds the frames, and they it, until a collection.
                return hold.errand
            except Unverified:
                continue
            except (Rejected, IdentityError) as error:
                self._drop(item, error.reason, error.detail)
            except ProtocolError as error:
                self._drop(item, error.reason, str(error))
            except StoreError as error:
                # Without SQL nobody's state can be told: this lane waits, and pushes back on its hosts.
                log.warning("waiting for the database: %s", error)
                gevent.sleep(STORE_RETRY_SECONDS)
                continue
            except Exception:
                log.exception("judging an event of %s failed", item.event.did)
                self._drop(item, "internal-error", "")
            else:
                self._pass_on(item, submission)
            return None

    def _pass_on(self, item: Item, submission: Submission) -> None:
        if item.watch is not None:
            item.watch.end("judged")
        _ACCEPTED[item.event.kind].inc()
        submission.finished = partial(_logged, item)
        self._sequencer.submit(submission)

    def _drop(self, item: Item, reason: str, detail: str) -> None:
        _DROPPED[item.event.kind].inc()
        self._rejections.note(item.host, reason, item.event.did, item.event.seq, detail)
        _finish(item)


def _logged(item: Item) -> None:
    """The event is durable and published."""
    if item.watch is not None:
        item.watch.end("logged")
    _finish(item)


def _finish(item: Item) -> None:
    """The event is durable or rejected: its host's cursor may move past it, and its room is free."""
    item.host.cursor.finish(item.event.seq)
    item.host.budget.release(item.size)


_ACCEPTED, _DROPPED = (
    {kind: metrics.EVENTS_JUDGED.labels(kind.name.lower(), outcome) for kind in Kind}
    for outcome in ("accepted", "dropped")
)

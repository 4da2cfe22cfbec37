"""One lane: a queue whose greenlet has events judged in order, and beside it the lines of accounts that wait.

Made and fed by `lanes`. When an event has to wait, its account gets a line of its own beside the lane, and the lane
goes on. Must not know what a subscriber is, or how events are judged.
"""

from __future__ import annotations

import logging
from collections import deque

import gevent
from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from gevent.queue import Queue

from relay.atproto.errors import ProtocolError
from relay.atproto.frames import Account, Kind
from relay.hosts.host import Host
from relay.ingest.delivery import Delivery, Fetched, Hold, Rejected, Unverified, Wait
from relay.ingest.gate import Gate
from relay.ingest.hosting import Hosting
from relay.ingest.parking import Parking
from relay.ingest.rejections import Rejections
from relay.ingest.waits import Waits
from relay.kit import metrics
from relay.kit.background import yield_hub
from relay.kit.errors import IdentityError, StoreError
from relay.stream.sequencer import Sequencer

# Short, because everything in a lane is behind what waits in it: when thousands of new accounts send at once, their
# events wait in their hosts' sockets instead.
QUEUE_CAPACITY = 16
# How many events of one account may always wait, however few places its host has left.
ACCOUNT_PLACES = 32
# What honest accounts wait for, too: then an account may take as many places as its host has left.
HONEST_WAITS = frozenset({Wait.IDENTITY, Wait.REFRESH, Wait.STATUS})
# A busy lane lets others have a turn after so many events, or after one that took so long.
EVENTS_PER_TURN = 4
TURN_SECONDS = 0.001
STORE_RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


class Line:
    """The deliveries of one account that wait, in order. `wait` is what the first of them waits for.

    `last_account` is the newest `#account` event that came while the line was full: only the last one counts.
    `throttled`: consumers were told that events are missing.
    """

    __slots__ = ("deliveries", "last_account", "overflowed", "throttled", "wait")

    def __init__(self, delivery: Delivery, wait: Wait) -> None:
        self.deliveries = deque([delivery])
        self.wait = wait
        self.last_account: Delivery | None = None
        self.overflowed = False
        self.throttled = False

    def has_room(self, delivery: Delivery) -> bool:
        """Whether one more event of the account may wait.

        Only the PLC directory, when it is away, makes an account of did:plc wait for its identity, and only the relay
        makes one wait whose events are long. Then nothing is dropped, and the host's own places are the bound.
        """
        if self.wait is Wait.LONG or (self.wait is Wait.IDENTITY and delivery.event.did.startswith("did:plc:")):
            return True
        places = ACCOUNT_PLACES
        if self.wait in HONEST_WAITS:
            places = max(places, delivery.host.budget.spare_events)
        # Events of other hosts do not count against those of the account's own.
        return len(self.deliveries) < places or sum(one.host is delivery.host for one in self.deliveries) < places


class Lane:
    """A queue, its greenlet, and the lines beside it. `room` is acquired before `queue` is filled: that bound is the
    backpressure on subscribers.
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
        self._waits = waits
        self._hosting = hosting
        self._sequencer = sequencer
        self._rejections = rejections
        self._parking = parking
        self._lines: dict[str, Line] = {}
        # By DID and host: events of hosts that are not (yet) the account's host do not hold up the account's own.
        self._asides: dict[tuple[str, int], Line] = {}
        self._attendants = Group()
        self._busy = False

    @property
    def idle(self) -> bool:
        """True when nothing is queued, being judged, or parked."""
        return not self._busy and self.queue.empty() and not self._lines and not self._asides

    def run(self) -> None:
        """Work through the queue, for ever. Waiting for work is the one wait here without a timeout."""
        handled = 0
        while True:
            delivery = self.queue.get()
            self.room.release()
            self._busy = True
            self._take(delivery)
            self._busy = False
            delivery.end_work()
            handled += 1
            if self.queue.empty():
                handled = 0
            elif handled >= EVENTS_PER_TURN or delivery.took > TURN_SECONDS:
                # A queue that is never empty never switches by itself.
                handled = 0
                yield_hub()

    def kill(self) -> None:
        """Kill the greenlets of the lines. Their events stay unfinished and come again from the hosts."""
        self._attendants.kill(timeout=5)

    def _take(self, delivery: Delivery) -> None:
        did = delivery.event.did
        line = self._asides.get((did, delivery.host.id)) or self._lines.get(did)
        if line is not None:
            self._append(line, delivery)
            return
        wait = self._settle(delivery)
        if wait is not None:
            self._parking.enter(delivery)
            self._hold(delivery, wait)

    def _append(self, line: Line, delivery: Delivery) -> None:
        """Let `delivery` wait behind the others of its account, if so many may wait."""
        if line.has_room(delivery):
            self._parking.enter(delivery)
            line.deliveries.append(delivery)
        else:
            self._overflow(line, delivery)

    def _overflow(self, line: Line, delivery: Delivery) -> None:
        """Drop `delivery`, or keep it in place of an earlier `#account` event."""
        did, host = delivery.event.did, delivery.host
        if isinstance(delivery, Fetched):
            self._drop(delivery, "account-throttled", "")
            return
        dropped: Delivery | None = delivery
        if isinstance(delivery.event, Account):
            dropped, line.last_account = line.last_account, delivery
            self._parking.enter(delivery)
            if dropped is not None:
                self._parking.leave(dropped)
        if dropped is not None:
            self._drop(dropped, "account-throttled", "too many events of the account wait")
        if not line.overflowed:
            line.overflowed = True
            line.throttled = self._throttle(did, host)

    def _hold(self, delivery: Delivery, wait: Wait) -> None:
        """Begin a line with a parked delivery."""
        did, line = delivery.event.did, Line(delivery, wait)
        if wait is Wait.FOREIGN:
            self._asides[did, delivery.host.id] = line
            self._attendants.spawn(self._attend_aside, did, delivery.host.id, line)
        else:
            self._lines[did] = line
            self._attendants.spawn(self._attend, did, line, wait)

    def _attend_aside(self, did: str, host_id: int, line: Line) -> None:
        """Have the document read again for a foreign host; then its events queue behind the account's own."""
        if not self._ran(line.deliveries[0], Wait.FOREIGN):
            self._parking.leave(line.deliveries.popleft())
        # From here until the line is in its new place nothing switches: the account's events stay in order.
        del self._asides[did, host_id]
        if line.last_account is not None:
            line.deliveries.append(line.last_account)
            line.last_account = None
        account_line = self._lines.get(did)
        if account_line is not None:
            account_line.deliveries.extend(line.deliveries)
            return
        self._lines[did] = line
        self._attend(did, line, None)

    def _attend(self, did: str, line: Line, wait: Wait | None) -> None:
        """Work through one account's line in order, with everything that each event has to wait for."""
        handled = 0
        while line.deliveries or line.last_account is not None or line.throttled:
            if line.deliveries:
                took = self._attend_first(did, line, wait)
                wait = None
                handled += 1
                if handled >= EVENTS_PER_TURN or took > TURN_SECONDS:
                    handled = 0
                    yield_hub()
            elif line.last_account is not None:
                line.deliveries.append(line.last_account)
                line.last_account = None
            else:
                line.overflowed = line.throttled = False
                self._let_go(did)
        # Nothing has switched since the line was seen empty: the account's next event finds it gone.
        del self._lines[did]

    def _attend_first(self, did: str, line: Line, wait: Wait | None) -> float:
        """Take the first event out of the line: settled, or set aside with others of its host.

        Returns the seconds that its verification took here.
        """
        delivery = line.deliveries[0]
        aside = self._asides.get((did, delivery.host.id))
        if aside is not None:
            aside.deliveries.append(line.deliveries.popleft())
            return 0.0
        if wait is None:
            wait = self._settle_charged(delivery)
        while wait is not None and wait is not Wait.FOREIGN:
            line.wait = wait
            if wait is Wait.COOL_DOWN:
                self._shorten(line)
            if not self._ran(delivery, wait):
                break
            wait = self._settle_charged(delivery)
        line.deliveries.popleft()
        if wait is Wait.FOREIGN:
            self._hold(delivery, wait)
        else:
            self._parking.leave(delivery)
        return delivery.took

    def _shorten(self, line: Line) -> None:
        """Leave an account that turns out to have misbehaved only the places that such accounts have."""
        while len(line.deliveries) > ACCOUNT_PLACES:
            last = line.deliveries.pop()
            self._parking.leave(last)
            if line.last_account is None or not isinstance(last.event, Account):
                self._overflow(line, last)
            else:
                # The one that was kept is newer.
                self._drop(last, "account-throttled", "")

    # The next two announcements are not worth waiting for the database.

    def _throttle(self, did: str, host: Host) -> bool:
        try:
            return self._hosting.throttle(did, host)
        except StoreError as error:
            log.debug("a throttled account is not announced: %s", error)
            return False

    def _let_go(self, did: str) -> None:
        try:
            self._hosting.let_go(did)
        except StoreError as error:
            log.debug("the end of an account's throttling is not announced: %s", error)

    def _ran(self, delivery: Delivery, wait: Wait) -> bool:
        """Wait for what `delivery` is held for. False when that failed and the event was dropped."""
        try:
            self._waits.run(delivery, wait)
        except IdentityError as error:
            self._drop(delivery, error.reason, error.detail)
            return False
        except StoreError as error:
            log.debug("an account's status is not stored: %s", error)
        delivery.done |= {wait}
        return True

    def _settle_charged(self, delivery: Delivery) -> Wait | None:
        """`_settle` beside the lane. It does not wait for its host's share: what is behind it may be another host's."""
        delivery.host.share.begin()
        try:
            return self._settle(delivery)
        finally:
            delivery.end_work()

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
            except Unverified:
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
        event = delivery.event
        delivery.refuse(reason)
        missed = not isinstance(delivery, Fetched)
        self._rejections.note(delivery.host, reason, event.did, event.seq, detail, event.frame, missed=missed)
        delivery.finish()


_ACCEPTED, _DROPPED = (
    {kind: metrics.EVENTS_JUDGED.labels(kind.name.lower(), outcome) for kind in Kind}
    for outcome in ("accepted", "dropped")
)

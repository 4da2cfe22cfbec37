"""What waits beside the lanes: a line for each account whose events are held.

A lane hands over an event that has to wait, and each later one of its account, and goes on with others. The places that
they take are counted by `parking`. Must not know how events are judged, or how what they wait for is found out.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from gevent.pool import Group

from relay.atproto.frames import Account
from relay.hosts.host import Host
from relay.ingest.delivery import Delivery, Fetched, Wait
from relay.ingest.hosting import Hosting
from relay.ingest.parking import Parking
from relay.ingest.waits import Waits
from relay.kit.background import yield_hub
from relay.kit.errors import IdentityError, StoreError

# How many events of one account may always wait, however few places its host has left.
ACCOUNT_PLACES = 32
# What honest accounts wait for, too: then an account may take as many places as its host has left.
HONEST_WAITS = frozenset({Wait.IDENTITY, Wait.ANSWER, Wait.REFRESH, Wait.STATUS})
# Work lets others have a turn after this many events, or after one that took this long.
EVENTS_PER_TURN = 4
TURN_SECONDS = 0.001

log = logging.getLogger(__name__)


class Line:
    """The deliveries of one account that wait, in order. `wait` is what the first of them waits for.

    `last_accounts` are the newest `#account` events that came while the line was full, by host: of those only the last
    one counts. Nothing in the line came later from the same host. `throttled`: consumers were told that events are
    missing.
    """

    __slots__ = ("deliveries", "last_accounts", "overflowed", "throttled", "wait")

    def __init__(self, delivery: Delivery, wait: Wait) -> None:
        self.deliveries = deque([delivery])
        self.wait = wait
        self.last_accounts: dict[int, Delivery] = {}
        self.overflowed = False
        self.throttled = False

    def has_room(self, delivery: Delivery) -> bool:
        """Whether one more event of the account may wait.

        The PLC directory is asked once in a moment, and only the relay makes an account wait whose events are long.
        Then nothing is dropped, and the host's own places are the bound. So they are while the directory does not tell
        about an account of a host that has no other.
        """
        is_plc, host = delivery.event.did.startswith("did:plc:"), delivery.host
        if self.wait is Wait.LONG or (is_plc and self.wait is Wait.IDENTITY):
            return True
        if is_plc and self.wait is Wait.ANSWER and not host.account_count:
            return True
        places = self.places_at(host)
        # Events of other hosts do not count against those of the account's own.
        return len(self.deliveries) < places or sum(one.host is host for one in self.deliveries) < places

    def places_at(self, host: Host) -> int:
        """How many events of the account may wait where `host` has other accounts."""
        return max(ACCOUNT_PLACES, host.budget.spare_events) if self.wait in HONEST_WAITS else ACCOUNT_PLACES

    def add(self, delivery: Delivery) -> None:
        """Let one more event wait, behind all that its host sent before it."""
        if self.last_accounts and delivery.host.id in self.last_accounts:
            self.deliveries.append(self.last_accounts.pop(delivery.host.id))
        self.deliveries.append(delivery)

    def add_last_accounts(self) -> None:
        """Let the `#account` events that were kept wait like all others."""
        self.deliveries.extend(self.last_accounts.values())
        self.last_accounts.clear()

    def take_out(self, host: Host) -> list[Delivery]:
        """All that `host` has in the line, in order."""
        theirs = [one for one in self.deliveries if one.host.id == host.id]
        self.deliveries = deque([one for one in self.deliveries if one.host.id != host.id])
        if host.id in self.last_accounts:
            theirs.append(self.last_accounts.pop(host.id))
        return theirs


class Lines:
    """The lines beside one lane, each worked through by a greenlet of its own.

    `settle` judges an event and passes it on or drops it, or returns what it has to wait for; `drop` drops it, for a
    reason with a detail.
    """

    def __init__(
        self,
        waits: Waits,
        hosting: Hosting,
        parking: Parking,
        settle: Callable[[Delivery], Wait | None],
        drop: Callable[[Delivery, str, str], None],
    ) -> None:
        self.by_account: dict[str, Line] = {}
        # By DID and host: events of hosts that are not (yet) the account's host do not hold up the account's own.
        self.asides: dict[tuple[str, int], Line] = {}
        self._waits = waits
        self._hosting = hosting
        self._parking = parking
        self._settle = settle
        self._drop = drop
        self._attendants = Group()

    def kill(self) -> None:
        """Kill the greenlets of the lines. Their events stay unfinished and come again from the hosts."""
        self._attendants.kill(timeout=5)

    def join(self, delivery: Delivery) -> bool:
        """Let `delivery` wait behind the others of its account, if there is room. False when none of them waits."""
        did = delivery.event.did
        line = self._line_of(did, delivery.host)
        if line is None:
            return False
        if line.has_room(delivery):
            self._parking.enter(delivery)
            line.add(delivery)
        else:
            self._overflow(line, delivery)
        return True

    def begin(self, delivery: Delivery, wait: Wait) -> None:
        """Let `delivery` wait. None of its account did when its judgement began."""
        self._parking.enter(delivery)
        line = self.by_account.get(delivery.event.did)
        if line is not None and wait is not Wait.FOREIGN:
            # What waited for another host has become the account's line while SQL or a worker was asked.
            line.add(delivery)
        else:
            self._hold(Line(delivery, wait))

    def _overflow(self, line: Line, delivery: Delivery) -> None:
        """Drop `delivery`, or keep it in place of an earlier `#account` event of its host."""
        did, host = delivery.event.did, delivery.host
        if isinstance(delivery, Fetched):
            self._drop(delivery, "account-throttled", "")
            return
        dropped: Delivery | None = delivery
        if isinstance(delivery.event, Account):
            dropped = line.last_accounts.pop(host.id, None)
            line.last_accounts[host.id] = delivery
            self._parking.enter(delivery)
            if dropped is not None:
                self._parking.leave(dropped)
        if dropped is not None:
            self._drop(dropped, "account-throttled", "too many events of the account wait")
        if not line.overflowed:
            line.overflowed = True
            if self._throttle(did, host):
                # Telling may have waited, and the line may have ended meanwhile, or become a part of another one.
                following = self._line_of(did, host)
                if following is None:
                    self._let_go(did)
                else:
                    following.throttled = True

    def _line_of(self, did: str, host: Host) -> Line | None:
        """Where an event of the account that `host` sends now has to wait."""
        return self.asides.get((did, host.id)) or self.by_account.get(did)

    def _hold(self, line: Line) -> None:
        """Begin a line of parked deliveries."""
        first, wait = line.deliveries[0], line.wait
        did, host_id = first.event.did, first.host.id
        if wait is Wait.FOREIGN:
            self.asides[did, host_id] = line
            self._attendants.spawn(self._attend_aside, did, host_id, line)
        else:
            self.by_account[did] = line
            self._attendants.spawn(self._attend, did, line, wait)

    def _attend_aside(self, did: str, host_id: int, line: Line) -> None:
        """Have the document read again for a foreign host; then its events queue behind the account's own."""
        if not self._ran(line.deliveries[0], Wait.FOREIGN):
            self._parking.leave(line.deliveries.popleft())
        # From here until the line is in its new place nothing switches: the account's events stay in order.
        del self.asides[did, host_id]
        line.add_last_accounts()
        account_line = self.by_account.get(did)
        if account_line is not None:
            account_line.deliveries.extend(line.deliveries)
            account_line.overflowed |= line.overflowed
            account_line.throttled |= line.throttled
            return
        self.by_account[did] = line
        self._attend(did, line, None)

    def _attend(self, did: str, line: Line, wait: Wait | None) -> None:
        """Work through one account's line in order, with everything that each event has to wait for."""
        handled = 0
        while line.deliveries or line.last_accounts or line.throttled:
            if line.deliveries:
                took = self._attend_first(line, wait)
                wait = None
                handled += 1
                if handled >= EVENTS_PER_TURN or took > TURN_SECONDS:
                    handled = 0
                    yield_hub()
            elif line.last_accounts:
                line.add_last_accounts()
            else:
                line.overflowed = line.throttled = False
                self._let_go(did)
        # Nothing has switched since the line was seen empty: the account's next event finds it gone.
        del self.by_account[did]

    def _attend_first(self, line: Line, wait: Wait | None) -> float:
        """Take the first event out of the line: settled, or set aside with all others of its host.

        Returns the seconds that its verification took here.
        """
        delivery = line.deliveries[0]
        if wait is None:
            wait = self._settle_charged(delivery)
        while wait is not None and wait is not Wait.FOREIGN:
            line.wait = wait
            if wait is Wait.COOL_DOWN or (wait is Wait.ANSWER and delivery.host.account_count):
                self._shorten(line)
            if not self._ran(delivery, wait):
                break
            wait = self._settle_charged(delivery)
        if wait is Wait.FOREIGN:
            aside = Line(delivery, wait)
            # All at once: what comes from now on is behind them.
            aside.deliveries = deque(line.take_out(delivery.host))
            self._hold(aside)
        else:
            line.deliveries.popleft()
            self._parking.leave(delivery)
        return delivery.took

    def _shorten(self, line: Line) -> None:
        """Leave an account that turns out to have misbehaved, or to wait for long, only the places of such accounts."""
        while len(line.deliveries) > line.places_at(line.deliveries[-1].host):
            last = line.deliveries.pop()
            self._parking.leave(last)
            if isinstance(last.event, Account) and last.host.id in line.last_accounts:
                # The one that was kept is newer.
                self._drop(last, "account-throttled", "")
            else:
                self._overflow(line, last)

    def _throttle(self, did: str, host: Host) -> bool:
        return self._announced(did, lambda: self._hosting.throttle(did, host))

    def _let_go(self, did: str) -> None:
        self._announced(did, lambda: self._hosting.let_go(did))

    def _announced(self, did: str, announce: Callable[[], bool | None]) -> bool:
        """What `announce` returns. It is worth neither a wait for the database nor the end of a line or a lane."""
        try:
            return bool(announce())
        except StoreError as error:
            log.debug("consumers are not told whether events of %s are missing: %s", did, error)
        except Exception:
            log.exception("telling consumers whether events of %s are missing crashed", did)
        return False

    def _ran(self, delivery: Delivery, wait: Wait) -> bool:
        """Wait for what `delivery` is held for. False when that failed and the event was dropped."""
        try:
            self._waits.run(delivery, wait)
        except IdentityError as error:
            self._drop(delivery, error.reason, error.detail)
            return False
        except StoreError as error:
            log.debug("an account's status is not stored: %s", error)
        except Exception:
            # A bug of ours. Without the rest of its line the account would wait for ever.
            log.exception("waiting for the %s of %s crashed", wait.value, delivery.event.did)
            self._drop(delivery, "internal-error", "")
            return False
        delivery.done |= {wait}
        return True

    def _settle_charged(self, delivery: Delivery) -> Wait | None:
        """`settle` beside the lane. It does not wait for its host's share: what is behind it may be another host's."""
        delivery.host.share.begin()
        try:
            return self._settle(delivery)
        finally:
            delivery.end_work()

"""The PLC directory: one or more addresses that hold the same documents, asked in order, the health of each kept.

Called by `lookup` for every did:plc. Tells facts from everything else: what a proxy, an overloaded server or a broken
network answers says nothing about a DID. Must not know of caches, or of what is in a document.

1. Only 200, 404 and 410 are facts about a DID. With any other answer the next address is asked, and with 404 as well,
   since a mirror may not have a DID yet: it is a fact once no address that can be asked now knows the DID.
2. 429, and a failure with `Retry-After`, hold an address for as long as it asks, at most 30 s. What waits goes on
   waiting: it takes no turn meanwhile and is not given up.
3. An address that fails CLOSE_AFTER times in a row is closed for a while. Then one request tries it, and opens it or
   closes it again.
4. How many requests are under way together grows by one with each answer, from FIRST_AT_ONCE on, and begins anew when
   the address asks for a pause or closes: what is under way cannot be called back.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence

import gevent
from gevent.lock import Semaphore

from relay.kit import metrics
from relay.kit.errors import AddressRefused, HttpError, IdentityError
from relay.kit.limits import Pace
from relay.net.http import GuardedHttp, Response

NOT_FOUND = 404
FACTS = frozenset({200, NOT_FOUND, 410})

REQUEST_SECONDS = 8.0
# An address fails now and then, and is worth asking again.
TRIES = 5
FIRST_PAUSE_SECONDS = 0.25
LONGEST_HOLD_SECONDS = 30.0
DEFAULT_HOLD_SECONDS = 5.0
LOOK_SECONDS = 1.0

PER_SECOND = 500.0
BURST = 500
FIRST_AT_ONCE = 8
MAX_AT_ONCE = 100

# Without an answer about any DID for so long, nothing can be said of one.
SILENT_SECONDS = 60.0

CLOSE_AFTER = 10
FIRST_CLOSED_SECONDS = 1.0
LONGEST_CLOSED_SECONDS = 10.0

log = logging.getLogger(__name__)


class _Places:
    """How many requests may be under way together; see rule 4."""

    __slots__ = ("_allowed", "_free", "_surplus")

    def __init__(self) -> None:
        self._allowed = FIRST_AT_ONCE
        self._free = Semaphore(FIRST_AT_ONCE)
        # Places that are taken away as they become free.
        self._surplus = 0

    def enter(self, timeout: float) -> bool:
        """Take a place; False when none is free in time."""
        return self._free.acquire(timeout=timeout)

    def leave(self, *, answered: bool) -> None:
        """Give the place back, and one more after an answer."""
        if answered and self._allowed < MAX_AT_ONCE:
            self._allowed += 1
            self._give()
        self._give()

    def begin_anew(self) -> None:
        """Back to FIRST_AT_ONCE."""
        self._surplus += self._allowed - FIRST_AT_ONCE
        self._allowed = FIRST_AT_ONCE
        while self._surplus and self._free.acquire(blocking=False):
            self._surplus -= 1

    def _give(self) -> None:
        if self._surplus:
            self._surplus -= 1
        else:
            self._free.release()


class _Address:
    """One address and how it is doing. `clock` values are seconds of a clock that does not go back."""

    __slots__ = ("base", "closed_for", "closed_until", "failures", "held_until", "pace", "places", "probing")

    def __init__(self, base: str) -> None:
        self.base = base
        self.pace = Pace(PER_SECOND, BURST)
        self.places = _Places()
        self.held_until = 0.0
        self.failures = 0
        # How long it is closed for, 0 while it is open; and until when.
        self.closed_for = 0.0
        self.closed_until = 0.0
        self.probing = False

    def usable(self, now: float) -> bool:
        """Whether it may be asked now."""
        if now < self.held_until:
            return False
        return not self.closed_for or (now >= self.closed_until and not self.probing)


class Directory:
    """The addresses as the operator wrote them down, the preferred one first."""

    def __init__(
        self,
        http: GuardedHttp,
        bases: Sequence[str],
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._addresses = [_Address(base) for base in bases]
        self._max_bytes = max_bytes
        self._clock = clock
        self._answered_at = -SILENT_SECONDS
        for address in self._addresses:
            metrics.DIRECTORY_UP.labels(address.base).set(1)

    @property
    def silent(self) -> bool:
        """Whether no address has told a fact about any DID lately."""
        return self._clock() - self._answered_at >= SILENT_SECONDS

    def get(self, did: str, seconds: float, is_answer: Callable[[Response], bool]) -> Response:
        """The fact about `did`, within `seconds` and the pauses that the directory asks for.

        `is_answer` tells a document of the directory from the page of something in between. Of a body that is longer
        than `max_bytes` one byte more than that is there. Raises IdentityError `did-unavailable` when it cannot be told
        now.
        """
        deadline = self._clock() + seconds
        failure = "no address of the directory can be asked now"
        for attempt in range(TRIES):
            if attempt:
                gevent.sleep(pause_before(attempt))
            deadline += self._wait_for_holds()
            usable = [address for address in self._addresses if address.usable(self._clock())]
            unknown: Response | None = None
            for address in usable:
                left = deadline - self._clock()
                if left <= 0:
                    break
                answer = self._ask(address, did, left, is_answer)
                if not isinstance(answer, Response):
                    failure = answer
                elif answer.status == NOT_FOUND:
                    unknown = answer
                else:
                    return answer
            if unknown is not None:
                return unknown
            if deadline <= self._clock():
                break
            if not usable and not self._held():
                break
        raise IdentityError("did-unavailable", failure)

    def _held(self) -> bool:
        now = self._clock()
        return any(now < address.held_until for address in self._addresses)

    def _wait_for_holds(self) -> float:
        """Sit out the pauses that were asked for while no address may be asked; the seconds that it took."""
        began = self._clock()
        while True:
            now = self._clock()
            if any(address.usable(now) for address in self._addresses):
                break
            holds = [address.held_until for address in self._addresses if now < address.held_until]
            # Ended by time: a hold takes at most LONGEST_HOLD_SECONDS, and only a new request makes a new one.
            if not holds:
                break
            # An address that is closed may be tried before that.
            gevent.sleep(min(min(holds) - now, LOOK_SECONDS))
        return self._clock() - began

    def _ask(
        self, address: _Address, did: str, seconds: float, is_answer: Callable[[Response], bool]
    ) -> Response | str:
        """A fact, or in words why there is none."""
        deadline = self._clock() + seconds
        gevent.sleep(min(address.pace.reserve(self._clock()), seconds))
        if not address.places.enter(max(0.0, deadline - self._clock())):
            return "too many lookups at once"
        answer: Response | str = f"{address.base} asks for a pause, or is away"
        try:
            left = deadline - self._clock()
            if left > 0 and address.usable(self._clock()):
                answer = self._request(address, did, min(REQUEST_SECONDS, left), is_answer)
        finally:
            address.places.leave(answered=isinstance(answer, Response))
        return answer

    def _request(
        self, address: _Address, did: str, timeout: float, is_answer: Callable[[Response], bool]
    ) -> Response | str:
        address.probing = bool(address.closed_for)
        try:
            # The beginning: however long the page of something in between is, its status says that it is not a fact.
            answer = self._http.get(
                f"{address.base}/{did}", timeout=timeout, max_bytes=self._max_bytes + 1, beginning=True
            )
        except (HttpError, AddressRefused) as error:
            return self._failed(address, str(error))
        finally:
            address.probing = False
        if answer.status in FACTS and (answer.status != 200 or is_answer(answer)):
            self._succeeded(address)
            return answer
        if answer.status == 429 or "Retry-After" in answer.headers:
            address.held_until = max(address.held_until, self._clock() + hold_seconds(answer))
            address.places.begin_anew()
            # It is there and knows what it wants.
            if answer.status == 429:
                return f"{address.base} answers HTTP 429"
        return self._failed(address, f"{address.base} answers HTTP {answer.status}, which is not a fact")

    def _succeeded(self, address: _Address) -> None:
        address.failures = 0
        self._answered_at = self._clock()
        if address.closed_for:
            log.info("the PLC directory %s answers again", address.base)
            metrics.DIRECTORY_UP.labels(address.base).set(1)
        address.closed_for = 0.0

    def _failed(self, address: _Address, failure: str) -> str:
        address.failures += 1
        now = self._clock()
        # Of many requests that were under way together only the first closes it, or closes it for longer.
        if address.failures >= CLOSE_AFTER and now >= address.closed_until:
            if not address.closed_for:
                log.warning("the PLC directory %s does not answer: %s", address.base, failure)
                metrics.DIRECTORY_UP.labels(address.base).set(0)
            address.closed_for = min(2 * address.closed_for or FIRST_CLOSED_SECONDS, LONGEST_CLOSED_SECONDS)
            address.closed_until = now + address.closed_for
            address.places.begin_anew()
        return failure


def pause_before(attempt: int) -> float:
    """Seconds before a further attempt of a lookup, the first of which is 1: twice as many each time."""
    return FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)


def hold_seconds(answer: Response) -> float:
    """The seconds that the other side asks to be left alone for, within reason."""
    return answer.retry_after(LONGEST_HOLD_SECONDS, DEFAULT_HOLD_SECONDS)

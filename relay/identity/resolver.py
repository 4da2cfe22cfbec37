"""Who is this DID? Memory, then the table, then the network: one lookup per DID at a time, all bounds in one place.

The gate asks `cached`, which never blocks; the errands of parked accounts ask `resolve`, which does. Facts are kept
by `cache`, the network is asked by `lookup` in the workers of two lanes. Must not know of events or accounts.
"""

from __future__ import annotations

import time

from cachetools import TTLCache
from gevent.event import Event

from relay.identity.cache import IdentityCache
from relay.identity.fair_queue import Lane
from relay.identity.identity import Fact, Identity, Tombstone
from relay.identity.lookup import Lookup, Target, locate
from relay.kit import metrics
from relay.kit.errors import IdentityError
from relay.kit.generations import Recent
from relay.kit.limits import Allowance
from relay.net.http import GuardedHttp
from relay.store.database import Database

__all__ = ["Identity", "Resolver"]

# How long one call of `resolve` may block.
WAIT_SECONDS = 60.0

# How often a lookup asks anew because its DID changed meanwhile.
ASKED_AGAIN = 3

# A DID that does not exist, or whose document is none, is not asked for again for this long.
REFUSED_SECONDS = 120.0
# Nor is one that got no answer, so that its callers do not turn an outage of the directory into a storm.
UNANSWERED_SECONDS = 5.0
FAILURES_REMEMBERED = 50_000

PLC_WORKERS = 100
PLC_QUEUE = 20_000
# did:web is rare, and each of its hosts is a stranger: two workers each, and a short queue.
WEB_WORKERS = 64
WEB_WORKERS_PER_HOST = 2
WEB_QUEUE = 4096
WEB_QUEUE_PER_HOST = 64

# Refreshes past the cache: a DID whose key, host or handle changes gets several in a row (a migration is a handful of
# events), one that is merely sent with bad signatures soon only one a minute. Each host that causes them has a bound
# over all DIDs as well.
REFRESHES_PER_DID = 5
REFRESH_DID_SECONDS = 60.0
REFRESHES_PER_HOST = 500
REFRESH_HOST_SECONDS = 0.2
REFRESHED_REMEMBERED = 65_536


class _Flight:
    """A lookup under way, joined by all who ask for its DID."""

    __slots__ = ("began", "did", "landed", "outcome", "outdated", "target")

    def __init__(self, did: str, target: Target) -> None:
        self.did = did
        self.target = target
        self.landed = Event()
        self.outcome: Fact | IdentityError | None = None
        # The DID changed after the lookup began: the answer may be from before that.
        self.outdated = False
        self.began = time.monotonic()


class Resolver:
    """DIDs to identities. `plc_host` is the directory's base address; what is found is kept in `memory` as well."""

    def __init__(self, db: Database, http: GuardedHttp, *, plc_host: str, memory: Recent) -> None:
        self._plc_host = plc_host
        self._allow_insecure = http.allow_insecure
        self._lookup = Lookup(http)
        self._cache = IdentityCache(db, memory.identities)
        self._refused: TTLCache[str, IdentityError] = TTLCache(FAILURES_REMEMBERED, REFUSED_SECONDS)
        self._unanswered: TTLCache[str, IdentityError] = TTLCache(FAILURES_REMEMBERED, UNANSWERED_SECONDS)
        self._did_refreshes: Allowance[tuple[str, str | None]] = Allowance(
            REFRESHES_PER_DID, REFRESH_DID_SECONDS, REFRESHED_REMEMBERED
        )
        self._host_refreshes: Allowance[str] = Allowance(REFRESHES_PER_HOST, REFRESH_HOST_SECONDS, REFRESHED_REMEMBERED)
        self._flights: dict[str, _Flight] = {}
        self._plc_lane = Lane(
            "plc-lookups",
            self._fly,
            workers=PLC_WORKERS,
            workers_per_host=PLC_WORKERS,
            capacity=PLC_QUEUE,
            capacity_per_host=PLC_QUEUE,
        )
        self._web_lane = Lane(
            "web-lookups",
            self._fly,
            workers=WEB_WORKERS,
            workers_per_host=WEB_WORKERS_PER_HOST,
            capacity=WEB_QUEUE,
            capacity_per_host=WEB_QUEUE_PER_HOST,
        )
        metrics.QUEUE_CAPACITY.labels("identity-failures").set(FAILURES_REMEMBERED)
        metrics.QUEUE_CAPACITY.labels("identity-silences").set(FAILURES_REMEMBERED)
        metrics.QUEUE_SIZE.labels("identity-refreshes").set_function(
            lambda: len(self._did_refreshes) + len(self._host_refreshes)
        )
        metrics.QUEUE_CAPACITY.labels("identity-refreshes").set(2 * REFRESHED_REMEMBERED)

    def start(self) -> None:
        """Start the workers and the writing behind."""
        self._cache.start()
        self._plc_lane.start()
        self._web_lane.start()

    def stop(self) -> None:
        """Stop all lookups, their callers get `did-unavailable`; write what is known."""
        self._plc_lane.stop()
        self._web_lane.stop()
        for flight in list(self._flights.values()):
            self._land(flight, IdentityError("did-unavailable", "the relay is stopping"))
        self._cache.stop()

    def cached(self, did: str) -> Identity | None:
        """The identity in memory, None when it is not there. Never blocks.

        Raises IdentityError when it is known that there is none: `did-tombstone`, `did-not-found`, `did-document`.
        """
        fact = self._cache.get(did)
        if fact is not None:
            _READS_MEMORY.inc()
            return _identity(fact)
        refused: IdentityError | None = self._refused.get(did)
        return None if refused is None else _identity(refused)

    def resolve(self, did: str, *, refresh: bool = False, host: str | None = None) -> Identity:
        """The identity, looked up if need be; blocks for WAIT_SECONDS at most.

        `refresh` asks the network past memory and table, as often as the DID and the `host` that caused it are
        allowed to; beyond that, what is known is returned. Raises IdentityError.
        """
        refresh = refresh and self._may_refresh(did, host)
        if not refresh:
            known = self.cached(did)
            if known is not None:
                return known
        unanswered: IdentityError | None = self._unanswered.get(did)
        if unanswered is not None:
            return _identity(unanswered)
        give_up = time.monotonic() + WAIT_SECONDS
        flight = self._flights.get(did)
        if flight is None:
            flight = self._take_off(did, past_table=refresh)
        elif refresh:
            # What is under way may have been answered before the change that this is about.
            flight.outdated = True
        flight.landed.wait(max(0.0, give_up - time.monotonic()))
        if flight.outcome is None:
            raise IdentityError("did-unavailable", "no answer in time")
        return _identity(flight.outcome)

    def _may_refresh(self, did: str, host: str | None) -> bool:
        now = time.monotonic()
        if host is not None and not self._host_refreshes.take(host, now):
            metrics.IDENTITY_REFRESHES_LIMITED.labels("host").inc()
            return False
        # Per host: else any host could use up the refreshes of an account that is not its own.
        if not self._did_refreshes.take((did, host), now):
            metrics.IDENTITY_REFRESHES_LIMITED.labels("did").inc()
            return False
        return True

    def _take_off(self, did: str, *, past_table: bool) -> _Flight:
        """Begin a lookup: from the table in the caller's greenlet, then in a worker."""
        try:
            target = locate(did, self._plc_host, allow_insecure=self._allow_insecure)
        except IdentityError as error:
            self._keep(did, _untraced(error))
            raise
        flight = self._flights[did] = _Flight(did, target)
        try:
            fact = None if past_table else self._cache.load(did)
            if fact is not None and not flight.outdated:
                _READS_TABLE.inc()
                self._land(flight, fact)
                return flight
            _READS_NETWORK.inc()
            lane = self._plc_lane if flight.target.is_plc else self._web_lane
            if not lane.put(flight.target.host, flight, WAIT_SECONDS / 2):
                self._land(flight, IdentityError("did-unavailable", "too many lookups are waiting"))
        except BaseException as error:
            self._land(flight, IdentityError("did-unavailable", repr(error)))
            raise
        return flight

    def _fly(self, flight: _Flight) -> None:
        """Run by a lane's worker: ask the network, again if the DID changed meanwhile, and tell all who wait."""
        metrics.IDENTITY_LOOKUPS_IN_FLIGHT.inc()
        outcome: Fact | IdentityError = IdentityError("did-unavailable", "the lookup was stopped")
        try:
            for _ in range(ASKED_AGAIN + 1):
                flight.outdated = False
                outcome = self._ask(flight)
                if not flight.outdated:
                    break
            self._keep(flight.did, outcome)
        finally:
            metrics.IDENTITY_LOOKUPS_IN_FLIGHT.dec()
            metrics.IDENTITY_LOOKUP_SECONDS.observe(time.monotonic() - flight.began)
            metrics.IDENTITY_LOOKUPS.labels(_word(outcome)).inc()
            self._land(flight, outcome)

    def _ask(self, flight: _Flight) -> Fact | IdentityError:
        try:
            return self._lookup.fetch(flight.did, flight.target)
        except IdentityError as error:
            return _untraced(error)

    def _keep(self, did: str, outcome: Fact | IdentityError) -> None:
        if not isinstance(outcome, IdentityError):
            self._refused.pop(did, None)
            self._cache.put(outcome)
        elif outcome.reason == "did-unavailable":
            self._unanswered[did] = outcome
        else:
            # The network now says that there is none, whatever was known before.
            self._cache.forget(did)
            self._refused[did] = outcome
        # From the hub: a TTLCache forgets as its length is asked, and a scrape comes from another thread.
        metrics.QUEUE_SIZE.labels("identity-failures").set(len(self._refused))
        metrics.QUEUE_SIZE.labels("identity-silences").set(len(self._unanswered))

    def _land(self, flight: _Flight, outcome: Fact | IdentityError) -> None:
        if self._flights.get(flight.did) is flight:
            del self._flights[flight.did]
        flight.outcome = flight.outcome or outcome
        flight.landed.set()


_READS_MEMORY = metrics.IDENTITY_READS.labels("memory")
_READS_TABLE = metrics.IDENTITY_READS.labels("table")
_READS_NETWORK = metrics.IDENTITY_READS.labels("network")


def _identity(outcome: Fact | IdentityError) -> Identity:
    """The identity, or the IdentityError raised."""
    if isinstance(outcome, IdentityError):
        raise _untraced(outcome)
    if isinstance(outcome, Tombstone):
        raise IdentityError("did-tombstone", outcome.did)
    return outcome


def _untraced(error: IdentityError) -> IdentityError:
    """A copy: an exception that is kept keeps the frames of every raise, and all that is in them, with it."""
    return IdentityError(error.reason, error.detail)


def _word(outcome: Fact | IdentityError) -> str:
    if isinstance(outcome, IdentityError):
        return outcome.reason
    return "did-tombstone" if isinstance(outcome, Tombstone) else "found"

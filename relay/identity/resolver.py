"""Who is this DID? Memory, then the table, then the network: one lookup per DID at a time, all bounds in one place.

The gate asks what is `known` alone, which never blocks; held accounts ask `resolve`, which does. The network is asked
by `lookup`, in the workers of two queues that are fair between the hosts whose events are the reason. While it cannot
tell, what is stored stands, however old. Must not know of events or accounts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import gevent
from gevent.event import Event as Signal

from relay.identity.fair_queue import FairQueue
from relay.identity.identity import Fact, Identity, IdentityCache, Tombstone, identity_of, untraced
from relay.identity.lookup import NOT_THERE, Lookup, Target, locate
from relay.kit import metrics
from relay.kit.errors import IdentityError, StoreError
from relay.kit.generations import RecordCache
from relay.kit.limits import Allowance, Paces
from relay.net.http import GuardedHttp
from relay.store.database import Database

# How long one call of `resolve` may block.
WAIT_SECONDS = 60.0

# How often a lookup asks anew because its DID changed meanwhile.
ASKED_AGAIN = 3

# How long a stored identity is good for once the network could not tell, and once it gave an answer that is doubted.
AWAY_SECONDS = 300.0
DOUBT_SECONDS = 60.0

PLC_WORKERS = 100
PLC_WORKERS_PER_HOST = 50
PLC_QUEUE = 20_000
PLC_QUEUE_PER_HOST = 2_000
# did:web is rare, and each of its servers is a stranger: a host whose accounts name silent ones waits for them alone.
WEB_WORKERS = 128
WEB_WORKERS_PER_HOST = 8
WEB_QUEUE = 4096
WEB_QUEUE_PER_HOST = 256
# Each takes a millisecond of CPU, and names where nobody listens are looked up again and again.
WEB_PER_SECOND_PER_HOST = 10
WEB_BURST_PER_HOST = 50
WEB_HOSTS_REMEMBERED = 16_384
# A lookup that waits its turn may be wanted by others as well: it takes whichever turn comes first, of this many hosts.
HOSTS_PER_LOOKUP = 8

# Refreshes past the cache: a DID whose key, host or handle changes gets several in a row (a migration is a handful of
# events), one that is merely sent with bad signatures soon only one a minute. Each host that causes them has a bound
# over all DIDs as well.
REFRESHES_PER_DID = 5
REFRESH_DID_SECONDS = 60.0
REFRESHES_PER_HOST = 500
REFRESH_HOST_SECONDS = 0.2
REFRESHED_REMEMBERED = 65_536


class _Flight:
    """A lookup under way, joined by all who ask for its DID. `host` is whose event asked first."""

    __slots__ = (
        "answers",
        "began",
        "did",
        "first_answer_at",
        "flying",
        "hosts",
        "landed",
        "outcome",
        "outdated",
        "queued",
        "rest",
        "target",
    )

    def __init__(self, did: str, target: Target, host: str) -> None:
        self.did = did
        self.target = target
        self.hosts = [host]
        self.landed = Signal()
        self.outcome: Fact | IdentityError | None = None
        # Not before the table has been read: what that says must not come after what the network does.
        self.queued = False
        self.flying = False
        # The DID changed after the lookup began: the answer may be from before that.
        self.outdated = False
        self.began = time.monotonic()
        # How often the DID was not there, since when, and what will ask for it again.
        self.answers = 0
        self.first_answer_at = 0.0
        self.rest: gevent.Greenlet[..., None] | None = None


class Resolver:
    """DIDs to identities. `plc_hosts` are the directory's base addresses; `memory` bounds what is kept there.

    `known` is what is kept in memory and in SQL.
    """

    def __init__(self, db: Database, http: GuardedHttp, *, plc_hosts: Sequence[str], memory: RecordCache) -> None:
        self._allow_insecure = http.allow_insecure
        self._lookup = Lookup(http, plc_hosts)
        self.known = IdentityCache(db, memory.identities)
        self._negatives = self.known.negatives
        self._did_refreshes: Allowance[tuple[str, str]] = Allowance(
            REFRESHES_PER_DID, REFRESH_DID_SECONDS, REFRESHED_REMEMBERED
        )
        self._host_refreshes: Allowance[str] = Allowance(REFRESHES_PER_HOST, REFRESH_HOST_SECONDS, REFRESHED_REMEMBERED)
        self._flights: dict[str, _Flight] = {}
        self._plc_lookups = FairQueue(
            "plc-lookups",
            self._fly,
            workers=PLC_WORKERS,
            workers_per_host=PLC_WORKERS_PER_HOST,
            capacity=PLC_QUEUE,
            capacity_per_host=PLC_QUEUE_PER_HOST,
        )
        paces: Paces[str] = Paces(WEB_PER_SECOND_PER_HOST, WEB_BURST_PER_HOST, WEB_HOSTS_REMEMBERED)
        self._web_lookups = FairQueue(
            "web-lookups",
            self._fly,
            workers=WEB_WORKERS,
            workers_per_host=WEB_WORKERS_PER_HOST,
            capacity=WEB_QUEUE,
            capacity_per_host=WEB_QUEUE_PER_HOST,
            paces=paces,
        )
        metrics.show_bound("web-lookup-paces", paces.__len__, WEB_HOSTS_REMEMBERED)
        metrics.show_bound(
            "identity-refreshes",
            lambda: len(self._did_refreshes) + len(self._host_refreshes),
            2 * REFRESHED_REMEMBERED,
        )

    def start(self) -> None:
        """Start the workers and the writing behind."""
        self.known.start()
        self._plc_lookups.start()
        self._web_lookups.start()

    def stop(self) -> None:
        """Stop all lookups, their callers get `did-unavailable`; write what is known."""
        self._plc_lookups.stop()
        self._web_lookups.stop()
        for flight in list(self._flights.values()):
            if flight.rest is not None:
                flight.rest.kill(block=False)
            self._land(flight, IdentityError("did-unavailable", "the relay is stopping"))
        self.known.stop()

    @property
    def directory_silent(self) -> bool:
        """Whether the PLC directory has told nothing about any DID lately."""
        return self._lookup.directory_silent

    def resolve(self, did: str, host: str = "") -> Identity:
        """The identity, looked up if need be; blocks for WAIT_SECONDS at most. `host` is whose event is the reason.

        Raises IdentityError: `did-unavailable` when the network cannot tell now and the DID was never known.
        """
        return self._resolve(did, host, refresh=False)

    def refresh(self, did: str, host: str, *, always: bool = False) -> bool:
        """Look the DID up past memory and table, so that memory has the newest answer; blocks as `resolve` does.

        False when memory has what it had: the DID and the `host` that caused it have no refresh left, or the answer is
        not believed yet. With `always` none is needed, and whoever asks has bounds of its own. Raises IdentityError
        `did-unavailable`.
        """
        allowed = always or self._may_refresh(did, host)
        try:
            self._resolve(did, host, refresh=allowed, granted=not always)
        except IdentityError as error:
            if error.reason == "did-unavailable":
                raise
        return allowed and not self._negatives.in_doubt(did)

    def _resolve(self, did: str, host: str, *, refresh: bool, granted: bool = True) -> Identity:
        """As `resolve`; `granted`: the refresh is one of those that the DID and the host have."""
        if not refresh:
            known = self.known.cached(did)
            if known is not None:
                return known
        outcome = self._negatives.unanswered(did) or self._fly_or_join(did, host, refresh=refresh)
        if isinstance(outcome, IdentityError) and outcome.reason == "did-unavailable":
            if refresh:
                # Or an outage would use up the refreshes, and what waits for one be judged by what is known.
                if granted:
                    self._give_back_refresh(did, host)
            elif (stored := self._stored(did)) is not None:
                self.known.extend(stored, AWAY_SECONDS)
                return identity_of(stored)
        return identity_of(outcome)

    def ask(self, did: str) -> Identity:
        """What the network says now, past all that is known, which it leaves alone. Blocks for a lookup.

        For whoever has to tell what is the matter with a DID, seldom. Raises IdentityError.
        """
        return identity_of(self._lookup.fetch(did, locate(did, allow_insecure=self._allow_insecure)))

    def _fly_or_join(self, did: str, host: str, *, refresh: bool) -> Fact | IdentityError:
        """The outcome of a lookup, the one that is under way or a new one."""
        give_up = time.monotonic() + WAIT_SECONDS
        flight = self._flights.get(did)
        if flight is None:
            flight = self._take_off(did, host, past_table=refresh)
        else:
            # What is under way may have been answered before the change that this is about.
            flight.outdated = flight.outdated or refresh
            self._hurry(flight, host)
        flight.landed.wait(max(0.0, give_up - time.monotonic()))
        return flight.outcome or IdentityError("did-unavailable", "no answer in time")

    def _may_refresh(self, did: str, host: str) -> bool:
        now = time.monotonic()
        # Per host, or any host could use up the refreshes of an account that is not its own. And first: what one
        # account is not granted must not use up those of its host's others.
        if not self._did_refreshes.has((did, host), now):
            metrics.IDENTITY_REFRESHES_LIMITED.labels("did").inc()
            return False
        if not self._host_refreshes.take(host, now):
            metrics.IDENTITY_REFRESHES_LIMITED.labels("host").inc()
            return False
        return self._did_refreshes.take((did, host), now)

    def _give_back_refresh(self, did: str, host: str) -> None:
        self._did_refreshes.give_back((did, host))
        self._host_refreshes.give_back(host)

    def _take_off(self, did: str, host: str, *, past_table: bool) -> _Flight:
        """Begin a lookup: from the table in the caller's greenlet, then in a worker."""
        try:
            target = locate(did, allow_insecure=self._allow_insecure)
        except IdentityError as error:
            self._negatives.note(did, untraced(error))
            raise
        flight = self._flights[did] = _Flight(did, target, host)
        try:
            fact = None if past_table else self.known.load(did)
            if fact is not None and not flight.outdated:
                _READS_TABLE.inc()
                self._land(flight, fact)
                return flight
            _READS_NETWORK.inc()
            self._queue(flight)
        except BaseException as error:
            self._land(flight, IdentityError("did-unavailable", repr(error)))
            raise
        return flight

    def _queue_of(self, flight: _Flight) -> FairQueue[_Flight]:
        return self._plc_lookups if flight.target.is_plc else self._web_lookups

    def _queue(self, flight: _Flight) -> None:
        """Wait for a worker, in the lines of all hosts that have asked. Given up when that of the first has no room."""
        queue, (first, *others) = self._queue_of(flight), flight.hosts
        flight.queued = True
        for host in others:
            queue.put(host, flight, 0)
        if not queue.put(first, flight, WAIT_SECONDS / 2):
            self._land(flight, IdentityError("did-unavailable", "too many lookups are waiting"))

    def _hurry(self, flight: _Flight, host: str) -> None:
        """Have it wait in the line of `host` as well: the first host's may be long."""
        if flight.flying or host in flight.hosts or len(flight.hosts) == HOSTS_PER_LOOKUP:
            return
        flight.hosts.append(host)
        if flight.queued and flight.rest is None:
            self._queue_of(flight).put(host, flight, 0)

    def _fly(self, flight: _Flight) -> None:
        """Run by a worker: ask the network, again if the DID changed meanwhile, and tell all who wait."""
        if flight.flying or flight.rest is not None or flight.landed.is_set():
            # Its turn came in the line of another host before, or will come again.
            return
        flight.flying = True
        metrics.IDENTITY_LOOKUPS_IN_FLIGHT.inc()
        outcome: Fact | IdentityError = IdentityError("did-unavailable", "the lookup was stopped")
        resting = False
        try:
            for _ in range(ASKED_AGAIN + 1):
                flight.outdated = False
                outcome = self._ask(flight)
                if not flight.outdated:
                    break
            resting = self._rest(flight, outcome)
            if not resting:
                outcome = self._keep(flight.did, outcome)
        finally:
            flight.flying = False
            metrics.IDENTITY_LOOKUPS_IN_FLIGHT.dec()
            if not resting:
                metrics.IDENTITY_LOOKUP_SECONDS.observe(time.monotonic() - flight.began)
                metrics.IDENTITY_LOOKUPS.labels(_word(outcome)).inc()
                self._land(flight, outcome)

    def _rest(self, flight: _Flight, outcome: Fact | IdentityError) -> bool:
        """Ask again later when the DID may not be there yet; False when there is no reason to."""
        if not isinstance(outcome, IdentityError) or outcome.detail != NOT_THERE:
            return False
        now = time.monotonic()
        flight.first_answer_at = flight.first_answer_at or now
        flight.answers += 1
        again_at = self._negatives.ask_again_at(flight.answers, flight.hosts[0])
        if again_at is None or self._stored(flight.did) is not None:
            return False
        flight.rest = gevent.spawn_later(max(0.0, flight.first_answer_at + again_at - now), self._wake, flight)
        return True

    def _wake(self, flight: _Flight) -> None:
        flight.rest = None
        self._queue(flight)

    def _ask(self, flight: _Flight) -> Fact | IdentityError:
        try:
            return self._lookup.fetch(flight.did, flight.target)
        except IdentityError as error:
            return untraced(error)

    def _keep(self, did: str, outcome: Fact | IdentityError) -> Fact | IdentityError:
        """Remember what the lookup ended with; what the callers are told."""
        if not isinstance(outcome, IdentityError):
            self._negatives.found(did)
            self.known.put(outcome)
            return outcome
        if outcome.reason != "did-unavailable":
            try:
                stored = self.known.stored(did)
            except StoreError:
                outcome = IdentityError("did-unavailable", "without the database nobody can tell whether it was known")
            else:
                if isinstance(stored, Identity) and self._negatives.doubts(did):
                    self.known.extend(stored, DOUBT_SECONDS)
                    return stored
                self.known.forget(did)
        self._negatives.note(did, outcome)
        return outcome

    def _stored(self, did: str) -> Fact | None:
        """What was last known, as far as that can be told now."""
        try:
            return self.known.stored(did)
        except StoreError:
            return None

    def _land(self, flight: _Flight, outcome: Fact | IdentityError) -> None:
        if self._flights.get(flight.did) is flight:
            del self._flights[flight.did]
        flight.outcome = flight.outcome or outcome
        flight.landed.set()


_READS_TABLE = metrics.IDENTITY_READS.labels("table")
_READS_NETWORK = metrics.IDENTITY_READS.labels("network")


def _word(outcome: Fact | IdentityError) -> str:
    if isinstance(outcome, IdentityError):
        return outcome.reason
    return "did-tombstone" if isinstance(outcome, Tombstone) else "found"

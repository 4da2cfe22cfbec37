"""One upstream host: who it is, what it may do, what it is doing, and what was dropped of it.

`registry` makes one Host per known host and keeps it for good, connected or not. The subscriber notes here what it
sees, `ingest` takes its budget and its account limit, admins change its limits. Times are Unix seconds unless a name
says otherwise. Must not know of sockets or of how any of this is stored.
"""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime

from relay.atproto.hostname import Endpoint
from relay.hosts.budgets import Budget
from relay.hosts.lifecycle import STEADY_SECONDS, Cause, Status, status_of
from relay.hosts.rates import TRUSTED_RATES, Limiter, Rates, rates_for
from relay.hosts.shares import Share, Shares
from relay.kit import metrics
from relay.store.hosts import HostRow
from relay.stream.cursors import HostCursor

DROP_HOUR_SECONDS = 3600
DROP_HOURS = 24

REPLACEMENT = "\ufffd"

SEEN_SECONDS = 600.0
THROTTLED_SECONDS = 60.0
CLEARED_SECONDS = 600.0

log = logging.getLogger(__name__)


class Host:
    """One known host. `row.status` is the status in SQL, `status` the one in force.

    `account_count` is kept here and, from the same events, in SQL. Everything in `row` but the status and the account
    count is up to date; `changed` tells the registry to store it.
    """

    __slots__ = (
        "_rates",
        "_rates_made_of",
        "account_count",
        "ask_from",
        "budget",
        "changed",
        "connected_at",
        "cursor",
        "drops",
        "endpoint",
        "events_seen",
        "go_live",
        "hostname",
        "id",
        "last_event_time",
        "last_throttled_at",
        "left_alone_until",
        "limiter",
        "live_restart",
        "restarted_at",
        "row",
        "seen_at",
        "share",
        "skip",
        "status",
        "stuck_at",
        "unreadable",
    )

    def __init__(self, row: HostRow, cursor: HostCursor, shares: Shares) -> None:
        self.id = row.id
        self.hostname = row.hostname
        # The host as a DID document's service endpoint names it.
        self.endpoint = Endpoint(row.hostname, not row.no_ssl)
        self.row = row
        self.status = status_of(row.status)
        self.account_count = row.account_count
        self.cursor = cursor
        self.budget = Budget()
        self.share = Share(shares)
        self.limiter = Limiter()
        # The limits, and the part of the row that they follow from.
        self._rates = TRUSTED_RATES
        self._rates_made_of: tuple[int | None, ...] | None = None
        self.drops = Drops()
        self.changed = False
        self.connected_at: float | None = None
        # When a connection to it was last seen to be open in this run, by `kit.clock.boot_seconds`.
        self.seen_at: float | None = None
        self.live_restart = False
        # While there is no position: the cursor that an operator set, and whether the next connection starts live in
        # spite of that.
        self.ask_from: int | None = None
        self.go_live = False
        # Not dialled before then (seconds, monotonic), as the host asked.
        self.left_alone_until = 0.0
        # When the host's sequence numbers started again.
        self.restarted_at: float | None = None
        self.events_seen = 0
        self.last_event_time: str | None = None
        self.last_throttled_at: float | None = None
        # Unreadable messages without a seq since the last event; how far the cursor of the next connection is put ahead
        # for them; and the cursor at which a message ended the connection before.
        self.unreadable = 0
        self.skip = 0
        self.stuck_at: int | None = None

    @property
    def connected(self) -> bool:
        """True while a connection to the host is open."""
        return self.connected_at is not None

    @property
    def account_limit(self) -> int:
        """How many accounts the host may have."""
        return self.row.account_limit

    @property
    def rates(self) -> Rates:
        """The limits in force now: read for each message, so that an admin's change applies to a live connection."""
        row = self.row
        made_of = row.account_limit, row.trusted, row.per_second, row.per_hour, row.per_day
        if made_of != self._rates_made_of:
            formula = rates_for(row.account_limit, row.trusted)
            self._rates = Rates(
                row.per_second or formula.second, row.per_hour or formula.hour, row.per_day or formula.day
            )
            self._rates_made_of = made_of
        return self._rates

    def note_event(self, stated_time: str, now: float) -> None:
        """An event came; the time that it states is kept unread until somebody asks."""
        self.events_seen += 1
        self.unreadable = self.skip = 0
        self.ask_from = None
        self.row.last_event_at = now
        self.last_event_time = stated_time

    def note_unreadable(self) -> None:
        """A message came that does not even tell its seq."""
        self.unreadable += 1

    def step_over(self, alone: bool) -> None:
        """A connection ended because of unreadable messages: the next one asks for what comes after them.

        With `alone` a single message ended it. That may have been chance, so at first it is asked for again; after
        that the cursor goes ahead twice as far each time, because numbers may have gaps.
        """
        if not alone:
            self.skip += self.unreadable
        elif self.stuck_at == self.cursor.position:
            self.skip = 2 * self.skip or 1
            self.cursor.note_gap("unreadable")
        self.stuck_at = self.cursor.position
        self.unreadable = 0

    def note_restart(self, now: float) -> None:
        """The host's sequence numbers started again."""
        self.restarted_at = now
        self.cursor.note_gap("numbers-restarted")
        metrics.HOST_SEQ_RESETS.inc()
        log.debug("host %s: its sequence numbers started again; its events pass if their revs are new", self.hostname)

    def note_throttled(self, tier: str, now: float) -> None:
        """The host waits. The limit per second is ordinary; only the slower limits say something about a host."""
        if tier != "second":
            self.last_throttled_at = now

    def note_error(self, words: str, now: float) -> None:
        """An attempt failed or a connection ended, and why. Of what the host says there, only what can be printed is
        kept: PostgreSQL has no NUL in text, and the states of all hosts are stored together.
        """
        self.row.last_error = "".join(one if one.isprintable() else REPLACEMENT for one in words)
        self.row.last_error_at = now
        self.changed = True

    def due_change(self, now: float, idle_after: float, believed_since: float = 0.0) -> Cause | None:
        """The change of status that is due at `now`, if any. With an `idle_after` of 0 no host counts as quiet; nor is
        it known for how long one was before `believed_since`, when the clock jumped ahead.
        """
        if self.connected_at is None:
            return None
        self._refresh(self.connected_at, now)
        if idle_after and now - max(self.connected_at, self.row.last_event_at or 0.0, believed_since) > idle_after:
            return Cause.QUIET
        throttled = self.last_throttled_at
        # The clock may have been set back since.
        if self.status is Status.ACTIVE and throttled is not None and abs(now - throttled) < THROTTLED_SECONDS:
            return Cause.LIMIT_REACHED
        if self.status is Status.THROTTLED and (throttled is None or abs(now - throttled) > CLEARED_SECONDS):
            return Cause.LIMIT_CLEARED
        return None

    def _refresh(self, connected_at: float, now: float) -> None:
        """Have stored, now and then, that a connected host is in good health."""
        if self.row.failures and now - connected_at > STEADY_SECONDS:
            self.row.failures = 0
            self.changed = True
        if now - (self.row.last_connected_at or 0.0) > SEEN_SECONDS:
            # After a crash a host that was connected all the time must not look long unseen.
            self.row.last_connected_at = now
            self.changed = True


def seconds_of(stated_time: str | None) -> float | None:
    """The time that an event states, in Unix seconds; without a time zone it is UTC. None when it cannot be read."""
    try:
        stated = datetime.fromisoformat(stated_time or "")
    except ValueError:
        return None
    return (stated if stated.tzinfo else stated.replace(tzinfo=UTC)).timestamp()


class Drops:
    """How many events of a host were dropped in the last day, by reason: counts per hour, 24 of them at most.

    Reasons come from fixed lists. An hour older than a day is forgotten at the next look.
    """

    __slots__ = ("_hours",)

    def __init__(self) -> None:
        self._hours: dict[int, Counter[str]] = {}

    def note(self, reason: str, now: float) -> None:
        """One event was dropped at `now`."""
        hour = int(now) // DROP_HOUR_SECONDS
        if hour not in self._hours:
            self._forget(hour)
            self._hours[hour] = Counter()
        self._hours[hour][reason] += 1

    def last_day(self, now: float) -> dict[str, int]:
        """Drops by reason in the 24 hours before `now`, those that happened most often first."""
        self._forget(int(now) // DROP_HOUR_SECONDS)
        total: Counter[str] = Counter()
        for reasons in self._hours.values():
            total.update(reasons)
        return dict(total.most_common())

    def total(self, now: float) -> int:
        """All drops in those 24 hours."""
        oldest = int(now) // DROP_HOUR_SECONDS - DROP_HOURS
        return sum(reasons.total() for hour, reasons in self._hours.items() if hour > oldest)

    def _forget(self, hour: int) -> None:
        for old in [when for when in self._hours if when <= hour - DROP_HOURS]:
            del self._hours[old]

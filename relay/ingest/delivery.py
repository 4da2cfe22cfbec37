"""One event on its way from a host to the log, and the ways in which its judgement can end.

Made by the lanes, judged and filled in by the gate, taken by the sequencer as it is. One event in 32 is timed through
its stages: enough for a histogram, and too few to cost anything. Must not know the rules.
"""

from __future__ import annotations

import time
from enum import Enum

from gevent.event import Event as Signal

from relay.atproto.frames import Event
from relay.hosts.host import Host
from relay.ingest.verification import VERIFIED
from relay.ingest.worker_supervisor import Check
from relay.kit import metrics
from relay.kit.errors import RelayError
from relay.stream.sequencer import Entry

EVENTS_PER_SAMPLE = 32
# What the verification of an event may cost, in seconds; and each byte of its blocks.
VERIFICATION_SECONDS = 60e-6
BYTE_SECONDS = 30e-9


class Wait(Enum):
    """Something an account's events have to wait for."""

    IDENTITY = "identity"  # the DID document is not in memory
    ANSWER = "answer"  # nobody tells what is in it, for now
    REFRESH = "refresh"  # the DID document disagrees with the host or the signature: it may be outdated
    FOREIGN = "foreign"  # as REFRESH, for an event of a host that is not the account's, at that host's cost
    STATUS = "status"  # the account is stored as inactive: its PDS may say otherwise
    COOL_DOWN = "cool-down"  # the account sent too much that was invalid
    LONG = "long"  # its verification takes so long that it is done in pieces, beside the lane


class Stopwatch:
    """Times the stages of one event: `queued` until it is looked at, `parked` for each wait, `judged` until it is
    judged and verified, `logged` until it is durable and published.
    """

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = time.monotonic()

    def end(self, stage: str) -> None:
        """`stage` has ended, and the next one begins."""
        now = time.monotonic()
        _STAGES[stage].observe(now - self._since)
        self._since = now


class Sampler:
    """Gives a stopwatch to one event in EVENTS_PER_SAMPLE."""

    def __init__(self) -> None:
        self._events = 0

    def next(self) -> Stopwatch | None:
        """The stopwatch of the next event, if it gets one."""
        self._events += 1
        return None if self._events % EVENTS_PER_SAMPLE else Stopwatch()


class Delivery(Entry):
    """An event from `host`, `size` bytes long, and the entry that the gate makes of it.

    `done` holds what it has waited for, so that it waits once for each; `watch` times it, if it is one in 32; `check`
    is its verification by a worker process, or in pieces. `took` is what its verification took so far, in seconds, and
    `price` what its host was charged for it: at first, what it will probably cost. `refresh_denied`: its DID document
    was to be read again, and there was no refresh left for that.
    """

    __slots__ = ("check", "done", "event", "host", "price", "refresh_denied", "size", "took", "watch")

    def __init__(self, host: Host, event: Event, watch: Stopwatch | None = None) -> None:
        super().__init__(event.kind, host.id, event.seq)
        self.host = host
        self.event = event
        self.size = len(event.frame)
        self.watch = watch
        self.done: frozenset[Wait] = frozenset()
        self.check: Check | None = None
        self.took = 0.0
        self.refresh_denied = False
        verified = isinstance(event, VERIFIED)
        self.price = VERIFICATION_SECONDS + BYTE_SECONDS * self.size if verified else 0.0

    @property
    def refreshed(self) -> bool:
        """Whether the DID document was to be read again for it, and that is over."""
        return Wait.REFRESH in self.done or Wait.FOREIGN in self.done

    def end_work(self) -> None:
        """It is judged, or waits for something other than the CPU: charge its host for what it took."""
        self.host.share.end(self.took - self.price)
        self.price = self.took

    def refuse(self, reason: str) -> None:
        """The event is dropped for `reason`."""

    def logged(self) -> None:
        """The event is durable and published."""
        if self.watch is not None:
            self.watch.end("logged")
        self.finish()

    def finish(self) -> None:
        """The event is durable or rejected: its host's cursor may move past it, and its room is free."""
        self.host.cursor.finish(self.event.seq)
        self.host.budget.release(self.size)


class Fetched(Delivery):
    """What the relay asked an account's host for: an event outside the host's stream, without a seq of the host's.

    `settled` is set once it is in the log or dropped; if it was dropped, `refusal` is the reason. A `silent` one is not
    logged, unless a commit of its account was: the relay learns from it, and consumers do not.
    """

    __slots__ = ("refusal", "settled", "silent")

    def __init__(self, host: Host, event: Event, *, silent: bool = False) -> None:
        super().__init__(host, event)
        self.upstream_seq = 0
        self.silent = silent
        self.refusal: str | None = None
        self.settled = Signal()

    def refuse(self, reason: str) -> None:
        """Tell whoever fetched it."""
        self.refusal = reason

    def finish(self) -> None:
        """It is durable or dropped. No cursor moves for it."""
        self.host.budget.release(self.size)
        self.settled.set()


class Rejected(RelayError):
    """The event is dropped, for a counted reason."""


class Again(Exception):
    """The event is judged again, as a whole: once its `check` has an outcome, or since others had their turns."""


class Hold(Exception):
    """The event, and every later one of its account, waits for something and is judged again."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait.value)
        self.wait = wait


_STAGES = {stage: metrics.EVENT_STAGE_SECONDS.labels(stage) for stage in ("queued", "parked", "judged", "logged")}

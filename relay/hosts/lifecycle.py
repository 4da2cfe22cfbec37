"""The rules of a host's life: its states, every transition between them as one table, and when it is tried again.

The registry asks before each change of a host's status, the dialler after each failed or ended connection;
`docs/hosts.md` shows the same table and a test compares the two. The names of the states are those of
`com.atproto.sync.defs#hostStatus`. Pure: randomness is passed in. Must not know of connections or SQL.
"""

from __future__ import annotations

from enum import StrEnum

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 300.0
ATTEMPTS_BEFORE_OFFLINE = 15
# While the relay is cut off, no more failures than these count against a host, so that it waits for half a minute at
# most: all are to come back soon after the network.
FAILURES_CUT_OFF = 6
PROBE_SECONDS = 4 * 3600.0
STEADY_SECONDS = 60.0
# No more failures than these count against a host whose connections are short but bring events: it waits for some
# seconds and is never given up.
FAILURES_WITH_EVENTS = 4


class Status(StrEnum):
    """What the host table says of a host."""

    ACTIVE = "active"
    IDLE = "idle"
    OFFLINE = "offline"
    THROTTLED = "throttled"
    BANNED = "banned"


class Cause(StrEnum):
    """Why a host's status may change; `docs/hosts.md` says what each one stands for."""

    CONNECTED = "connected"
    CRAWL_REQUESTED = "crawl-requested"
    ATTEMPTS_EXHAUSTED = "attempts-exhausted"
    QUIET = "quiet"
    FUTURE_CURSOR = "future-cursor"
    DISCONNECTED = "disconnected"
    LIMIT_REACHED = "limit-reached"
    LIMIT_CLEARED = "limit-cleared"
    LOOP = "loop"
    BLOCKED = "blocked"
    UNBLOCKED = "unblocked"


_A, _I, _O, _T, _B = Status.ACTIVE, Status.IDLE, Status.OFFLINE, Status.THROTTLED, Status.BANNED

# A pair that is not here cannot happen or must not: above all, only an unblock leads out of `banned`.
TRANSITIONS: dict[Cause, dict[Status, Status]] = {
    Cause.CONNECTED: {_A: _A, _I: _A, _O: _A, _T: _T},
    Cause.CRAWL_REQUESTED: {_A: _A, _I: _A, _O: _A, _T: _T},
    Cause.ATTEMPTS_EXHAUSTED: {_A: _O, _I: _O, _O: _O, _T: _O},
    Cause.QUIET: {_A: _I, _T: _I},
    Cause.FUTURE_CURSOR: {_A: _I, _T: _I},
    Cause.DISCONNECTED: {_A: _A, _I: _I, _O: _O, _T: _T},
    Cause.LIMIT_REACHED: {_A: _T, _T: _T},
    Cause.LIMIT_CLEARED: {_T: _A},
    Cause.LOOP: {_A: _B, _I: _B, _O: _B, _T: _B},
    Cause.BLOCKED: {_A: _B, _I: _B, _O: _B, _T: _B, _B: _B},
    Cause.UNBLOCKED: {_A: _A, _I: _I, _O: _O, _T: _T, _B: _A},
}


def status_of(stored: str) -> Status:
    """The status that the table has. A word of another relay's is `offline`: such a host is looked at in some hours."""
    return Status(stored) if stored in list(Status) else Status.OFFLINE


def after(status: Status, cause: Cause) -> Status | None:
    """The status that follows from `cause`, or None when the cause means nothing in this state."""
    return TRANSITIONS[cause].get(status)


def retry_delay(failures: int, chance: float) -> float:
    """Seconds to wait after `failures` in a row: doubling from one second to five minutes.

    `chance` in [0, 1) spreads the delay over half to one and a half times that, since hosts that failed together
    must not come back together.
    """
    return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(max(failures - 1, 0), 30)) * (0.5 + chance)


def probe_delay(chance: float) -> float:
    """Seconds until an idle or offline host is looked at again: some hours."""
    return PROBE_SECONDS * (0.5 + chance)


def failures_after(failures: int, lasted: float, *, brought_events: bool = False) -> int:
    """The failures in a row once a connection ended that stood for `lasted` seconds (0 when it never opened).

    A connection that soon ends counts as a failure: a host that accepts and drops would otherwise be dialled in a
    tight loop.
    """
    if lasted > STEADY_SECONDS:
        return 1
    return min(failures + 1, FAILURES_WITH_EVENTS) if brought_events else failures + 1

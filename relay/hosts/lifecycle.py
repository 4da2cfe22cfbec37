"""The states of a host and every transition between them, as one table.

The fleet asks it before each change of a host's status; `docs/hosts.md` shows the same table and a test compares the
two. The names are those of `com.atproto.sync.defs#hostStatus`. Pure data: must not know of connections or SQL.
"""

from __future__ import annotations

from enum import StrEnum


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
    Cause.DISCONNECTED: {_A: _I, _I: _I, _O: _O, _T: _I},
    Cause.LIMIT_REACHED: {_A: _T, _T: _T},
    Cause.LIMIT_CLEARED: {_T: _A},
    Cause.LOOP: {_A: _B, _I: _B, _O: _B, _T: _B},
    Cause.BLOCKED: {_A: _B, _I: _B, _O: _B, _T: _B, _B: _B},
    Cause.UNBLOCKED: {_A: _A, _I: _I, _O: _O, _T: _T, _B: _A},
}


def after(status: Status, cause: Cause) -> Status | None:
    """The status that follows from `cause`, or None when the cause means nothing in this state."""
    return TRANSITIONS[cause].get(status)

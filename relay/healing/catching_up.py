"""How far a host's stream has come: what it may still bring by itself need not be fetched.

Asked by `hosts` before a host is compared, and by `accounts` before they tell anything: with the newest commit as
`#sync`, or with the news that an account is gone, all commits before that would be dropped that are still on their way.
Must not know what was missed.
"""

from __future__ import annotations

from relay.atproto.syntax import tid_micros
from relay.hosts.host import Host, seconds_of

# A stream is waited for until it is this close to the present, or brought nothing for so long; and so long in all.
CLOSE_SECONDS = 60.0
QUIET_SECONDS = 3.0
CATCH_UP_SECONDS = 600.0
# An event that is younger may be under way in a stream that is not behind, or its host's clock be off by that much.
UNDER_WAY_SECONDS = 5.0
# However often the host is connected anew, no commit is waited for that is older.
LONGEST_SECONDS = 86_400.0


def is_close(host: Host, now: float) -> bool:
    """Whether the host's stream has come near to the present, by its pauses or by what its events say of their time."""
    if _is_quiet(host, now):
        return True
    stated = seconds_of(host.last_event_time)
    return stated is not None and now - stated < CLOSE_SECONDS


def may_bring(host: Host, rev: str, now: float) -> bool:
    """Whether the host's stream may still bring the commit `rev`, made by the same clock as its events."""
    return _is_before(host, tid_micros(rev) / 1e6, now)


def is_behind(host: Host, now: float) -> bool:
    """Whether the host's stream may still bring what an account sent before it got the status that it has now."""
    return _is_before(host, now - UNDER_WAY_SECONDS, now)


def _is_before(host: Host, made: float, now: float) -> bool:
    connected_at = host.connected_at or now
    if _is_quiet(host, now) or now - connected_at > CATCH_UP_SECONDS or now - made > LONGEST_SECONDS:
        return False
    stated = seconds_of(host.last_event_time)
    return stated is None or stated < made


def _is_quiet(host: Host, now: float) -> bool:
    connected_at, seen_at = host.connected_at or now, host.row.last_event_at or 0.0
    return now - max(connected_at, seen_at) > QUIET_SECONDS

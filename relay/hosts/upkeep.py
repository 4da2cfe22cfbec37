"""What changes about a host with nothing happening but time: quiet, throttled, steady again.

The fleet looks at every host every few seconds. Pure but for the host's own record: the clock is passed in.
"""

from __future__ import annotations

from relay.hosts.backoff import STEADY_SECONDS
from relay.hosts.lifecycle import Cause, Status
from relay.hosts.state import Upstream

SEEN_SECONDS = 600.0
THROTTLED_SECONDS = 60.0
CLEARED_SECONDS = 600.0


def due_change(upstream: Upstream, now: float, idle_after: float) -> Cause | None:
    """What the time `now` makes of a host. Times are Unix seconds; an `idle_after` of 0 is never."""
    if upstream.connected_at is None:
        return None
    _refresh(upstream, upstream.connected_at, now)
    if idle_after and now - max(upstream.connected_at, upstream.row.last_event_at or 0.0) > idle_after:
        return Cause.QUIET
    throttled = upstream.last_throttled_at
    if upstream.status is Status.ACTIVE and throttled is not None and now - throttled < THROTTLED_SECONDS:
        return Cause.LIMIT_REACHED
    if upstream.status is Status.THROTTLED and (throttled is None or now - throttled > CLEARED_SECONDS):
        return Cause.LIMIT_CLEARED
    return None


def _refresh(upstream: Upstream, connected_at: float, now: float) -> None:
    """Have stored, now and then, that a connected host is in good health."""
    if upstream.row.failures and now - connected_at > STEADY_SECONDS:
        upstream.row.failures = 0
        upstream.changed = True
    if now - (upstream.row.last_connected_at or 0.0) > SEEN_SECONDS:
        # A crash must not make a host that was connected all the time look long unseen.
        upstream.row.last_connected_at = now
        upstream.changed = True

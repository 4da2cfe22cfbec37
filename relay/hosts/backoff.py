"""When a host that is not connected is tried again.

The fleet asks after each failed or ended connection. Pure: randomness is passed in. The rules are in `docs/hosts.md`.
"""

from __future__ import annotations

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 300.0
ATTEMPTS_BEFORE_OFFLINE = 15
PROBE_SECONDS = 4 * 3600.0
STEADY_SECONDS = 60.0


def retry_delay(failures: int, chance: float) -> float:
    """Seconds to wait after `failures` in a row: doubling from one second to five minutes.

    `chance` in [0, 1) spreads the delay over half to one and a half times that, since hosts that failed together
    must not come back together.
    """
    return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(max(failures - 1, 0), 30)) * (0.5 + chance)


def probe_delay(chance: float) -> float:
    """Seconds until an idle or offline host is looked at again: some hours."""
    return PROBE_SECONDS * (0.5 + chance)


def failures_after(failures: int, lasted: float) -> int:
    """The failures in a row once a connection ended that stood for `lasted` seconds (0 when it never opened).

    A connection that soon ends counts as a failure: a host that accepts and drops would otherwise be dialled in a
    tight loop.
    """
    return 1 if lasted > STEADY_SECONDS else failures + 1

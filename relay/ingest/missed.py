"""Notes which accounts had an event dropped that the relay should have had, so that it is fetched from its source.

`rejections` reports every drop to it; the projector stores what is noted no later than the host's cursor moves past the
event. Must not know how anything is fetched.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.atproto.errors import ProtocolError
from relay.atproto.syntax import check_account_did
from relay.hosts.host import Host
from relay.kit import metrics

# Drops by which nothing is missed: repetitions, what is not the host's to say, and accounts that are not served. A
# release or an `#account` event of these tells by itself that they are served again.
NOT_MISSED = frozenset(
    {
        "account-did",
        "account-host-throttled",
        "account-inactive",
        "account-takendown",
        "did-not-found",
        "did-tombstone",
        "duplicate",
        "rev-old",
        "seq-not-rising",
        "text-message",
        "wrong-host",
    }
)

Note = Callable[[int, str, str], None]


class Missed:
    """What was missed. `note_missed(host id, DID, reason)` is the projector's."""

    def __init__(self, note_missed: Note) -> None:
        self._note_missed = note_missed

    def note(self, host: Host, did: str | None, reason: str) -> None:
        """An event of `did` from `host` was dropped for `reason`. Without a DID the host as a whole has a gap."""
        if reason in NOT_MISSED:
            return
        if did is None:
            host.cursor.note_gap("unreadable")
            return
        try:
            check_account_did(did)
        except ProtocolError:
            # No account that a relay could have.
            return
        self.note_account(host, did, reason)

    def note_account(self, host: Host, did: str, reason: str) -> None:
        """Something of the account is missed, whatever the reason usually means."""
        metrics.MISSED.labels(reason).inc()
        self._note_missed(host.id, did, reason)

"""Counts and logs what is dropped, and notes what is missed by that.

Lanes and subscribers report every drop. The counter counts all of them; the log has the first of each host and reason
within an hour, and the others at `debug`, so that neither a hostile host nor a busy day fills it. Where the relay
should have had the event, its account is noted: the projector stores that no later than the host's cursor moves past
the event. Must not know why an event is dropped, or how what was missed is fetched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from relay.atproto.syntax import is_account_did
from relay.hosts.host import Host
from relay.hosts.rejected import RejectedFrames
from relay.kit import metrics
from relay.kit.limits import Tally

# The first drop of a host and reason in this time gets a line, if there are not too many such lines in a minute.
LINES_SECONDS = 3600.0
LINES_CAPACITY = 10_000
LINES_PER_MINUTE = 20
# An account of another host is noted for its host once in this time.
CLAIMS_SECONDS = 3600.0
CLAIMS_CAPACITY = 50_000
# What is kept and logged of a DID, and of what is said about an event: a frame may call itself by megabytes of text.
SHOWN_CHARACTERS = 300

# Ordinary in any replay after a reconnect: counted, but no line in the log.
QUIET = frozenset({"rev-old", "duplicate"})

# Drops by which nothing is missed: repetitions, what is not the host's to say, and accounts that are not served. A
# release or an `#account` event of these tells by itself that they are served again.
NOT_MISSED = frozenset(
    {
        "account-did",
        "account-host-throttled",
        "account-inactive",
        "account-takendown",
        "did-tombstone",
        "duplicate",
        "rev-old",
        "seq-not-rising",
        "text-message",
        "wrong-host",
    }
)

Note = Callable[[int, str, str], None]

log = logging.getLogger(__name__)


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
        # With any other DID there is no account that a relay could have.
        if is_account_did(did):
            self.note_account(host, did, reason)

    def note_account(self, host: Host, did: str, reason: str) -> None:
        """Something of the account is missed, whatever the reason usually means."""
        metrics.MISSED.labels(reason).inc()
        self._note_missed(host.id, did, reason)


class Rejections:
    """The drop counter by reason, the count and the last frames of each host, and the log lines."""

    def __init__(self, rejected: RejectedFrames, missed: Missed) -> None:
        self._rejected = rejected
        self._missed = missed
        # Shown as 0 from the start: to Prometheus a counter that begins at 1 has not risen, and its alert stays silent.
        self._counters = {reason: metrics.EVENTS_DROPPED.labels(reason) for reason in ("internal-error", "poison")}
        self._lines: Tally[tuple[int, str]] = Tally(LINES_SECONDS, LINES_CAPACITY)
        metrics.show_bound("drop-lines", self._lines.__len__, LINES_CAPACITY)
        self._claims: Tally[tuple[int, str]] = Tally(CLAIMS_SECONDS, CLAIMS_CAPACITY)
        metrics.show_bound("foreign-claims", self._claims.__len__, CLAIMS_CAPACITY)
        self._lines_in_all: Tally[None] = Tally(60.0, 1)

    def note(
        self,
        host: Host,
        reason: str,
        did: str | None,
        seq: int | None,
        detail: str = "",
        frame: bytes = b"",
        size: int = 0,
        *,
        missed: bool = True,
        doubted: bool = False,
    ) -> None:
        """One event of `host` was dropped for `reason`; `frame` is what is known of its `size` bytes.

        It counts as `missed` unless the relay had fetched it and can fetch it again. `doubted`: the reason may be
        out of date, so that the account is noted whichever it is.
        """
        counter = self._counters.get(reason)
        if counter is None:
            counter = self._counters[reason] = metrics.EVENTS_DROPPED.labels(reason)
        counter.inc()
        if reason in QUIET:
            return
        if missed and doubted and did is not None:
            self._missed.note_account(host, did, reason)
        elif missed:
            self._missed.note(host, did, reason)
        did, detail = did and did[:SHOWN_CHARACTERS], detail[:SHOWN_CHARACTERS]
        now = time.time()
        host.drops.note(reason, now)
        # What a takedown hides is shown to nobody.
        frame = b"" if reason == "account-takendown" else frame
        self._rejected.add(host.id, now, reason, detail, did, seq, size or len(frame), frame)
        level = logging.INFO if self._is_news(host, reason) else logging.DEBUG
        log.log(level, "event rejected: reason=%s host=%s did=%s seq=%s %s", reason, host.hostname, did, seq, detail)

    def is_first_claim(self, host: Host, did: str) -> bool:
        """Whether `host` has not been found within an hour to speak for an account that is not its own."""
        return self._claims.add((host.id, did), time.monotonic()) == 1

    def _is_news(self, host: Host, reason: str) -> bool:
        now = time.monotonic()
        return self._lines.add((host.id, reason), now) == 1 and self._lines_in_all.add(None, now) <= LINES_PER_MINUTE

"""What lookups did not find, for how long that is believed, and when to ask again.

Used by the resolver alone, which finds out and decides what callers are told. Must not know how DIDs are looked up.

1. That a DID does not exist, or that its document is not one, is believed for REFUSED_SECONDS.
2. If nobody has ever heard of a DID, the directory or its host may simply not have it yet: it is asked again
   YOUNG_SECONDS after the first answer, while the caller waits. Each asking host has a bound on that.
3. About a DID that was known, such an answer is believed when it is given again BELIEVED_AFTER_SECONDS later.
4. A lookup that got no answer is not repeated for UNANSWERED_SECONDS, so that callers do not turn an outage of the
   directory into a storm.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import TTLCache

from relay.kit import metrics
from relay.kit.errors import IdentityError
from relay.kit.limits import Allowance

REFUSED_SECONDS = 120.0
UNANSWERED_SECONDS = 5.0
REMEMBERED = 50_000

YOUNG_SECONDS = (2.0, 5.0, 15.0)
YOUNG_PER_HOST = 1000
YOUNG_HOST_SECONDS = 0.6
HOSTS_REMEMBERED = 16_384

BELIEVED_AFTER_SECONDS = 10.0
DOUBTED_SECONDS = 3600.0


class Negatives:
    """Answers that are not an identity, by DID. `clock` gives seconds and does not go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: TTLCache[str, IdentityError] = TTLCache(REMEMBERED, REFUSED_SECONDS, timer=clock)
        self._unanswered: TTLCache[str, IdentityError] = TTLCache(REMEMBERED, UNANSWERED_SECONDS, timer=clock)
        # When the answer that is doubted was first given; written once, so that its window ends.
        self._doubted: TTLCache[str, float] = TTLCache(REMEMBERED, DOUBTED_SECONDS, timer=clock)
        self._young: Allowance[str] = Allowance(YOUNG_PER_HOST, YOUNG_HOST_SECONDS, HOSTS_REMEMBERED)
        metrics.show_bound("identity-failures", lambda: metrics.kept(self._refused), REMEMBERED)
        metrics.show_bound("identity-silences", lambda: metrics.kept(self._unanswered), REMEMBERED)
        metrics.show_bound("identity-doubts", lambda: metrics.kept(self._doubted), REMEMBERED)
        metrics.show_bound("identity-second-chances", lambda: len(self._young), HOSTS_REMEMBERED)

    def refused(self, did: str) -> IdentityError | None:
        """The fact that there is no identity, while it is believed."""
        error: IdentityError | None = self._refused.get(did)
        return error

    def unanswered(self, did: str) -> IdentityError | None:
        """That nobody answered, while it is not asked again."""
        error: IdentityError | None = self._unanswered.get(did)
        return error

    def found(self, did: str) -> None:
        """There is an identity."""
        self._refused.pop(did, None)
        self._unanswered.pop(did, None)
        self._doubted.pop(did, None)

    def note(self, did: str, error: IdentityError) -> None:
        """Keep what a lookup ended with. `error` is kept as it is: it must not have a traceback."""
        kept = self._unanswered if error.reason == "did-unavailable" else self._refused
        kept[did] = error

    def doubts(self, did: str) -> bool:
        """Whether the answer just given about a DID that was known is not to be believed yet."""
        now = self._clock()
        first = self._doubted.setdefault(did, now)
        if now - first < BELIEVED_AFTER_SECONDS:
            return True
        del self._doubted[did]
        return False

    def in_doubt(self, did: str) -> bool:
        """Whether the last answer about a DID that was known is not believed yet."""
        return did in self._doubted

    def ask_again_at(self, asked: int, host: str) -> float | None:
        """When to ask again for a DID that is unknown, in seconds after the first answer; None: not again.

        `asked` counts the answers so far, `host` is whom the question is for.
        """
        if asked > len(YOUNG_SECONDS):
            return None
        if asked == 1 and not self._young.take(host, self._clock()):
            return None
        return YOUNG_SECONDS[asked - 1]

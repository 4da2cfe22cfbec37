"""Which events came from both relays, which from one alone, and from which one first. Pure, and bounded in memory.

Fed by `comparison` with what two followers see. An event is its account and rev; `#identity` and `#account` have no
rev, and are their account and time. What one relay sends as `#sync` and the other as `#commit` is the same event.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Side = Literal["ours", "theirs"]
Key = tuple[str, str]

# Events that came from one side alone so far, of each side; and what is kept of the measures and of what was lacking.
MAX_WAITING = 200_000
MAX_LEADS = 100_000
MAX_LACKING = 10_000

_SIDES: tuple[tuple[Side, Side], ...] = (("ours", "theirs"), ("theirs", "ours"))


class Seen(NamedTuple):
    """An event as one relay sent it: `kind` is that of its message, `at` is when it came, in seconds."""

    did: str
    mark: str
    kind: str
    at: float


@dataclass
class Lacking:
    """What one relay lacks: how many of each kind, and the first of them."""

    by_kind: Counter[str] = field(default_factory=Counter)
    events: list[Seen] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many events."""
        return self.by_kind.total()


@dataclass
class Lead:
    """How often one relay was first, and by how many seconds, in a sample."""

    count: int = 0
    seconds: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float | None:
        """The lead that this share of its leads, 0 to 1, is not above, in seconds; None without any."""
        ordered = sorted(self.seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


class Matcher:
    """Takes what comes from both sides. What came before `since` counts for nothing but to be matched."""

    def __init__(self, since: float, patience: float) -> None:
        """The other side lacks an event that has not come there for `patience` seconds."""
        self.matched = 0
        self.downgraded: Counter[Side] = Counter()
        self.undecided = 0
        self.lacking: dict[Side, Lacking] = {"ours": Lacking(), "theirs": Lacking()}
        self.leads: dict[Side, Lead] = {"ours": Lead(), "theirs": Lead()}
        self._since = since
        self._patience = patience
        self._waiting: dict[Side, OrderedDict[Key, Seen]] = {"ours": OrderedDict(), "theirs": OrderedDict()}
        self._random = random.Random(1)

    def take(self, side: Side, seen: Seen) -> None:
        """One event of one side."""
        other: Side = "theirs" if side == "ours" else "ours"
        first = self._waiting[other].pop((seen.did, seen.mark), None)
        if first is None:
            waiting = self._waiting[side]
            waiting.setdefault((seen.did, seen.mark), seen)
            if len(waiting) > MAX_WAITING:
                waiting.popitem(last=False)
                self.undecided += 1
            return
        self.matched += 1
        for of, event, counterpart in ((side, seen, first), (other, first, seen)):
            self.downgraded[of] += (event.kind, counterpart.kind) == ("#sync", "#commit")
        if first.at >= self._since:
            self._note_lead(other, seen.at - first.at)

    def settle(self, now: float, until: float) -> None:
        """Count as lacking what has waited long enough. What came after `until` is left out: the run was over."""
        for side, other in _SIDES:
            waiting = self._waiting[side]
            while waiting:
                key, seen = next(iter(waiting.items()))
                if now - seen.at < self._patience:
                    break
                del waiting[key]
                if self._since <= seen.at <= until:
                    self._note_lacking(other, seen)

    def is_open(self, until: float) -> bool:
        """Whether something that came before `until` may still come from the other side."""
        return any(self._since <= seen.at <= until for waiting in self._waiting.values() for seen in waiting.values())

    def _note_lead(self, side: Side, seconds: float) -> None:
        lead = self.leads[side]
        lead.count += 1
        if len(lead.seconds) < MAX_LEADS:
            lead.seconds.append(seconds)
        elif (place := self._random.randrange(lead.count)) < MAX_LEADS:
            lead.seconds[place] = seconds

    def _note_lacking(self, side: Side, seen: Seen) -> None:
        lacking = self.lacking[side]
        lacking.by_kind[seen.kind] += 1
        if len(lacking.events) < MAX_LACKING:
            lacking.events.append(seen)


def accounts_of(events: Sequence[Seen], maximum: int) -> list[str]:
    """The accounts of these events, at most `maximum`, those with the most events first."""
    return [did for did, _ in Counter(event.did for event in events).most_common(maximum)]

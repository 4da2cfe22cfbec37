"""What a consumer that sees everything makes of it: how many events of each account came, and whether in order.

Used by the soak's audience. Must not know what was sent: the harness compares.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.bench.network.consumers import did_of, rev_of

EXAMPLES = 10


class Checker:
    """What came, by account. Of the accounts in `taken` only the order is looked at."""

    def __init__(self, taken: set[str]) -> None:
        self.commits: Counter[str] = Counter()
        self.identities: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.repeated = self.out_of_order = 0
        self._examples: list[str] = []
        self._taken = taken
        self._last_rev: dict[str, str] = {}

    @property
    def seen(self) -> int:
        return self.commits.total() + self.identities.total()

    def take(self, frame: bytes, _now: float) -> None:
        head = frame[:24]
        if b"#commit" in head:
            did, rev = did_of(frame, b"drepo"), rev_of(frame)
            last = self._last_rev.get(did, "")
            if rev <= last:
                self.repeated += rev == last
                self.out_of_order += rev < last
                self._remember(f"{did}{' (taken down now and then)' if did in self._taken else ''}: {rev} after {last}")
            self._last_rev[did] = max(rev, last)
            if did not in self._taken:
                self.commits[did] += 1
        elif b"#identity" in head:
            if (did := did_of(frame, b"cdid")) not in self._taken:
                self.identities[did] += 1
        else:
            self.others["#sync" if b"#sync" in head else "#account"] += 1

    def _remember(self, words: str) -> None:
        if len(self._examples) < EXAMPLES:
            self._examples.append(words)

    def found(self) -> dict[str, Any]:
        counts = {did: (self.commits[did], self.identities[did]) for did in self.commits | self.identities}
        return {
            "counts": counts,
            "repeated": self.repeated,
            "out_of_order": self.out_of_order,
            "others": self.others,
            "examples": self._examples,
        }


def compare(sent: dict[str, tuple[int, int]], found: dict[str, Any]) -> dict[str, int]:
    """How many events were lost, repeated and out of order. `sent` and `found["counts"]` say for each account how many
    commits and identities there were."""
    came = found["counts"]
    pairs = [(sent.get(did, (0, 0)), came.get(did, (0, 0))) for did in sent.keys() | came]
    lacks = [there - here for given, got in pairs for there, here in zip(given, got, strict=True)]
    return {
        "lost": sum(max(0, lack) for lack in lacks),
        "repeated": max(found["repeated"], sum(max(0, -lack) for lack in lacks)),
        "out of order": found["out_of_order"],
    }


def differences(sent: dict[str, tuple[int, int]], found: dict[str, Any]) -> list[str]:
    """The first accounts of which more or less came than was sent, and the first events that came again or too late."""
    came = found["counts"]
    pairs = [(did, sent.get(did, (0, 0)), tuple(came.get(did, (0, 0)))) for did in sent.keys() | came]
    unlike = [f"{did}: {given} commits and identities sent, {got} came" for did, given, got in pairs if given != got]
    return [*unlike[:EXAMPLES], *found["examples"]]

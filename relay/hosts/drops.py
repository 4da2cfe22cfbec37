"""How many events of each host were dropped in the last day, by reason.

Told by `ingest.Rejections` of every drop; read for the host's status page and by the account limit's growth. Bounded:
known hosts only, reasons come from fixed lists, and 24 hours are kept for hosts that have drops at all.
"""

from __future__ import annotations

from collections import Counter

HOUR_SECONDS = 3600
HOURS = 24


class Drops:
    """Counts per host and hour; an hour older than a day is forgotten when the host is next looked at."""

    def __init__(self) -> None:
        self._hours: dict[str, dict[int, Counter[str]]] = {}

    def note(self, hostname: str, reason: str, now: float) -> None:
        """One event of `hostname` was dropped at `now` (Unix seconds)."""
        hours = self._hours.setdefault(hostname, {})
        hour = int(now) // HOUR_SECONDS
        if hour not in hours:
            _forget(hours, hour)
            hours[hour] = Counter()
        hours[hour][reason] += 1

    def last_day(self, hostname: str, now: float) -> dict[str, int]:
        """Drops by reason in the 24 hours before `now`, most first."""
        hours = self._hours.get(hostname)
        if hours is None:
            return {}
        _forget(hours, int(now) // HOUR_SECONDS)
        if not hours:
            del self._hours[hostname]
        total: Counter[str] = Counter()
        for reasons in hours.values():
            total.update(reasons)
        return dict(total.most_common())

    def total(self, hostname: str, now: float) -> int:
        """All drops in those 24 hours."""
        oldest = int(now) // HOUR_SECONDS - HOURS
        hours = self._hours.get(hostname, {})
        return sum(reasons.total() for hour, reasons in hours.items() if hour > oldest)


def _forget(hours: dict[int, Counter[str]], hour: int) -> None:
    for old in [when for when in hours if when <= hour - HOURS]:
        del hours[old]

"""Follows two relays for some minutes and says what each lacks, where and why, and which one was first.

Called by `relay compare`, after the patch. Why ours lacks something is asked of ours, account by account, so a bound is
set on how many.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import gevent

from relay.comparison.matching import Matcher, Seen, Side, accounts_of
from relay.comparison.relays import FollowedRelay
from relay.kit.errors import AddressRefused, HttpError

# Both connections stand, but one relay may still have sent what the other had sent before.
WARM_UP_SECONDS = 5.0
# How much later than from one relay an event may come from the other.
LATE_SECONDS = 60.0
STEP_SECONDS = 0.5
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Cause:
    """Why events of some accounts are missing: their host, the kind of event, and our reason or cause."""

    host: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What came out. `causes` count events; hosts are names, those that one relay has and the other lacks."""

    matcher: Matcher
    causes: dict[Side, Counter[Cause]]
    hosts_ours_lacks: list[str]
    hosts_theirs_lacks: list[str]

    @property
    def complete(self) -> bool:
        """Whether ours has everything that theirs has."""
        return not self.matcher.lacking["ours"].count and not self.hosts_ours_lacks


def compare(
    ours: FollowedRelay,
    theirs: FollowedRelay,
    seconds: float,
    *,
    late: float = LATE_SECONDS,
    warm_up: float = WARM_UP_SECONDS,
    max_accounts: int = 200,
    progress: Callable[[float], None] = lambda done: None,
) -> Comparison:
    """Follow both for `seconds`, and then for at most `late` more, until everything that is under way has come.

    `progress` is called with the seconds that have gone by. Raises StreamEnded or HttpError when a relay does not
    answer at the start.
    """
    before = ours.hosts(), theirs.hosts()
    began = time.monotonic()
    until, end = began + seconds, began + seconds + late
    matcher = Matcher(began + min(warm_up, seconds / 4), late)
    _follow(ours, theirs, matcher, until, end, lambda now: progress(now - began))
    matcher.settle(time.monotonic() + late, until)
    progress(end - began)
    our_hosts, their_hosts = _hosts_now(ours, theirs, before)
    active = {name for name, status in their_hosts.items() if status in ("active", "idle")}
    return Comparison(
        matcher,
        {
            "ours": _causes(ours, matcher.lacking["ours"].events, max_accounts),
            "theirs": _causes(ours, matcher.lacking["theirs"].events, max_accounts),
        },
        sorted(active - our_hosts.keys()),
        sorted(our_hosts.keys() - their_hosts.keys()),
    )


def _follow(
    ours: FollowedRelay,
    theirs: FollowedRelay,
    matcher: Matcher,
    until: float,
    end: float,
    progress: Callable[[float], None],
) -> None:
    """Give `matcher` the events of both until `end`, or until all that came before `until` is settled.

    `progress` is called with the time of now.
    """
    over = False

    def is_over() -> bool:
        return over

    with closing(ours.open()) as first, closing(theirs.open()) as second:
        followers = [
            gevent.spawn(ours.follow, first, lambda seen: matcher.take("ours", seen), is_over),
            gevent.spawn(theirs.follow, second, lambda seen: matcher.take("theirs", seen), is_over),
        ]
        while not over:
            gevent.sleep(STEP_SECONDS)
            now = time.monotonic()
            matcher.settle(now, until)
            progress(now)
            over = now >= end or (now >= until and not matcher.is_open(until))
        # Ended by time: each looks at the clock once a second.
        gevent.joinall(followers, raise_error=True)


def _hosts_now(
    ours: FollowedRelay, theirs: FollowedRelay, before: tuple[dict[str, str], dict[str, str]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Both lists of hosts, which may have grown meanwhile; the earlier ones when a relay no longer answers."""
    try:
        return ours.hosts(), theirs.hosts()
    except (HttpError, AddressRefused):
        return before


def _causes(ours: FollowedRelay, events: list[Seen], maximum: int) -> Counter[Cause]:
    """What our relay says of the accounts of these events, as far as it may be asked."""
    said: dict[str, tuple[str, str]] = {}
    for did in accounts_of(events, maximum):
        try:
            view = ours.why(did) or {}
        except (HttpError, AddressRefused):
            break
        rejected = view.get("rejected") or [{}]
        said[did] = str(view.get("pds") or UNKNOWN), str(rejected[0].get("reason") or view.get("cause") or UNKNOWN)
    return Counter(Cause(*_placed(said, event)) for event in events)


def _placed(said: dict[str, tuple[str, str]], event: Seen) -> tuple[str, str, str]:
    host, reason = said.get(event.did, (UNKNOWN, UNKNOWN))
    return host, event.kind, reason

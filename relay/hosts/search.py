"""Which hosts a page of their table shows, in what order, and how many there are of each state.

Called by Hosts for the front page and the dashboard. There are thousands of hosts: they are searched, filtered and
sorted by what costs little, and only the rows of the page are reported in full. Pure: everything is passed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.report import HostReport, lag_seconds

ALL, CONNECTED, DISCONNECTED = "all", "connected", "disconnected"
STATES = (ALL, CONNECTED, DISCONNECTED, *(status.value for status in Status))

SORT_KEYS: dict[str, Callable[[Host], Any]] = {
    "name": lambda host: host.hostname,
    "state": lambda host: (host.status.value, not host.connected),
    "lag": lambda host: lag_seconds(host),
    "last-event": lambda host: host.row.last_event_at,
    "events": lambda host: host.events_seen,
    "accounts": lambda host: host.account_count,
    "limit": lambda host: host.account_limit,
    "rate": lambda host: host.rates.second,
    "error": lambda host: host.row.last_error,
}
BY_DROPS = "drops"
SORTS = (*SORT_KEYS, BY_DROPS)


@dataclass(frozen=True, slots=True)
class HostQuery:
    """What to show: `search` as `name_matcher` takes it, `state` of STATES, `sort` of SORTS; `start` counts from 0."""

    search: str = ""
    state: str = ALL
    sort: str = "name"
    descending: bool = False
    start: int = 0
    count: int = 50


@dataclass(frozen=True, slots=True)
class HostPage:
    """The rows of one page, how many hosts there are on all pages, and how many of each state the search finds."""

    rows: list[HostReport]
    found: int
    by_state: dict[str, int]


def select(hosts: Iterable[Host], query: HostQuery, drops: Callable[[Host], int]) -> tuple[list[Host], dict[str, int]]:
    """All hosts that `query` asks for, in order, and the number of each state among those with such a name.

    Hosts without what is sorted by come last, whichever way it goes.
    """
    matches = name_matcher(query.search)
    named = [host for host in hosts if matches(host.hostname)]
    key = drops if query.sort == BY_DROPS else SORT_KEYS[query.sort]
    keyed = [(key(host), host) for host in named if _is_in(host, query.state)]
    known = [(value, host) for value, host in keyed if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=query.descending)
    return [host for _, host in known] + [host for value, host in keyed if value is None], _count(named)


def name_matcher(pattern: str) -> Callable[[str], bool]:
    """True for the names that hold `pattern`: `*` is anything, `^` and `$` the name's ends, `|` parts alternatives.

    `.*` and `\\.` mean what they do in a regular expression. Not all of those are taken: Python's engine can need time
    without bound for one name, and everything else in the relay would wait.
    """
    alternatives = [_alternative(text.strip()) for text in pattern.lower().split("|") if text.strip()]
    return lambda name: not alternatives or any(matches(name) for matches in alternatives)


def _alternative(text: str) -> Callable[[str], bool]:
    at_start, at_end = text.startswith("^"), text.endswith("$")
    body = text.removeprefix("^").removesuffix("$").replace(".*", "*").replace("\\.", ".")
    pieces = body.split("*")
    first, last = pieces[0], pieces[-1]
    middle = pieces[at_start : len(pieces) - at_end]

    def matches(name: str) -> bool:
        if at_start and at_end and len(pieces) == 1:
            return name == first
        if (at_start and not name.startswith(first)) or (at_end and not name.endswith(last)):
            return False
        low, high = len(first) if at_start else 0, len(name) - len(last) if at_end else len(name)
        for piece in middle:
            found = name.find(piece, low, high)
            if found < 0:
                return False
            low = found + len(piece)
        return low <= high

    return matches


def _is_in(host: Host, state: str) -> bool:
    if state in (CONNECTED, DISCONNECTED):
        return (host.connected) is (state == CONNECTED)
    return state in (ALL, host.status.value)


def _count(hosts: list[Host]) -> dict[str, int]:
    statuses = Counter(host.status.value for host in hosts)
    connected = sum(host.connected for host in hosts)
    return {
        **{state: statuses[state] for state in STATES},
        ALL: len(hosts),
        CONNECTED: connected,
        DISCONNECTED: len(hosts) - connected,
    }

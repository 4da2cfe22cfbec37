"""One page of the table of hosts: which of them a search finds, in which order."""

from __future__ import annotations

import time

import pytest

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.search import STATES, HostQuery, name_matcher, select
from tests.support.hosts import known_host


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("", "pds.example.com", True),
        ("example", "pds.example.com", True),
        ("EXAMPLE", "pds.example.com", True),
        ("example.org", "pds.example.com", False),
        ("^pds", "pds.example.com", True),
        ("^example", "pds.example.com", False),
        ("com$", "pds.example.com", True),
        ("example$", "pds.example.com", False),
        ("^pds.example.com$", "pds.example.com", True),
        ("^pds$", "pds.example.com", False),
        ("pds*com", "pds.example.com", True),
        ("com*pds", "pds.example.com", False),
        ("^p*e*m$", "pds.example.com", True),
        (r"^pds\..*\.com$", "pds.example.com", True),
        (r"^pds\..*\.com$", "pdsx.example.com", False),
        ("^aba*aba$", "ababa", False),
        ("^aba*aba$", "abaaba", True),
        ("nothing|example", "pds.example.com", True),
        ("nothing|none", "pds.example.com", False),
        ("|", "pds.example.com", True),
        ("^", "pds.example.com", True),
        ("$", "pds.example.com", True),
        ("*", "pds.example.com", True),
        ("(a+)+$", "aaaa", False),
        ("localhost:2583", "localhost:2583", True),
    ],
)
def test_a_pattern_finds_names(pattern: str, name: str, found: bool) -> None:
    assert name_matcher(pattern)(name) is found


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    assert not name_matcher("a*" * 100 + "b")("a" * 250)
    assert time.process_time() - began < 0.05


def hosts() -> list[Host]:
    found = [known_host(id=number, hostname=f"pds{number}.example.com", connected=number < 3) for number in range(1, 6)]
    found[2].status = Status.BANNED
    found[1].events_seen, found[3].events_seen = 20, 30
    found[4].row.last_error = "tls-failed"
    return found


def ids(query: HostQuery) -> list[int]:
    return [one.id for one in select(hosts(), query, lambda one: one.id % 3)[0]]


def test_states_are_filtered_and_counted() -> None:
    assert ids(HostQuery(state="connected")) == [1, 2]
    assert ids(HostQuery(state="disconnected")) == [3, 4, 5]
    assert ids(HostQuery(state="banned")) == [3]
    counts = select(hosts(), HostQuery(search="pds", state="banned"), lambda _: 0)[1]
    assert counts == {
        "all": 5, "connected": 2, "disconnected": 3, "active": 4, "idle": 0, "offline": 0, "throttled": 0, "banned": 1,
    }  # fmt: skip
    assert tuple(counts) == STATES
    assert select(hosts(), HostQuery(search="pds3"), lambda _: 0)[1]["all"] == 1


def test_hosts_come_in_the_order_that_was_asked_for() -> None:
    assert ids(HostQuery(sort="name", descending=True)) == [5, 4, 3, 2, 1]
    assert ids(HostQuery(sort="events", descending=True))[:2] == [4, 2]
    assert ids(HostQuery(sort="drops", descending=True)) == [2, 5, 1, 4, 3]
    # Those without an error come last both ways.
    assert ids(HostQuery(sort="error"))[0] == ids(HostQuery(sort="error", descending=True))[0] == 5

"""What a host's operator is told, and one page of the table of hosts: which of them a search finds, in which order."""

from __future__ import annotations

import time

import pytest

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.report import STATES, HostQuery, HostReport, name_matcher, report_of, select
from tests.support.hosts import NOW, known_host


def told(one: Host, drops: dict[str, int] | None = None, next_in: float | None = None) -> HostReport:
    for reason, number in (drops or {}).items():
        for _ in range(number):
            one.drops.note(reason, NOW)
    return report_of(one, next_in, NOW)


def test_a_healthy_host() -> None:
    one = known_host()
    one.note_event("2027-01-15T07:59:58.000Z", NOW)
    report = told(one)
    assert report.lag_seconds == 2.0
    assert one.rates == (50, 2_600, 21_000)
    assert "events pass" in report.advice
    assert report.next_attempt_at is None


def test_the_lag_is_unknown_when_the_event_says_nothing_usable() -> None:
    one = known_host()
    assert told(one).lag_seconds is None
    for nonsense in ("yesterday", "", "9" * 100):
        one.note_event(nonsense, NOW)
        assert told(one).lag_seconds is None
    one.note_event("2999-01-01T00:00:00Z", NOW)
    assert told(one).lag_seconds == 0.0


def test_every_state_and_error_has_its_advice() -> None:
    seen = set()
    for status in Status:
        seen.add(told(known_host(status, connected=False)).advice)
    for error in ("tls-failed: expired", "name-unresolved: x", "handshake-refused: HTTP 404", "dial-timeout: 10"):
        seen.add(told(known_host(Status.OFFLINE, connected=False, last_error=error)).advice)
    seen.add(told(known_host(accounts=100)).advice)
    seen.add(told(known_host(), {"rev-future": 3}).advice)
    seen.add(told(known_host()).advice)
    assert len(seen) == 12


def test_an_old_error_is_not_held_against_a_connected_host() -> None:
    one = known_host(last_error="tls-failed: expired", last_error_at=NOW - 1000)
    assert "TLS" not in told(one).advice


def test_the_next_attempt_is_a_time() -> None:
    assert told(known_host(Status.OFFLINE, connected=False), next_in=60.0).next_attempt_at == NOW + 60


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

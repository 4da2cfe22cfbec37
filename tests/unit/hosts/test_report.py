"""What a host's operator is told."""

from __future__ import annotations

from relay.hosts.host import Host
from relay.hosts.lifecycle import Status
from relay.hosts.report import HostReport, report_of
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

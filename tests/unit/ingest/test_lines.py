"""What waits beside a lane is judged in order, whatever became of the account while a lane was busy with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event as Signal

from relay.atproto.frames import Account, Identity
from relay.hosts.host import Host
from relay.ingest.delivery import Delivery, Wait
from relay.ingest.lines import ACCOUNT_PLACES, Lines
from relay.ingest.parking import Parking
from tests.support.hosts import known_host
from tests.support.repo import account_did
from tests.support.wait import until

DID = account_did(1)


class Scripted:
    """Judges in place of a gate: an event is `settled` after the waits that it is given, which last until `ended`."""

    def __init__(self) -> None:
        self.waits: dict[int, list[Wait]] = {}
        self.settled: list[int] = []
        self.dropped: list[tuple[int, str]] = []
        self.fault: Exception | None = None
        self.ended: dict[tuple[int, Wait], Signal] = {}

    def settle(self, delivery: Delivery) -> Wait | None:
        waits = self.waits.get(delivery.event.seq)
        if waits:
            return waits.pop(0)
        self.settled.append(delivery.event.seq)
        return None

    def run(self, delivery: Delivery, wait: Wait) -> None:
        assert self.ended.setdefault((delivery.event.seq, wait), Signal()).wait(60)
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def script() -> Scripted:
    return Scripted()


class Told:
    """What consumers are told, in place of `Hosting`."""

    def __init__(self) -> None:
        self.throttled: list[bool] = []
        self.fault: Exception | None = None
        self.going_on, self.letting_go = Signal(), Signal()
        self.going_on.set()
        self.letting_go.set()

    def throttle(self, did: str, host: Host) -> bool:
        if self.fault is not None:
            raise self.fault
        assert self.going_on.wait(60)
        self.throttled.append(True)
        return True

    def let_go(self, did: str) -> None:
        assert self.letting_go.wait(60)
        self.throttled.append(False)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def lines(script: Scripted, told: Told) -> Lines:
    def drop(delivery: Delivery, reason: str, detail: str) -> None:
        script.dropped.append((delivery.event.seq, reason))

    waits: Any = script
    hosting: Any = told
    return Lines(waits, hosting, Parking(), script.settle, drop)


@pytest.fixture
def event() -> Callable[[Host, int], Delivery]:
    def make(host: Host, seq: int) -> Delivery:
        delivery = Delivery(host, Identity(DID, seq, "", None, b""))
        host.share.begin()
        return delivery

    return make


@pytest.fixture
def account_event() -> Callable[[Host, int], Delivery]:
    def make(host: Host, seq: int) -> Delivery:
        delivery = Delivery(host, Account(DID, seq, "", True, None, b""))
        host.share.begin()
        return delivery

    return make


def test_what_has_to_wait_goes_behind_what_became_the_accounts_line_meanwhile(
    script: Scripted, lines: Lines, event: Callable[[Host, int], Delivery]
) -> None:
    """A lane asks SQL about an event of one host while what another one sent comes back from the directory."""
    host, former = known_host(), known_host(id=2)
    script.waits = {1: [Wait.STATUS], 2: [Wait.REFRESH]}
    lines.begin(event(host, 1), Wait.FOREIGN)
    second = event(former, 2)
    assert not lines.join(second)
    until(lambda: (1, Wait.FOREIGN) in script.ended, 30)
    script.ended[1, Wait.FOREIGN].set()
    until(lambda: (1, Wait.STATUS) in script.ended, 30)
    wait = script.settle(second)
    assert wait is Wait.REFRESH
    script.waits[2] = [wait]
    lines.begin(second, wait)
    script.ended.setdefault((2, Wait.REFRESH), Signal()).set()
    assert lines.join(event(host, 3))
    script.ended[1, Wait.STATUS].set()
    until(lambda: len(script.settled) == 3, 30)
    assert script.settled == [1, 2, 3]
    until(lambda: not lines.by_account, 30)


def test_that_consumers_were_told_of_missing_events_is_not_forgotten_when_lines_become_one(
    script: Scripted, lines: Lines, told: Told, event: Callable[[Host, int], Delivery]
) -> None:
    host, other = known_host(), known_host(id=2)
    lines.begin(event(host, 1), Wait.FOREIGN)
    for seq in range(2, ACCOUNT_PLACES + 3):
        assert lines.join(event(host, seq))
    assert script.dropped == [(ACCOUNT_PLACES + number, "account-throttled") for number in (1, 2)]
    assert told.throttled == [True]
    lines.begin(event(other, 100), Wait.STATUS)
    until(lambda: len(script.ended) == 2, 30)
    script.ended[1, Wait.FOREIGN].set()
    until(lambda: not lines.asides, 30)
    script.ended[100, Wait.STATUS].set()
    until(lambda: not lines.by_account, 30)
    assert script.settled == [100, *range(1, ACCOUNT_PLACES + 1)]
    assert told.throttled == [True, False]


@pytest.mark.parametrize("wait", [Wait.REFRESH, Wait.FOREIGN])
def test_a_bug_in_a_wait_costs_one_event(
    script: Scripted, lines: Lines, event: Callable[[Host, int], Delivery], wait: Wait
) -> None:
    host = known_host()
    lines.begin(event(host, 1), wait)
    assert lines.join(event(host, 2))
    until(lambda: script.ended, 30)
    script.fault = ValueError("a bug")
    script.ended[1, wait].set()
    until(lambda: not (lines.by_account or lines.asides), 30)
    assert script.dropped == [(1, "internal-error")] and script.settled == [2]
    assert host.budget.parked == 0


def test_a_bug_in_what_consumers_are_told_ends_no_lane(
    script: Scripted, lines: Lines, told: Told, event: Callable[[Host, int], Delivery]
) -> None:
    host, told.fault = known_host(), ValueError("a bug")
    lines.begin(event(host, 1), Wait.FOREIGN)
    for seq in range(2, ACCOUNT_PLACES + 2):
        assert lines.join(event(host, seq))
    assert script.dropped == [(ACCOUNT_PLACES + 1, "account-throttled")]
    until(lambda: script.ended, 30)
    script.ended[1, Wait.FOREIGN].set()
    until(lambda: not (lines.by_account or lines.asides), 30)
    assert script.settled == [*range(1, ACCOUNT_PLACES + 1)]


def test_events_of_a_host_that_go_aside_stay_in_order(
    script: Scripted, lines: Lines, event: Callable[[Host, int], Delivery]
) -> None:
    """The first of them goes aside while others of its host are behind another host's, and more of them come."""
    host, former = known_host(), known_host(id=2)
    script.waits = {1: [Wait.FOREIGN], 2: [Wait.STATUS]}
    lines.begin(event(host, 1), Wait.IDENTITY)
    assert lines.join(event(former, 2)) and lines.join(event(host, 3))
    until(lambda: script.ended, 30)
    script.ended[1, Wait.IDENTITY].set()
    until(lambda: {(1, Wait.FOREIGN), (2, Wait.STATUS)} <= script.ended.keys(), 30)
    assert lines.join(event(host, 4))
    script.ended[1, Wait.FOREIGN].set()
    until(lambda: not lines.asides, 30)
    assert lines.join(event(host, 5))
    script.ended[2, Wait.STATUS].set()
    until(lambda: not lines.by_account, 30)
    assert script.settled == [2, 1, 3, 4, 5]
    assert host.budget.parked == former.budget.parked == 0


def test_an_account_event_that_was_kept_is_judged_before_those_that_came_after_it(
    script: Scripted,
    lines: Lines,
    event: Callable[[Host, int], Delivery],
    account_event: Callable[[Host, int], Delivery],
) -> None:
    host, places = known_host(), ACCOUNT_PLACES
    script.waits = {places - 1: [Wait.STATUS]}
    lines.begin(event(host, 1), Wait.COOL_DOWN)
    for seq in range(2, places + 1):
        assert lines.join(event(host, seq))
    assert lines.join(account_event(host, 100))
    until(lambda: script.ended, 30)
    script.ended[1, Wait.COOL_DOWN].set()
    until(lambda: (places - 1, Wait.STATUS) in script.ended, 30)
    for late in (event(host, 101), account_event(host, 102)):
        assert lines.join(late)
    script.ended[places - 1, Wait.STATUS].set()
    until(lambda: not lines.by_account, 30)
    assert script.settled == [*range(1, places + 1), 100, 101, 102] and script.dropped == []
    assert host.budget.parked == 0


def test_the_account_event_of_another_host_does_not_take_the_place_of_the_one_that_is_kept(
    script: Scripted, lines: Lines, account_event: Callable[[Host, int], Delivery]
) -> None:
    host, other = known_host(), known_host(id=2)
    lines.begin(account_event(host, 1), Wait.COOL_DOWN)
    for seq in range(2, ACCOUNT_PLACES + 2):
        assert lines.join(account_event(host, seq))
    for seq in range(101, 100 + ACCOUNT_PLACES + 3):
        assert lines.join(account_event(other, seq))
    assert script.dropped == [(100 + ACCOUNT_PLACES + 1, "account-throttled")]
    until(lambda: script.ended, 30)
    script.ended[1, Wait.COOL_DOWN].set()
    until(lambda: not lines.by_account, 30)
    assert ACCOUNT_PLACES + 1 in script.settled and 100 + ACCOUNT_PLACES + 2 in script.settled
    assert host.budget.parked == other.budget.parked == 0


@pytest.mark.parametrize("end", ["over", "part of another"])
def test_that_consumers_are_told_of_missing_events_is_remembered_however_long_that_takes(
    script: Scripted, lines: Lines, told: Told, event: Callable[[Host, int], Delivery], end: str
) -> None:
    """The queue to the log is full, or SQL slow; meanwhile the line ends or becomes a part of another one."""
    host, other = known_host(), known_host(id=2)
    told.going_on.clear()
    lines.begin(event(host, 1), Wait.FOREIGN)
    if end == "part of another":
        lines.begin(event(other, 100), Wait.STATUS)
    for seq in range(2, ACCOUNT_PLACES + 1):
        assert lines.join(event(host, seq))
    lane = gevent.spawn(lines.join, event(host, ACCOUNT_PLACES + 1))
    until(lambda: script.dropped and (1, Wait.FOREIGN) in script.ended, 30)
    script.ended[1, Wait.FOREIGN].set()
    until(lambda: not lines.asides, 30)
    if end == "over":
        until(lambda: not lines.by_account, 30)
    told.going_on.set()
    lane.join(30)
    if end == "part of another":
        script.ended[100, Wait.STATUS].set()
    until(lambda: not lines.by_account and told.throttled == [True, False], 30)


def test_a_foreign_hosts_event_goes_aside_though_a_line_of_the_account_came_meanwhile(
    script: Scripted, lines: Lines, event: Callable[[Host, int], Delivery]
) -> None:
    host, foreign = known_host(), known_host(id=2)
    lines.begin(event(host, 1), Wait.STATUS)
    lines.begin(event(foreign, 2), Wait.FOREIGN)
    until(lambda: {(1, Wait.STATUS), (2, Wait.FOREIGN)} <= script.ended.keys(), 30)
    for ended in script.ended.values():
        ended.set()
    until(lambda: not (lines.by_account or lines.asides), 30)
    assert script.settled == [1, 2]


def test_an_account_event_that_was_kept_goes_where_the_others_of_its_host_go(
    script: Scripted,
    lines: Lines,
    event: Callable[[Host, int], Delivery],
    account_event: Callable[[Host, int], Delivery],
) -> None:
    """First aside with them, and then into the account's line."""
    host, other = known_host(), known_host(id=2)
    script.waits = {1: [Wait.FOREIGN]}
    lines.begin(event(host, 1), Wait.COOL_DOWN)
    for seq in range(2, ACCOUNT_PLACES + 1):
        assert lines.join(event(host, seq))
    assert lines.join(account_event(host, 100))
    until(lambda: script.ended, 30)
    script.ended[1, Wait.COOL_DOWN].set()
    until(lambda: lines.asides and not lines.by_account, 30)
    assert lines.join(account_event(host, 101))
    lines.begin(event(other, 200), Wait.STATUS)
    until(lambda: len(script.ended) == 3, 30)
    script.ended[1, Wait.FOREIGN].set()
    until(lambda: not lines.asides, 30)
    script.ended[200, Wait.STATUS].set()
    until(lambda: not lines.by_account, 30)
    assert script.settled == [200, *range(1, ACCOUNT_PLACES + 1), 100, 101] and script.dropped == []
    assert host.budget.parked == other.budget.parked == 0


def test_consumers_are_told_once_that_events_are_missing_of_lines_that_became_one(
    script: Scripted, lines: Lines, told: Told, event: Callable[[Host, int], Delivery]
) -> None:
    host, other = known_host(), known_host(id=2)
    lines.begin(event(host, 1), Wait.FOREIGN)
    lines.begin(event(other, 100), Wait.COOL_DOWN)
    for seq in range(2, ACCOUNT_PLACES + 2):
        assert lines.join(event(host, seq))
    until(lambda: len(script.ended) == 2, 30)
    script.ended[1, Wait.FOREIGN].set()
    until(lambda: not lines.asides, 30)
    assert lines.join(event(host, 200))
    assert script.dropped == [(ACCOUNT_PLACES + 1, "account-throttled"), (200, "account-throttled")]
    script.ended[100, Wait.COOL_DOWN].set()
    until(lambda: not lines.by_account, 30)
    assert told.throttled == [True, False]


def test_consumers_are_told_again_when_events_are_missing_again(
    script: Scripted, lines: Lines, told: Told, event: Callable[[Host, int], Delivery]
) -> None:
    """While it takes its time to tell them that none are."""
    host = known_host()
    lines.begin(event(host, 1), Wait.COOL_DOWN)
    for seq in range(2, ACCOUNT_PLACES + 2):
        assert lines.join(event(host, seq))
    told.letting_go.clear()
    until(lambda: script.ended, 30)
    script.ended[1, Wait.COOL_DOWN].set()
    until(lambda: len(script.settled) == ACCOUNT_PLACES, 30)
    for seq in range(100, 100 + ACCOUNT_PLACES + 1):
        assert lines.join(event(host, seq))
    assert told.throttled == [True, True]
    told.letting_go.set()
    until(lambda: not lines.by_account, 30)
    assert told.throttled == [True, True, False, False]

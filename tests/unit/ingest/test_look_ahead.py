"""Accounts are read together, once, and never more than a bounded number; a database that is away is left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import gevent
import pytest
from gevent.event import Event

from relay.ingest import look_ahead
from relay.ingest.accounts import Known
from relay.ingest.look_ahead import LookAhead
from relay.kit.errors import StoreError
from tests.support.wait import until


class Memory:
    """The accounts, or the identities: what was read is remembered. Reads wait for `gate`."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.reads: list[list[str]] = []
        self.gate = Event()
        self.gate.set()
        self.away = False

    def remembers(self, did: str) -> bool:
        return did in self.known

    def look_ahead(
        self, dids: Sequence[str], find: Callable[[Sequence[str]], Mapping[str, Known]] | None = None
    ) -> None:
        self.reads.append(list(dids))
        self.gate.wait(60)
        if self.away:
            raise StoreError("store-unavailable")
        self.known.update(dids)


@pytest.fixture
def identities() -> Memory:
    return Memory()


@pytest.fixture
def accounts() -> Memory:
    return Memory()


@pytest.fixture
def ahead(accounts: Memory, identities: Memory) -> LookAhead:
    return LookAhead(accounts, identities, lambda dids: {})  # type: ignore[arg-type]


def want(ahead: LookAhead, dids: str) -> None:
    for did in dids:
        ahead.want(did)


def at_rest(ahead: LookAhead) -> None:
    until(lambda: not ahead._wanted and not ahead._reading, 30)


def test_what_is_wanted_while_something_is_read_is_read_together(
    accounts: Memory, identities: Memory, ahead: LookAhead
) -> None:
    identities.gate.clear()
    want(ahead, "a")
    until(lambda: identities.reads == [["a"]], 30)
    want(ahead, "bcb")
    identities.gate.set()
    at_rest(ahead)
    assert identities.reads == accounts.reads == [["a"], ["b", "c"]]
    want(ahead, "abc")
    assert not ahead._reading


def test_who_waits_goes_on_once_sql_was_asked_also_by_a_read_that_is_under_way(
    accounts: Memory, identities: Memory, ahead: LookAhead
) -> None:
    identities.gate.clear()
    first = gevent.spawn(ahead.wait, "a")
    until(lambda: identities.reads == [["a"]], 30)
    second, third = gevent.spawn(ahead.wait, "a"), gevent.spawn(ahead.wait, "b")
    gevent.sleep(0)
    assert not (first.ready() or second.ready() or third.ready())
    identities.gate.set()
    gevent.joinall([first, second, third], timeout=60, raise_error=True)
    assert third.ready() and accounts.reads == [["a"], ["b"]]
    ahead.wait("a")
    assert len(accounts.reads) == 2


def test_a_database_that_is_away_lets_all_go_on(identities: Memory, ahead: LookAhead) -> None:
    identities.gate.clear()
    first = gevent.spawn(ahead.wait, "a")
    until(lambda: identities.reads == [["a"]], 30)
    second = gevent.spawn(ahead.wait, "b")
    gevent.sleep(0)
    identities.away = True
    identities.gate.set()
    gevent.joinall([first, second], timeout=60, raise_error=True)
    assert first.ready() and second.ready() and identities.reads == [["a"]]


def test_reads_and_what_waits_for_them_are_bounded(
    identities: Memory, ahead: LookAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_ahead, "MAX_KEYS", 3)
    monkeypatch.setattr(look_ahead, "MAX_WANTED", 5)
    identities.gate.clear()
    want(ahead, "z")
    until(lambda: identities.reads == [["z"]], 30)
    want(ahead, "abcdefgh")
    identities.gate.set()
    at_rest(ahead)
    assert identities.reads == [["z"], ["a", "b", "c"], ["d", "e"]]


def test_a_database_that_is_away_is_asked_again_for_the_next_account(identities: Memory, ahead: LookAhead) -> None:
    identities.away = True
    want(ahead, "ab")
    at_rest(ahead)
    assert identities.reads == [["a", "b"]]
    identities.away = False
    want(ahead, "a")
    at_rest(ahead)
    assert identities.known == {"a"}

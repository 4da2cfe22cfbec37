"""Accounts are read together, once, and never more than a bounded number; a database that is away is left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import gevent
import pytest
from gevent.event import Event

from relay.ingest import look_ahead
from relay.ingest.look_ahead import LookAhead
from relay.kit.errors import StoreError
from relay.store.accounts import AccountAndRepo
from tests.support.repo import account_did
from tests.support.wait import until

# The accounts are called by letters here.
DIDS = {name: account_did(number) for number, name in enumerate("abcdefghz")}
NAMES = {did: name for name, did in DIDS.items()}


class Memory:
    """The accounts, or the identities: what was read is remembered. Reads wait for `gate`."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.reads: list[list[str]] = []
        self.gate = Event()
        self.gate.set()
        self.fault: Exception | None = None

    def remembers(self, did: str) -> bool:
        return NAMES.get(did) in self.known

    def look_ahead(
        self, dids: Sequence[str], find: Callable[[Sequence[str]], Mapping[str, AccountAndRepo]] | None = None
    ) -> None:
        names = [NAMES[did] for did in dids]
        self.reads.append(names)
        self.gate.wait(60)
        if self.fault is not None:
            raise self.fault
        self.known.update(names)


@pytest.fixture
def identities() -> Memory:
    return Memory()


@pytest.fixture
def accounts() -> Memory:
    return Memory()


@pytest.fixture
def ahead(accounts: Memory, identities: Memory) -> LookAhead:
    return LookAhead(accounts, identities, lambda dids: {})  # type: ignore[arg-type]


def want(ahead: LookAhead, names: str) -> None:
    for name in names:
        ahead.want(DIDS[name])


def waiting(ahead: LookAhead, name: str) -> gevent.Greenlet[[str], None]:
    return gevent.spawn(ahead.wait, DIDS[name])


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
    first = waiting(ahead, "a")
    until(lambda: identities.reads == [["a"]], 30)
    second, third = waiting(ahead, "a"), waiting(ahead, "b")
    gevent.sleep(0)
    assert not (first.ready() or second.ready() or third.ready())
    identities.gate.set()
    gevent.joinall([first, second, third], timeout=60, raise_error=True)
    assert third.ready() and accounts.reads == [["a"], ["b"]]
    ahead.wait(DIDS["a"])
    assert len(accounts.reads) == 2


@pytest.mark.parametrize("fault", [StoreError("store-unavailable"), ValueError("a bug")])
def test_a_read_that_fails_lets_all_go_on(identities: Memory, ahead: LookAhead, fault: Exception) -> None:
    identities.gate.clear()
    first = waiting(ahead, "a")
    until(lambda: identities.reads == [["a"]], 30)
    second = waiting(ahead, "b")
    gevent.sleep(0)
    identities.fault = fault
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
    identities.fault = StoreError("store-unavailable")
    want(ahead, "ab")
    at_rest(ahead)
    assert identities.reads == [["a", "b"]]
    identities.fault = None
    want(ahead, "a")
    at_rest(ahead)
    assert identities.known == {"a"}


@pytest.mark.parametrize(
    "did", ["", "did:plc:\0", "did:plc:" + "x" * 5_000_000, "did:web:a.test:b"], ids=["none", "NUL", "long", "path"]
)
def test_what_cannot_be_an_accounts_did_is_not_asked_for(identities: Memory, ahead: LookAhead, did: str) -> None:
    ahead.want(did)
    assert not ahead._reading
    ahead.wait(did)
    want(ahead, "a")
    at_rest(ahead)
    assert identities.reads == [["a"]]

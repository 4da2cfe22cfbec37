"""The cache over a database that goes away and comes back."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest

from relay.atproto.hostname import Endpoint
from relay.identity import identity as identity_module
from relay.identity.identity import Fact, Identity, IdentityCache, Tombstone
from relay.kit.errors import StoreError
from relay.kit.generations import RecordCache
from relay.store.database import Database
from tests.support.repo import account_did
from tests.support.wait import PATIENCE, until


class Flaky:
    """A real database that can be away, or held up in the middle of a write or read."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.away = False
        self.held = gevent.event.Event()
        self.held.set()
        self.reads = 0
        self.writes = 0

    def read(self, *args: Any) -> Any:
        found = self._checked(self.database.read, *args)
        self.reads += 1
        self.held.wait(5)
        return found

    def write(self, *args: Any) -> Any:
        self.writes += 1
        self._checked(self.database.write, *args)
        self.held.wait(5)

    def _checked(self, work: Any, *args: Any) -> Any:
        if self.away:
            raise StoreError("store-unavailable")
        return work(*args)


@pytest.fixture
def flaky(database: Database) -> Flaky:
    return Flaky(database)


def _cache(flaky: Flaky, capacity: int = 100) -> IdentityCache:
    return IdentityCache(flaky, RecordCache(capacity).identities)  # type: ignore[arg-type]


def _fact(number: int, host: str = "pds.example.com") -> Identity:
    return Identity(account_did(number), Endpoint(host, True), None, None)


def _stored(flaky: Flaky, did: str) -> Fact | None:
    return IdentityCache(flaky.database, RecordCache(10).identities).load(did)


def test_facts_wait_for_a_database_that_is_away(flaky: Flaky) -> None:
    cache = _cache(flaky)
    flaky.away = True
    cache.put(_fact(1))
    cache.put(Tombstone(account_did(2)))
    cache._flush()
    assert cache.get(account_did(1)) == _fact(1)
    assert cache.load(account_did(3)) is None
    flaky.away = False
    cache._flush()
    assert _stored(flaky, account_did(1)) == _fact(1)
    assert _stored(flaky, account_did(2)) == Tombstone(account_did(2))
    assert not cache._pending


def test_a_fact_not_yet_written_is_known_although_memory_has_no_room(flaky: Flaky) -> None:
    cache = _cache(flaky, capacity=2)
    for number in (1, 2, 3):
        cache.put(_fact(number))
    assert cache.get(account_did(1)) is None
    assert cache.load(account_did(1)) == _fact(1)


@pytest.mark.parametrize("days", [-1.5, -0.5, 0.5, 1.5, 400])
def test_what_a_wrong_clock_dated_is_good_for_a_day_at_most(flaky: Flaky, days: float) -> None:
    """`days` ahead of the right time."""
    memory = RecordCache(10).identities
    seconds = [time.time() + days * 86_400]
    cache = IdentityCache(flaky, memory, clock=lambda: seconds[0])  # type: ignore[arg-type]
    cache.put(_fact(1))
    cache._flush()
    assert cache.get(account_did(1)) == _fact(1)
    seconds[0] -= days * 86_400
    found = _fact(1) if abs(days) < 1 else None
    assert cache.get(account_did(1)) == cache.load(account_did(1)) == found
    # Old, but what was last known.
    assert cache.stored(account_did(1)) == _fact(1)


def test_what_a_wrong_clock_dated_ahead_gives_way_to_what_is_known_now(flaky: Flaky) -> None:
    ahead = IdentityCache(flaky, RecordCache(10).identities, clock=lambda: time.time() + 40_000)  # type: ignore[arg-type]
    ahead.put(_fact(1))
    ahead._flush()
    cache = _cache(flaky)
    cache.put(_fact(1, "new.example.com"))
    cache._flush()
    assert _stored(flaky, account_did(1)) == _fact(1, "new.example.com")


def test_a_fact_that_waits_for_the_database_is_good_for_no_longer_than_others(flaky: Flaky) -> None:
    seconds = [time.time()]
    cache = IdentityCache(flaky, RecordCache(10).identities, clock=lambda: seconds[0])  # type: ignore[arg-type]
    flaky.away = True
    cache.put(_fact(1))
    cache._flush()
    seconds[0] += identity_module.GOOD_FOR_SECONDS + 1
    assert cache.get(account_did(1)) is cache.load(account_did(1)) is None
    assert cache.stored(account_did(1)) == _fact(1)


def test_what_is_in_memory_was_known_also_while_the_database_is_away(flaky: Flaky) -> None:
    cache = _cache(flaky)
    cache.put(_fact(1))
    cache._flush()
    flaky.away = True
    assert cache.stored(account_did(1)) == _fact(1)


@pytest.mark.parametrize("code", [b"\x03" + bytes(33), b"\x01" + bytes(32), b""])
def test_a_key_that_this_version_cannot_read_spoils_no_other_row(flaky: Flaky, code: bytes) -> None:
    cache = _cache(flaky)
    cache.put(_fact(1))
    cache.put(_fact(2))
    cache._flush()
    flaky.database.write(
        lambda tx: tx.execute("UPDATE identity SET key_code = ? WHERE did = ?", (code, account_did(1)))
    )
    fresh = _cache(flaky)
    fresh.look_ahead([account_did(1), account_did(2)])
    assert fresh.get(account_did(2)) == _fact(2)
    assert fresh.get(account_did(1)) is fresh.load(account_did(1)) is None


def test_when_the_table_agreed_with_the_directory_is_believed_if_it_can_be(flaky: Flaky) -> None:
    old = IdentityCache(flaky, RecordCache(10).identities, clock=lambda: time.time() - 1e6)  # type: ignore[arg-type]
    old.put(_fact(1))
    old.put(Tombstone("did:web:example.com"))
    old._flush()
    for primed, good in ((time.time() + 1e8, False), (time.time(), True), (0.0, False)):
        cache = _cache(flaky)
        cache._primed_until = primed
        assert (cache.load(account_did(1)) is not None) is good
        assert cache.load("did:web:example.com") is None, "the directory knows nothing of that one"


def test_what_waits_is_bounded_and_the_oldest_goes_first(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_module, "MAX_PENDING", 10)
    cache = _cache(flaky)
    flaky.away = True
    for number in range(25):
        cache.put(_fact(number))
    cache.put(_fact(16))
    flaky.away = False
    cache._flush()
    known = [number for number in range(25) if _stored(flaky, account_did(number))]
    assert known == list(range(15, 25))


def test_what_changes_while_it_is_written_is_written_again(flaky: Flaky) -> None:
    cache = _cache(flaky)
    cache._flush()
    for number in (1, 2, 3):
        cache.put(_fact(number))
    flaky.held.clear()
    flush = gevent.spawn(cache._flush)
    with gevent.Timeout(60):
        while not flaky.writes or _stored(flaky, account_did(3)) is None:
            gevent.sleep(0.001)
    cache.put(_fact(1, "new.example.com"))
    cache.forget(account_did(2))
    flaky.held.set()
    flush.join(5)
    assert _stored(flaky, account_did(1)) == _fact(1, "new.example.com")
    assert _stored(flaky, account_did(2)) is None
    assert _stored(flaky, account_did(3)) == _fact(3)
    assert not cache._pending


def test_an_old_row_read_slowly_does_not_bring_back_what_was_forgotten(flaky: Flaky) -> None:
    before = _cache(flaky)
    before.put(_fact(1))
    before._flush()
    cache = _cache(flaky)
    flaky.held.clear()
    reading = gevent.spawn(cache.load, account_did(1))
    gevent.sleep(0.05)
    cache.forget(account_did(1))
    flaky.held.set()
    assert reading.get(timeout=60) is None
    assert cache.get(account_did(1)) is None


def test_stopping_writes_what_waits(flaky: Flaky) -> None:
    cache = _cache(flaky)
    cache.start()
    for number in range(2500):
        cache.put(_fact(number))
    cache.stop()
    assert _stored(flaky, account_did(0)) == _fact(0)
    assert _stored(flaky, account_did(2499)) == _fact(2499)


def test_stopping_does_not_wait_for_a_database_that_hangs(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_module, "DRAIN_SECONDS", 0.1)
    cache = _cache(flaky)
    cache.start()
    cache.put(_fact(1))
    flaky.held.clear()
    begun = time.monotonic()
    cache.stop()
    assert time.monotonic() - begun < 2 * PATIENCE


def test_what_is_looked_for_ahead_is_in_memory(flaky: Flaky) -> None:
    before = _cache(flaky)
    before.put(_fact(1))
    before.put(Tombstone(account_did(2)))
    before._flush()
    cache = _cache(flaky)
    cache.look_ahead([account_did(number) for number in (1, 2, 3)])
    flaky.away = True
    assert cache.get(account_did(1)) == _fact(1)
    assert cache.get(account_did(2)) == Tombstone(account_did(2))
    assert cache.get(account_did(3)) is None


def test_what_is_looked_for_ahead_is_not_kept_when_it_is_outdated(flaky: Flaky) -> None:
    old = time.time() - identity_module.GOOD_FOR_SECONDS - 1
    before = IdentityCache(flaky, RecordCache(10).identities, clock=lambda: old)  # type: ignore[arg-type]
    before.put(_fact(1))
    before._flush()
    cache = _cache(flaky)
    cache.look_ahead([account_did(1)])
    assert cache.get(account_did(1)) is None


def _put_while_it_is_read(flaky: Flaky) -> tuple[IdentityCache, gevent.Greenlet[..., None]]:
    """A cache that has got a newer fact than the one that is on its way from SQL, and who reads that."""
    before = _cache(flaky)
    before.put(_fact(1))
    before._flush()
    cache = _cache(flaky)
    cache._flush()
    flaky.held.clear()
    reads = flaky.reads
    reading = gevent.spawn(cache.look_ahead, [account_did(1)])
    until(lambda: flaky.reads > reads, 30)
    cache.put(_fact(1, "new.example.com"))
    return cache, reading


def test_what_was_written_while_it_is_looked_for_ahead_is_newer(flaky: Flaky) -> None:
    cache, reading = _put_while_it_is_read(flaky)
    cache._db = flaky.database
    cache._flush()
    assert not cache._pending
    flaky.held.set()
    reading.get(timeout=60)
    assert cache.get(account_did(1)) == _fact(1, "new.example.com")


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_changes_while_it_is_looked_for_ahead_is_newer(flaky: Flaky, forgotten: bool) -> None:
    cache, reading = _put_while_it_is_read(flaky)
    if forgotten:
        cache.forget(account_did(1))
    # SQL has learnt it by the time at which what was read arrives.
    writing = gevent.spawn(cache._flush)
    until(lambda: _stored(flaky, account_did(1)) != _fact(1), 30)
    flaky.held.set()
    reading.get(timeout=60)
    writing.get(timeout=60)
    assert not cache._pending
    assert cache.get(account_did(1)) == (None if forgotten else _fact(1, "new.example.com"))

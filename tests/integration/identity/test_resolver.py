"""The resolver with a real database and HTTP servers on loopback: one lookup per DID, within every bound."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from relay.identity import directory, lookup, negatives
from relay.identity import resolver as resolver_module
from relay.identity.identity import Identity
from relay.identity.resolver import Resolver
from relay.kit.errors import IdentityError
from relay.kit.generations import RecordCache
from relay.net.http import GuardedHttp
from relay.store.database import Database
from tests.support.plc import FakePlc
from tests.support.repo import SigningKey, account_did, did_document
from tests.support.strangers import RawServer, reply
from tests.support.wait import until

KEY = SigningKey.create()
OTHER_KEY = SigningKey.create(seed=2)
DID = account_did(1)
MakeResolver = Callable[..., Resolver]


@pytest.fixture
def plc() -> Iterator[FakePlc]:
    with FakePlc() as directory:
        directory.documents[DID] = did_document(DID, KEY, "https://pds.example.com", "alice.example.com")
        yield directory


@pytest.fixture(autouse=True)
def no_second_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the directory does not know is refused at once, but where a test is about that."""
    monkeypatch.setattr(negatives, "YOUNG_SECONDS", ())


@pytest.fixture
def make(database: Database, plc: FakePlc) -> Iterator[MakeResolver]:
    """Resolvers on the same database and directory, stopped at the end."""
    made: list[Resolver] = []

    def make(cache_size: int = 10_000) -> Resolver:
        http = GuardedHttp("test (atproto-relay)", allow_insecure=True)
        resolver = Resolver(database, http, plc_hosts=(plc.url,), memory=RecordCache(cache_size))
        resolver.start()
        made.append(resolver)
        return resolver

    yield make
    for resolver in made:
        resolver.stop()


class Clock:
    """The time by which answers are remembered and the directory is left alone; it passes when a test says so."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That of the resolvers which are made after it; what they do not wait for by it they do quickly."""
    clock = Clock()
    monkeypatch.setattr("relay.identity.negatives.Negatives.__init__.__defaults__", (clock,))
    monkeypatch.setattr("relay.identity.directory.Directory.__init__.__defaults__", (clock,))
    monkeypatch.setattr(directory, "FIRST_PAUSE_SECONDS", 0.001)
    # A busy machine may take more than eight seconds for an answer on loopback, which would count as a failure.
    monkeypatch.setattr(directory, "REQUEST_SECONDS", 60.0)
    monkeypatch.setattr(lookup, "LOOKUP_SECONDS", 60.0)
    return clock


@pytest.fixture
def resolver(make: MakeResolver) -> Resolver:
    return make()


def _refreshed(resolver: Resolver, did: str, host: str = "pds.example.com") -> Identity | None:
    resolver.refresh(did, host)
    return resolver.known.cached(did)


def _reason(resolver: Resolver, did: str, host: str = "", *, refresh: bool = False) -> str:
    with pytest.raises(IdentityError) as error:
        _refreshed(resolver, did, host) if refresh else resolver.resolve(did, host)
    return error.value.reason


def _rotate(plc: FakePlc, key: SigningKey = OTHER_KEY, pds: str = "https://pds.example.com") -> None:
    plc.documents[DID] = did_document(DID, key, pds, "alice.example.com")


def _key(identity: Identity | None) -> bytes:
    assert identity is not None and identity.key is not None
    return identity.key.compressed


# What is asked, and what is remembered


def test_an_identity_is_looked_up_once_and_then_in_memory(resolver: Resolver, plc: FakePlc) -> None:
    assert resolver.known.cached(DID) is None
    identity = resolver.resolve(DID)
    assert identity.pds is not None
    assert (identity.did, identity.pds.url, identity.handle) == (DID, "https://pds.example.com", "alice.example.com")
    assert _key(identity) == KEY.public
    assert resolver.known.cached(DID) == identity
    assert resolver.resolve(DID) == identity
    assert plc.asked[DID] == 1


def test_many_callers_share_one_lookup(resolver: Resolver, plc: FakePlc) -> None:
    plc.latency = 0.1
    callers = [gevent.spawn(resolver.resolve, DID) for _ in range(500)]
    gevent.joinall(callers, raise_error=True)
    assert {_key(caller.value) for caller in callers} == {KEY.public}
    assert plc.asked[DID] == 1


def test_a_restart_asks_nobody_for_what_is_known(make: MakeResolver, plc: FakePlc) -> None:
    dids = [account_did(number) for number in range(300)]
    for did in dids:
        plc.documents[did] = did_document(did, KEY, "https://pds.example.com")
    plc.tombstones.add(account_did(1000))
    before = make()
    gevent.joinall([gevent.spawn(before.resolve, did) for did in dids], raise_error=True)
    assert _reason(before, account_did(1000)) == "did-tombstone"
    known = {did: before.known.cached(did) for did in dids}
    before.stop()
    plc.asked.clear()

    after = make()
    gevent.joinall([gevent.spawn(after.resolve, did) for did in dids], raise_error=True)
    assert {did: after.known.cached(did) for did in dids} == known
    assert _reason(after, account_did(1000)) == "did-tombstone"
    assert plc.requests == 0


def test_what_memory_has_no_room_for_comes_from_the_table(make: MakeResolver, plc: FakePlc) -> None:
    resolver = make(cache_size=10)
    dids = [account_did(number) for number in range(100)]
    for did in dids:
        plc.documents[did] = did_document(did, KEY, "https://pds.example.com")
    for _ in range(2):
        for did in dids:
            assert _key(resolver.resolve(did)) == KEY.public
    assert plc.requests == len(dids)


def test_a_fact_is_good_for_a_day_from_its_resolution_also_across_a_restart(
    make: MakeResolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.time()
    now = begun
    monkeypatch.setattr("relay.identity.identity.IdentityCache.__init__.__defaults__", (lambda: now,))
    first = make()
    first.resolve(DID)
    first.stop()
    now = begun + 23 * 3600
    second = make()
    second.resolve(DID)
    assert plc.asked[DID] == 1
    now = begun + 24 * 3600 + 1
    assert second.known.cached(DID) is None
    second.resolve(DID)
    assert plc.asked[DID] == 2
    assert second.known.cached(DID) is not None


# Changes


def _document_then(plc: FakePlc, change: Callable[[FakePlc], None]) -> dict[str, Any]:
    """The old document, which gives way to the new one as soon as it was sent."""

    class Once(dict[str, Any]):
        def items(self) -> Any:
            change(plc)
            return super().items()

    return Once(did_document(DID, KEY, "https://pds.example.com"))


def test_a_refresh_goes_past_memory_and_table(resolver: Resolver, plc: FakePlc) -> None:
    resolver.resolve(DID)
    _rotate(plc)
    assert _key(resolver.resolve(DID)) == KEY.public
    assert _key(_refreshed(resolver, DID)) == OTHER_KEY.public
    assert _key(resolver.known.cached(DID)) == OTHER_KEY.public


def test_refreshes_amid_a_lookup_have_it_asked_again(resolver: Resolver, plc: FakePlc) -> None:
    plc.latency = 0.1
    resolver.resolve(DID)
    callers = [gevent.spawn(_refreshed, resolver, DID, f"host{number}") for number in range(5)]
    with gevent.Timeout(60):
        while plc.asked[DID] < 2:
            gevent.sleep(0.001)
    plc.documents[DID] = _document_then(plc, _rotate)
    late = gevent.spawn(_refreshed, resolver, DID)
    gevent.joinall([*callers, late], raise_error=True)
    assert _key(late.value) == OTHER_KEY.public
    assert _key(resolver.known.cached(DID)) == OTHER_KEY.public
    assert plc.asked[DID] <= 2 + resolver_module.ASKED_AGAIN


def test_hosts_that_ask_while_the_table_is_read_cost_no_lookup(make: MakeResolver, plc: FakePlc) -> None:
    before = make()
    before.resolve(DID)
    before.stop()
    resolver = make()
    gevent.joinall([gevent.spawn(resolver.resolve, DID, f"host{number}") for number in range(3)], raise_error=True)
    assert plc.asked[DID] == 1


def test_a_refresh_joins_no_reading_of_the_table(make: MakeResolver, plc: FakePlc) -> None:
    """Not even one for another host: what the table says must not come after what the network does."""
    before = make()
    before.resolve(DID)
    before.stop()
    _rotate(plc)
    resolver = make()
    reading, refreshing = gevent.spawn(resolver.resolve, DID), gevent.spawn(_refreshed, resolver, DID)
    reading.get()
    assert _key(refreshing.get()) == OTHER_KEY.public
    assert _key(resolver.known.cached(DID)) == OTHER_KEY.public


def test_refreshes_of_one_did_are_limited_and_then_answered_from_memory(resolver: Resolver, plc: FakePlc) -> None:
    resolver.resolve(DID)
    for _ in range(50):
        assert _key(_refreshed(resolver, DID, "evil.example.com")) == KEY.public
    assert plc.asked[DID] == 1 + resolver_module.REFRESHES_PER_DID
    # The account's own host is not hindered by what another one did.
    _rotate(plc)
    assert _key(_refreshed(resolver, DID)) == OTHER_KEY.public


def test_refreshes_that_one_host_causes_are_limited(
    make: MakeResolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "REFRESHES_PER_HOST", 10)
    monkeypatch.setattr(resolver_module, "REFRESH_HOST_SECONDS", 60.0)
    resolver = make()
    dids = [account_did(number) for number in range(30)]
    for did in dids:
        plc.documents[did] = did_document(did, KEY, "https://pds.example.com")
        resolver.resolve(did)
    plc.asked.clear()
    for did in dids:
        resolver.refresh(did, "evil.example.com")
    assert plc.requests == 10
    resolver.refresh(dids[0], "good.example.com")
    assert plc.requests == 11


def test_refreshes_of_one_did_take_nothing_from_the_others_of_its_host(
    make: MakeResolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "REFRESHES_PER_HOST", 10)
    monkeypatch.setattr(resolver_module, "REFRESH_HOST_SECONDS", 600.0)
    resolver = make()
    other = account_did(2)
    plc.documents[other] = did_document(other, KEY, "https://pds.example.com")
    resolver.resolve(other)
    for _ in range(50):
        resolver.refresh(DID, "pds.example.com")
    assert plc.asked[DID] == resolver_module.REFRESHES_PER_DID
    plc.documents[other] = did_document(other, OTHER_KEY, "https://pds.example.com")
    assert _key(_refreshed(resolver, other)) == OTHER_KEY.public


# Failures


def test_facts_about_missing_dids_are_remembered_for_a_while(clock: Clock, make: MakeResolver, plc: FakePlc) -> None:
    resolver = make()
    unknown, large = account_did(2), account_did(3)
    plc.documents[large] = b"{" + b" " * 70_000
    expected = {unknown: "did-not-found", large: "did-document"}
    for did, reason in expected.items():
        assert _reason(resolver, did) == reason
        assert _reason(resolver, did) == reason
        with pytest.raises(IdentityError) as error:
            resolver.known.cached(did)
        assert error.value.reason == reason
        assert plc.asked[did] == 1
    clock.now += negatives.REFUSED_SECONDS + 1
    plc.documents[unknown] = did_document(unknown, KEY, "https://pds.example.com")
    assert resolver.known.cached(unknown) is None
    assert _key(resolver.resolve(unknown)) == KEY.public


@pytest.mark.parametrize("did", ["did:web:com", "did:web:example.com:user", "did:example:1"])
def test_a_did_that_nobody_can_be_asked_about_is_known_not_to_be(resolver: Resolver, did: str) -> None:
    assert _reason(resolver, did) == "did-not-found"
    with pytest.raises(IdentityError):
        resolver.known.cached(did)


def test_a_refresh_asks_past_a_failure(resolver: Resolver, plc: FakePlc) -> None:
    did = account_did(2)
    assert _reason(resolver, did) == "did-not-found"
    plc.documents[did] = did_document(did, KEY, "https://pds.example.com")
    assert _key(_refreshed(resolver, did)) == KEY.public


def test_a_tombstone_takes_the_place_of_an_identity(resolver: Resolver, plc: FakePlc) -> None:
    resolver.resolve(DID)
    plc.tombstones.add(DID)
    assert _reason(resolver, DID, refresh=True) == "did-tombstone"
    with pytest.raises(IdentityError):
        resolver.known.cached(DID)


def test_a_document_without_key_or_host_is_an_identity_without_them(resolver: Resolver, plc: FakePlc) -> None:
    plc.documents[DID] = {"id": DID}
    assert resolver.resolve(DID) == Identity(DID, None, None, None)
    assert resolver.known.cached(DID) == Identity(DID, None, None, None)


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_a_document_is_bounded(resolver: Resolver, plc: FakePlc, size: int) -> None:
    document = did_document(DID, KEY, "https://pds.example.com")
    document["filler"] = ""
    document["filler"] = "x" * (size - len(json.dumps(document)))
    plc.documents[DID] = document
    if size <= 65_536:
        assert _key(resolver.resolve(DID)) == KEY.public
    else:
        assert _reason(resolver, DID) == "did-document"


def test_no_answer_is_no_fact(clock: Clock, make: MakeResolver, plc: FakePlc) -> None:
    resolver = make()
    plc.failure_rate = 1.0
    assert _reason(resolver, DID) == "did-unavailable"
    asked = plc.asked[DID]
    assert 2 <= asked <= 5
    assert resolver.known.cached(DID) is None
    # Nobody hammers meanwhile.
    assert _reason(resolver, DID) == "did-unavailable"
    assert plc.asked[DID] == asked
    plc.failure_rate = 0.0
    clock.now += negatives.UNANSWERED_SECONDS + 1
    assert _key(resolver.resolve(DID)) == KEY.public


def test_a_failed_refresh_leaves_what_is_known(
    resolver: Resolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.identity.directory.FIRST_PAUSE_SECONDS", 0.001)
    resolver.resolve(DID)
    plc.failure_rate = 1.0
    assert _reason(resolver, DID, refresh=True) == "did-unavailable"
    assert _key(resolver.known.cached(DID)) == KEY.public


def test_a_directory_that_asks_for_a_pause_gets_it(resolver: Resolver, plc: FakePlc) -> None:
    plc.throttled, plc.retry_after = 1, "1"
    begun = time.monotonic()
    first = gevent.spawn(resolver.resolve, DID)
    with gevent.Timeout(60):
        while not plc.asked[DID]:
            gevent.sleep(0.001)
    gevent.sleep(0.05)
    other = account_did(2)
    plc.documents[other] = did_document(other, KEY, "https://pds.example.com")
    assert _key(resolver.resolve(other)) == KEY.public
    assert first.get(timeout=60)
    assert time.monotonic() - begun >= 0.95
    assert plc.requests == 3


def test_a_pause_is_kept_for_as_long_as_is_reasonable_and_loses_nothing_that_waits(
    resolver: Resolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait: none of them uses up a turn of the time after the pause."""
    monkeypatch.setattr(directory, "LONGEST_HOLD_SECONDS", 3.0)
    dids = [account_did(number) for number in range(2, 1500)]
    for did in dids:
        plc.documents[did] = did_document(did, KEY, "https://pds.example.com")
    plc.throttled, plc.retry_after = 1, "3600"
    begun = time.monotonic()
    first = gevent.spawn(resolver.resolve, DID)
    (address,) = resolver._lookup._directory._addresses
    until(lambda: address.held_until)
    callers = [gevent.spawn(resolver.resolve, did, host=f"host{n % 5}") for n, did in enumerate(dids)]
    gevent.sleep(0.5)
    assert plc.requests == 1
    gevent.joinall([first, *callers], timeout=60, raise_error=True)
    assert all(caller.successful() for caller in callers)
    assert time.monotonic() - begun >= 3.0


@pytest.mark.parametrize(
    "status", ["302 Found", "403 Forbidden", "501 Not Implemented", "520 Unknown", "529 Overloaded"]
)
def test_only_three_answers_are_facts(clock: Clock, make: MakeResolver, plc: FakePlc, status: str) -> None:
    resolver = make()
    resolver.resolve(DID)
    plc.instead = status
    assert _reason(resolver, DID, refresh=True) == "did-unavailable"
    assert _reason(resolver, account_did(2)) == "did-unavailable"
    assert _key(resolver.known.cached(DID)) == KEY.public
    plc.instead = None
    clock.now += max(negatives.UNANSWERED_SECONDS, directory.FIRST_CLOSED_SECONDS) + 1
    plc.documents[account_did(2)] = did_document(account_did(2), KEY, "https://pds.example.com")
    assert _key(resolver.resolve(account_did(2))) == KEY.public


@pytest.mark.parametrize("length", [65_536, 65_537, 200_000])
def test_however_long_it_is_only_three_answers_are_facts(
    clock: Clock, make: MakeResolver, plc: FakePlc, length: int
) -> None:
    """What stands in front of an overloaded directory says so at length."""
    resolver = make()
    resolver.resolve(DID)
    plc.instead, plc.page = "503 Service Unavailable", b"<" * length
    assert _reason(resolver, DID, refresh=True) == "did-unavailable"
    assert _reason(resolver, account_did(2)) == "did-unavailable"
    plc.instead = "404 Not Found"
    clock.now += max(negatives.UNANSWERED_SECONDS, directory.FIRST_CLOSED_SECONDS) + 1
    assert _reason(resolver, account_did(2)) == "did-not-found"


@pytest.mark.parametrize(
    "body",
    [b"<html>sign in</html>", b"<html>" + bytes(70_000), b"[" * 60_000, b"{}", b'{"id":"did:plc:other"}'],
)
def test_a_page_in_place_of_the_document_is_not_a_fact(
    clock: Clock, resolver: Resolver, plc: FakePlc, body: bytes
) -> None:
    plc.documents[account_did(2)] = body
    assert _reason(resolver, account_did(2)) == "did-unavailable"


def test_what_is_stored_stands_while_the_network_cannot_tell(
    clock: Clock, make: MakeResolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old it is; what is to be refreshed waits instead."""
    begun = time.time()
    now = begun
    monkeypatch.setattr("relay.identity.identity.IdentityCache.__init__.__defaults__", (lambda: now,))
    before = make()
    before.resolve(DID)
    before.stop()
    now = begun + 30 * 24 * 3600
    resolver = make()
    plc.failure_rate = 1.0
    assert resolver.known.cached(DID) is None
    assert _key(resolver.resolve(DID)) == KEY.public
    assert _key(resolver.known.cached(DID)) == KEY.public
    assert _reason(resolver, DID, refresh=True) == "did-unavailable"
    plc.failure_rate = 0.0
    _rotate(plc)
    now += resolver_module.AWAY_SECONDS
    clock.now += max(negatives.UNANSWERED_SECONDS, directory.FIRST_CLOSED_SECONDS) + 1
    assert _key(resolver.resolve(DID)) == OTHER_KEY.public


def test_that_a_known_did_is_gone_is_believed_the_second_time(clock: Clock, resolver: Resolver, plc: FakePlc) -> None:
    resolver.resolve(DID)
    document = plc.documents.pop(DID)
    assert _key(_refreshed(resolver, DID)) == KEY.public
    plc.documents[DID] = document
    assert _key(_refreshed(resolver, DID)) == KEY.public
    del plc.documents[DID]
    clock.now += negatives.BELIEVED_AFTER_SECONDS
    # It was there in between: this is the first time again.
    assert _key(_refreshed(resolver, DID)) == KEY.public
    clock.now += negatives.BELIEVED_AFTER_SECONDS
    assert _reason(resolver, DID, refresh=True) == "did-not-found"
    with pytest.raises(IdentityError):
        resolver.known.cached(DID)


def test_a_did_that_the_directory_learns_of_late_is_asked_for_again(
    make: MakeResolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "YOUNG_SECONDS", (0.2, 0.5, 1.0))
    monkeypatch.setattr(negatives, "YOUNG_PER_HOST", 2)
    monkeypatch.setattr(negatives, "YOUNG_HOST_SECONDS", 3600.0)
    resolver = make()
    late, never, third = (account_did(number) for number in (2, 3, 4))
    callers = [gevent.spawn(resolver.resolve, late, host="pds") for _ in range(3)]
    with gevent.Timeout(60):
        while plc.asked[late] < 2:
            gevent.sleep(0.01)
    assert not any(caller.ready() for caller in callers)
    plc.documents[late] = did_document(late, KEY, "https://pds.example.com")
    gevent.joinall(callers, timeout=60, raise_error=True)
    assert plc.asked[late] == 3
    begun = time.monotonic()
    assert _reason(resolver, never, host="pds") == "did-not-found"
    assert time.monotonic() - begun > 0.9 and plc.asked[never] == 4
    # Made-up DIDs of one host do not cost the directory four questions each.
    assert _reason(resolver, third, host="pds") == "did-not-found"
    assert plc.asked[third] == 1
    resolver.stop()


def test_a_did_that_many_hosts_ask_for_takes_a_few_places_and_is_asked_for_once(
    make: MakeResolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "PLC_WORKERS", 1)
    resolver, wanted = make(), account_did(2)
    plc.documents[wanted] = did_document(wanted, KEY, "https://pds.example.com")
    hosts = [f"host{number}" for number in range(3 * resolver_module.HOSTS_PER_LOOKUP)]
    with plc.holding():
        first = gevent.spawn(resolver.resolve, DID, host="first")
        until(lambda: plc.asked[DID] == 1)
        callers = [gevent.spawn(resolver.resolve, wanted, host=host) for host in hosts]
        until(lambda: len(resolver._plc_lookups._shares) >= 1 + resolver_module.HOSTS_PER_LOOKUP)
        gevent.sleep(0.1)
        assert len(resolver._plc_lookups._shares) == 1 + resolver_module.HOSTS_PER_LOOKUP
    gevent.joinall([first, *callers], timeout=60, raise_error=True)
    until(lambda: not resolver._plc_lookups._shares)
    assert plc.asked[wanted] == 1


def test_a_did_that_several_hosts_ask_for_is_given_as_much_time(
    make: MakeResolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it rests, its turn comes in the lines of the other hosts as well."""
    monkeypatch.setattr(negatives, "YOUNG_SECONDS", (1.0, 2.0, 3.0))
    monkeypatch.setattr(resolver_module, "PLC_WORKERS", 1)
    resolver, late = make(), account_did(2)
    with plc.holding():
        busy = gevent.spawn(resolver.resolve, DID)
        until(lambda: plc.asked[DID])
        callers = [gevent.spawn(resolver.resolve, late, host=f"pds{number}") for number in range(6)]
        gevent.sleep(0.1)
    until(lambda: plc.asked[late])
    gevent.sleep(0.3)
    assert plc.asked[late] == 1
    plc.documents[late] = did_document(late, KEY, "https://pds.example.com")
    gevent.joinall([busy, *callers], timeout=60, raise_error=True)
    assert plc.asked[late] == 2


def test_a_did_web_whose_host_serves_it_late_is_asked_for_again(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "YOUNG_SECONDS", (0.1, 0.2, 0.3))
    answers = [reply(status="404 Not Found"), reply(status="404 Not Found")]

    def answer(sock: Any) -> None:
        document = did_document(_web_did(server), KEY, "https://pds.example.com")
        sock.sendall(answers.pop() if answers else reply(json.dumps(document).encode()))

    with RawServer(answer) as server:
        assert _key(resolver.resolve(_web_did(server), host="pds")) == KEY.public
        assert len(server.requests) == 3


def test_another_address_is_asked_while_one_is_away_or_asks_for_a_pause(
    clock: Clock, database: Database, plc: FakePlc
) -> None:
    with FakePlc() as mirror:
        mirror.documents = plc.documents
        dids = [account_did(number) for number in range(2, 30)]
        for did in dids:
            plc.documents[did] = did_document(did, KEY, "https://pds.example.com")
        resolver = Resolver(
            database, GuardedHttp("test", True), plc_hosts=(plc.url, mirror.url), memory=RecordCache(100)
        )
        resolver.start()
        resolver.resolve(dids[0])
        assert (plc.requests, mirror.requests) == (1, 0)
        plc.throttled, plc.retry_after = 1, "1"
        for did in dids[1:10]:
            resolver.resolve(did)
        assert (plc.requests, mirror.requests) == (2, 9)
        clock.now += 1
        plc.failure_rate = 1.0
        for did in dids[10:25]:
            resolver.resolve(did)
        # It is closed by then: not each lookup asks it first.
        assert plc.requests == 2 + directory.CLOSE_AFTER and mirror.requests == 24
        plc.failure_rate = 0.0
        clock.now += directory.FIRST_CLOSED_SECONDS
        resolver.resolve(dids[25])
        assert plc.requests == 3 + directory.CLOSE_AFTER and mirror.requests == 24
        resolver.stop()


def test_what_a_mirror_does_not_have_yet_is_asked_of_the_next_address(database: Database, plc: FakePlc) -> None:
    with FakePlc() as mirror:
        resolver = Resolver(
            database, GuardedHttp("test", True), plc_hosts=(mirror.url, plc.url), memory=RecordCache(100)
        )
        resolver.start()
        assert _key(resolver.resolve(DID)) == KEY.public
        assert (mirror.asked[DID], plc.asked[DID]) == (1, 1)
        assert _reason(resolver, account_did(2)) == "did-not-found"
        assert (mirror.asked[account_did(2)], plc.asked[account_did(2)]) == (1, 1)
        # The only one that can be asked is believed.
        plc.failure_rate = 1.0
        assert _reason(resolver, account_did(3)) == "did-not-found"
        mirror.tombstones.add(account_did(4))
        assert _reason(resolver, account_did(4)) == "did-tombstone"
        resolver.stop()


def test_a_pause_of_one_address_is_not_sat_out_where_another_may_be_tried(
    clock: Clock, database: Database, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakePlc() as mirror:
        mirror.documents = plc.documents
        resolver = Resolver(
            database, GuardedHttp("test", True), plc_hosts=(plc.url, mirror.url), memory=RecordCache(100)
        )
        resolver.start()
        plc.failure_rate = mirror.failure_rate = 1.0
        for number in range(2, 2 + directory.CLOSE_AFTER):
            assert _reason(resolver, account_did(number)) == "did-unavailable"
        plc.throttled, plc.retry_after = 1000, "30"
        clock.now += directory.FIRST_CLOSED_SECONDS
        asked, failed = plc.requests, mirror.requests

        def wait(seconds: float) -> None:
            """Time passes as the directory waits, and the mirror is well again once it has failed once more."""
            if mirror.requests > failed:
                mirror.failure_rate = 0.0
            clock.now += seconds
            gevent.sleep(0)

        monkeypatch.setattr(directory, "gevent", SimpleNamespace(sleep=wait))
        assert _key(resolver.resolve(DID)) == KEY.public
        assert (plc.requests, mirror.requests) == (asked + 1, failed + 2)
        resolver.stop()


def test_a_directory_that_is_away_is_tried_by_one_at_a_time(clock: Clock, resolver: Resolver, plc: FakePlc) -> None:
    plc.failure_rate = 1.0
    callers = [gevent.spawn(_reason, resolver, account_did(number), host="pds") for number in range(2, 30)]
    gevent.joinall(callers, timeout=60, raise_error=True)
    asked = plc.requests
    assert _reason(resolver, account_did(50)) == "did-unavailable" and plc.requests == asked
    clock.now += directory.FIRST_CLOSED_SECONDS
    assert _reason(resolver, account_did(51)) == "did-unavailable" and plc.requests == asked + 1


def test_a_directory_that_is_away_is_no_fact(database: Database, plc: FakePlc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.identity.directory.FIRST_PAUSE_SECONDS", 0.001)
    url = plc.url
    plc.stop()
    resolver = Resolver(database, GuardedHttp("test", True), plc_hosts=(url,), memory=RecordCache(10))
    resolver.start()
    assert _reason(resolver, DID) == "did-unavailable"
    resolver.stop()


def test_stopping_tells_all_who_wait(resolver: Resolver, plc: FakePlc) -> None:
    plc.latency = 10
    callers = [gevent.spawn(_reason, resolver, account_did(number)) for number in range(150)]
    until(lambda: plc.at_once)
    resolver.stop()
    gevent.joinall(callers, timeout=30)
    assert {caller.value for caller in callers} == {"did-unavailable"}


def test_the_wait_of_a_caller_is_bounded(resolver: Resolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "WAIT_SECONDS", 0.1)
    with plc.holding():
        assert _reason(resolver, DID) == "did-unavailable"
        until(lambda: plc.asked[DID])
    monkeypatch.setattr(resolver_module, "WAIT_SECONDS", 30)
    assert _key(resolver.resolve(DID)) == KEY.public
    assert plc.asked[DID] == 1


# Strangers


def _web_did(server: RawServer) -> str:
    return f"did:web:localhost%3A{server.port}"


def test_did_web_is_asked_at_its_host(resolver: Resolver) -> None:
    def answer(sock: Any) -> None:
        sock.sendall(reply(json.dumps(did_document(_web_did(server), KEY, "https://pds.example.com")).encode()))

    with RawServer(answer) as server:
        assert _key(resolver.resolve(_web_did(server))) == KEY.public
    assert server.requests[0].startswith(b"GET /.well-known/did.json HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(status="302 Found", headers=["Location: http://localhost/did.json"]), "did-unavailable"),
        (reply(status="404 Not Found"), "did-not-found"),
        (reply(status="410 Gone"), "did-not-found"),
        (reply(status="403 Forbidden"), "did-unavailable"),
        (reply(bytes(65_537)), "did-document"),
        (reply(bytes(65_537), status="404 Not Found"), "did-not-found"),
        (reply(bytes(65_537), status="503 Service Unavailable"), "did-unavailable"),
        (reply(b"<html>"), "did-document"),
    ],
)
def test_what_a_did_web_host_may_answer(resolver: Resolver, answer: bytes, reason: str) -> None:
    with RawServer(lambda sock: sock.sendall(answer)) as server:
        assert _reason(resolver, _web_did(server)) == reason
        assert len(server.requests) == (lookup.WEB_TRIES if reason == "did-unavailable" else 1)


def test_a_trickling_host_holds_its_share_of_workers_only(
    resolver: Resolver, plc: FakePlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.identity.resolver.locate", _locate_leniently)
    at_once = most = 0

    def trickle(sock: Any) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while True:
                gevent.sleep(0.05)
                sock.sendall(b"{")
        finally:
            at_once -= 1

    def quick(sock: Any) -> None:
        sock.sendall(reply(json.dumps(did_document(_web_did(good), KEY, "https://pds.example.com")).encode()))

    with RawServer(trickle) as bad, RawServer(quick) as good:
        stuck = [gevent.spawn(_reason, resolver, f"{_web_did(bad)}:user{number}", host="bad") for number in range(100)]
        with gevent.Timeout(60):
            while at_once < resolver_module.WEB_WORKERS_PER_HOST:
                gevent.sleep(0.005)
        begun = time.monotonic()
        # Also one that the bad host had asked for before.
        stuck.append(gevent.spawn(_reason, resolver, _web_did(good), host="bad"))
        gevent.sleep(0.01)
        assert _key(resolver.resolve(_web_did(good), host="good")) == KEY.public
        assert _key(resolver.resolve(DID)) == KEY.public
        # A worker is held for as long as a request may take.
        assert time.monotonic() - begun < lookup.WEB_REQUEST_SECONDS
        gevent.sleep(0.2)
        assert most == resolver_module.WEB_WORKERS_PER_HOST
        gevent.killall(stuck)
        resolver.stop()


def _locate_leniently(did: str, *, allow_insecure: bool) -> lookup.Target:
    """As `locate`, for many DIDs at one host too, which this network does not have."""
    return lookup.locate(did.partition(":user")[0], allow_insecure=allow_insecure)


def test_private_hosts_are_not_asked_in_public(database: Database, plc: FakePlc) -> None:
    resolver = Resolver(database, GuardedHttp("test", False), plc_hosts=(plc.url,), memory=RecordCache(10))
    resolver.start()
    with RawServer(lambda sock: sock.sendall(reply(b"{}"))) as server:
        assert _reason(resolver, _web_did(server)) == "did-not-found"
        assert server.connections == 0
    # The directory is the operator's word: it may be on this machine.
    assert _key(resolver.resolve(DID)) == KEY.public
    resolver.stop()


# At once


@pytest.mark.slow
def test_two_thousand_new_dids_at_once_with_a_slow_and_failing_directory(database: Database, plc: FakePlc) -> None:
    plc.latency, plc.failure_rate = 0.1, 0.05
    dids = [account_did(number) for number in range(2000)]
    for did in dids:
        plc.documents[did] = did_document(did, KEY, "https://pds.example.com")
    resolver = Resolver(database, GuardedHttp("test", True), plc_hosts=(plc.url,), memory=RecordCache(10_000))
    resolver.start()
    callers = [gevent.spawn(resolver.resolve, did) for did in dids for _ in range(2)]
    gevent.joinall(callers, timeout=60, raise_error=True)
    assert all(caller.successful() for caller in callers)
    assert all(_key(resolver.known.cached(did)) == KEY.public for did in dids)
    failed = plc.requests - len(dids)
    assert 40 < failed < 200
    assert max(plc.asked.values()) <= 5
    assert plc.most_at_once <= resolver_module.PLC_WORKERS
    resolver.stop()

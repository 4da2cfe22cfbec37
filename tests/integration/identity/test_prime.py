"""Priming from an export, resumed and repeated, and a resolver that lives off it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relay.identity import prime as prime_module
from relay.identity.identity import GOOD_FOR_SECONDS
from relay.identity.prime import POSITION, prime
from relay.identity.resolver import Resolver
from relay.kit.errors import HttpError, IdentityError
from relay.kit.generations import RecordCache
from relay.net.http import GuardedHttp
from relay.store import identities, installation
from relay.store.database import Database
from relay.store.open import open_database
from tests.support.plc import FakePlc
from tests.support.relay_process import RELAY
from tests.support.repo import SigningKey, account_did, did_document

KEY = SigningKey.create()
OTHER_KEY = SigningKey.create("p256")
BEGUN = datetime(2023, 1, 1, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prime_module, "PAGES_PER_SECOND", 10_000.0)
    monkeypatch.setattr(prime_module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(prime_module, "PAGE_LINES", 10)


@pytest.fixture
def plc() -> Iterator[FakePlc]:
    with FakePlc() as directory:
        yield directory


@pytest.fixture
def http() -> GuardedHttp:
    return GuardedHttp("test (atproto-relay)", allow_insecure=False)


def _text(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _line(did: str, created: float, operation: dict[str, Any], nullified: bool = False) -> dict[str, Any]:
    return {"did": did, "operation": operation, "cid": "bafy", "nullified": nullified, "createdAt": _text(created)}


def _operation(key: SigningKey = KEY, pds: str = "https://pds.example.com") -> dict[str, Any]:
    return {
        "type": "plc_operation",
        "verificationMethods": {"atproto": f"did:key:{key.multikey}"},
        "alsoKnownAs": ["at://alice.example.com"],
        "services": {"atproto_pds": {"type": "AtprotoPersonalDataServer", "endpoint": pds}},
    }


def _row(database: Database, did: str) -> identities.IdentityRow:
    return database.read(identities.load_many, [did])[did]


def test_operations_become_rows_and_the_last_one_wins(database: Database, http: GuardedHttp, plc: FakePlc) -> None:
    dids = [account_did(number) for number in range(5)]
    legacy = {
        "type": "create",
        "signingKey": f"did:key:{KEY.multikey}",
        "handle": "bob.test.com",
        "service": "bsky.social",
    }
    plc.export = [
        _line(dids[0], BEGUN, legacy),
        _line(dids[1], BEGUN + 1, _operation()),
        _line(dids[2], BEGUN + 2, _operation()),
        _line(dids[3], BEGUN + 3, _operation()),
        _line(dids[1], BEGUN + 4, _operation(OTHER_KEY, "https://new.example.com")),
        _line(dids[2], BEGUN + 5, {"type": "plc_tombstone"}),
        _line(dids[3], BEGUN + 6, _operation(OTHER_KEY), nullified=True),
        _line(dids[4], BEGUN + 7, {"type": "something-new"}),
    ]
    prime(database, http, plc.url)
    first = _row(database, dids[0])
    assert (first.pds, first.key, first.handle) == ("https://bsky.social", KEY.public, "bob.test.com")
    second = _row(database, dids[1])
    assert (second.pds, second.curve, second.key) == ("https://new.example.com", "p256", OTHER_KEY.public)
    assert _row(database, dids[2]).tombstone
    assert _row(database, dids[3]).key == KEY.public
    assert database.read(identities.load_many, [dids[4]]) == {}


def test_pages_that_end_amid_one_moment_lose_nothing(database: Database, http: GuardedHttp, plc: FakePlc) -> None:
    dids = [account_did(number) for number in range(45)]
    # Seven operations a moment, ten lines a page.
    plc.export = [_line(did, BEGUN + number // 7, _operation()) for number, did in enumerate(dids)]
    prime(database, http, plc.url)
    assert len(database.read(identities.load_many, dids)) == len(dids)


def test_a_stopped_run_goes_on_where_it_was(database: Database, http: GuardedHttp, plc: FakePlc) -> None:
    dids = [account_did(number) for number in range(40)]
    plc.export = [_line(did, BEGUN + number, _operation()) for number, did in enumerate(dids)]

    class Stopped(Exception):
        pass

    def stop_after_two(reached: float, lines: int) -> None:
        if lines >= 20:
            raise Stopped

    with pytest.raises(Stopped):
        prime(database, http, plc.url, stop_after_two)
    assert len(database.read(identities.load_many, dids)) == 19
    seen: list[tuple[float, int]] = []
    prime(database, http, plc.url, lambda reached, lines: seen.append((reached, lines)))
    assert len(database.read(identities.load_many, dids)) == 40
    assert seen[0] == (BEGUN + 27, 10)
    # Later only what is new is read.
    plc.export.append(_line(dids[0], BEGUN + 100, _operation(OTHER_KEY)))
    assert prime(database, http, plc.url) <= 2
    assert _row(database, dids[0]).key == OTHER_KEY.public


def test_only_a_finished_run_makes_old_rows_good(database: Database, http: GuardedHttp, plc: FakePlc) -> None:
    dids = [account_did(number) for number in range(30)]
    plc.export = [_line(did, BEGUN + number, _operation()) for number, did in enumerate(dids)]
    plc.documents = {did: did_document(did, OTHER_KEY, "https://pds.example.com") for did in dids}

    def resolved_key(did: str) -> bytes:
        resolver = Resolver(database, http, plc_hosts=(plc.url,), memory=RecordCache(100))
        resolver.start()
        try:
            identity = resolver.resolve(did)
        finally:
            resolver.stop()
        assert identity.key is not None
        return identity.key.compressed

    def stop(reached: float, lines: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        prime(database, http, plc.url, stop)
    # An operation of years ago, and maybe not the last one: not to be trusted yet.
    assert resolved_key(dids[0]) == OTHER_KEY.public
    assert plc.asked[dids[0]] == 1
    prime(database, http, plc.url)
    # What was resolved later than the operation stays.
    assert resolved_key(dids[0]) == OTHER_KEY.public
    assert resolved_key(dids[1]) == KEY.public
    assert plc.asked[dids[0]] == 1
    assert plc.asked[dids[1]] == 0
    # A day after, the directory is asked again.
    database.write(installation.put, "identity_primed_until", str(time.time() - GOOD_FOR_SECONDS - 1))
    assert resolved_key(dids[2]) == OTHER_KEY.public


def test_a_primed_tombstone_is_a_tombstone(database: Database, http: GuardedHttp, plc: FakePlc) -> None:
    plc.export = [_line(account_did(1), BEGUN, {"type": "plc_tombstone"})]
    prime(database, http, plc.url)
    resolver = Resolver(database, http, plc_hosts=(plc.url,), memory=RecordCache(100))
    resolver.start()
    with pytest.raises(IdentityError) as error:
        resolver.resolve(account_did(1))
    assert error.value.reason == "did-tombstone"
    assert plc.asked[account_did(1)] == 0
    resolver.stop()


def test_the_export_of_a_live_directory_ends_near_now(database: Database, http: GuardedHttp, plc: FakePlc) -> None:
    plc.export = [_line(account_did(number), time.time() - 30 + number, _operation()) for number in range(9)]
    assert prime(database, http, plc.url) == 9
    assert plc.asked["export"] == 1


def test_a_directory_that_fails_now_and_then_is_insisted_on(
    database: Database, http: GuardedHttp, plc: FakePlc
) -> None:
    plc.export = [_line(account_did(number), BEGUN + number, _operation()) for number in range(100)]
    plc.failure_rate = 0.3
    plc.throttled, plc.retry_after = 1, "0"
    prime(database, http, plc.url)
    assert len(database.read(identities.load_many, [account_did(number) for number in range(100)])) == 100


@pytest.mark.parametrize(
    "line",
    [
        {"did": account_did(1)},
        {"did": account_did(1), "operation": [], "nullified": False, "createdAt": _text(BEGUN)},
        {"did": account_did(1), "operation": {"type": "plc_operation"}, "nullified": False, "createdAt": _text(BEGUN)},
        {"did": account_did(1), "operation": {"type": "x"}, "nullified": False, "createdAt": "x" + _text(BEGUN)},
    ],
)
def test_an_export_that_is_none_stops_the_run(
    database: Database, http: GuardedHttp, plc: FakePlc, line: dict[str, Any]
) -> None:
    plc._page = lambda query: json.dumps(line).encode()  # type: ignore[method-assign]
    with pytest.raises(HttpError) as error:
        prime(database, http, plc.url)
    assert error.value.reason == "http-broken"
    assert database.read(installation.get, POSITION) is None


def test_an_export_that_stands_still_stops_the_run(database: Database, http: GuardedHttp, plc: FakePlc) -> None:
    plc.export = [_line(account_did(1), BEGUN, _operation())]
    page = plc._page({"count": ["10"]})
    plc._page = lambda query: page  # type: ignore[method-assign]
    with pytest.raises(HttpError):
        prime(database, http, plc.url)


def test_the_command_tells_how_far_it_is_and_goes_on_where_it_stopped(database_url: str, plc: FakePlc) -> None:
    plc.export = [_line(account_did(number), BEGUN + number, _operation()) for number in range(30)]

    def operations_read() -> int:
        environment = {**os.environ, "DATABASE_URL": database_url, "RELAY_PLC_HOST": plc.url}
        command: list[str | Path] = [RELAY, "prime-identities"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        label, total = done.stdout.splitlines()
        assert label == "operations" and total.endswith(f" operations read from {plc.url}")
        return int(total.split()[0])

    # The last moment is read again, as a page may end between operations of one moment.
    assert operations_read() == 31
    plc.export.append(_line(account_did(30), BEGUN + 30, _operation(OTHER_KEY)))
    assert operations_read() <= 4
    database = open_database(database_url, max_connections=1)
    assert [_row(database, account_did(number)).curve for number in (0, 29, 30)] == ["k256", "k256", "p256"]
    database.close()

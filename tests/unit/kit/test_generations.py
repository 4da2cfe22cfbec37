"""What is kept in memory of accounts: two records a DID, always the half used last, and never more than fits."""

from __future__ import annotations

import random

from relay.kit.generations import SHARDS, SMALLEST_SHARD, RecentSet, RecordCache
from tests.support.repo import account_did

DID = account_did(1)


def test_the_two_records_of_a_did_are_kept_apart() -> None:
    cache = RecordCache(10)
    cache.identities.put(DID, b"identity")
    assert cache.accounts.get(DID) is None
    cache.accounts.put(DID, b"account")
    cache.identities.put(DID, b"another identity")
    assert (cache.identities.get(DID), cache.accounts.get(DID)) == (b"another identity", b"account")
    cache.identities.drop(DID)
    assert (cache.identities.get(DID), cache.accounts.get(DID)) == (None, b"account")
    cache.accounts.drop(DID)
    assert len(cache) == 0


def test_records_may_be_long() -> None:
    cache = RecordCache(10)
    cache.identities.put("did:web:example.com", bytes(65535))
    cache.accounts.put("did:web:example.com", bytes(70_000))
    assert cache.identities.get("did:web:example.com") == bytes(65535)
    assert cache.accounts.get("did:web:example.com") == bytes(70_000)


def test_what_was_used_last_is_kept_and_the_rest_goes() -> None:
    cache = RecordCache(20)
    for number in range(1000):
        cache.accounts.put(account_did(number), b"%d" % number)
        # In use all the time, so never among the oldest.
        assert cache.accounts.get(account_did(0)) == b"0"
        assert len(cache) <= 20
    kept = [number for number in range(990, 1000) if cache.accounts.get(account_did(number)) is not None]
    assert len(kept) >= 9
    assert cache.accounts.get(account_did(500)) is None


def test_many_shards_hold_no_more_than_their_capacity_and_agree_with_a_dict() -> None:
    capacity = SHARDS * SMALLEST_SHARD
    cache, chance = RecordCache(capacity), random.Random(1)
    newest: dict[int, bytes] = {}
    for _ in range(2 * capacity):
        number = int(capacity * chance.random())
        newest[number] = chance.randbytes(8)
        cache.accounts.put(account_did(number), newest[number])
    assert capacity / 3 < len(cache) <= capacity
    found = {number: cache.accounts.get(account_did(number)) for number in newest}
    assert all(record is None or record == newest[number] for number, record in found.items())


def test_a_key_is_new_once() -> None:
    known = RecentSet(1000)
    assert [known.add(pair) for pair in ((1, "a"), (1, "b"), (2, "a"), (1, "a"))] == [True, True, True, False]
    known.discard((1, "a"))
    known.discard((9, "never"))
    assert known.add((1, "a"))


def test_keys_that_are_used_stay_and_the_rest_goes() -> None:
    known = RecentSet(100)
    for uid in range(10_000):
        known.add((uid, "a"))
        assert not known.add((0, "a")) or uid == 0
        assert len(known) <= 200
    assert known.add((1, "a"))
    assert not known.add((9_999, "a"))


def test_a_key_is_forgotten_also_in_the_older_generation() -> None:
    known = RecentSet(10)
    for uid in range(12):
        known.add((uid, "a"))
    known.discard((3, "a"))
    assert known.add((3, "a"))

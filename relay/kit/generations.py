"""Bounded memory of what was used most recently, in two generations: when the newer one is full, the older is dropped.

`RecordCache` keeps two packed records under one key per DID: `app` builds it, `identity` keeps what a DID document says
in one part, `ingest` the account's state in the other. A million accounts cost what their bytes cost: no object per
field, and nothing for the garbage collector to walk. `RecentSet` keeps keys alone. Must not know what is in a record.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from relay.kit import metrics

SHARDS = 64
SMALLEST_SHARD = 1024

# The same prefix hundreds of thousands of times is not kept.
_COMMON = "did:plc:"

# Beside their bytes the parts have the length of the first one.
_LENGTH_BYTES = 2


class _Shard:
    """Two generations of entries: whatever is used goes into the newer, and the older goes when that one is full.

    Small shards, since the older generation is freed and the newer one re-hashed in one go.
    """

    __slots__ = ("newer", "older")

    def __init__(self) -> None:
        self.newer: dict[str, bytes] = {}
        self.older: dict[str, bytes] = {}


class RecordCache:
    """DID to two records. At most `capacity` DIDs are kept (two at least), and always the half used last."""

    def __init__(self, capacity: int) -> None:
        count = max(1, min(SHARDS, capacity // SMALLEST_SHARD))
        self._shards = [_Shard() for _ in range(count)]
        self._generation = max(1, capacity // count // 2)
        self.identities = RecordPart(self, first=True)
        self.accounts = RecordPart(self, first=False)
        metrics.show_bound("accounts", lambda: len(self), 2 * self._generation * count)

    def find(self, did: str) -> bytes | None:
        """The entry of `did`, which counts as used now."""
        key = did.removeprefix(_COMMON)
        shard = self._shards[hash(key) % len(self._shards)]
        entry = shard.newer.get(key)
        if entry is None:
            entry = shard.older.pop(key, None)
            if entry is not None:
                self._put(shard, key, entry)
        return entry

    def keep(self, did: str, entry: bytes) -> None:
        """Keep `entry` for `did`, in place of any other."""
        key = did.removeprefix(_COMMON)
        shard = self._shards[hash(key) % len(self._shards)]
        shard.older.pop(key, None)
        self._put(shard, key, entry)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Every DID with its entry, also while entries come and go; none of that counts as use."""
        for shard in self._shards:
            for key, entry in (*shard.older.items(), *shard.newer.items()):
                yield key if key.startswith("did:") else f"{_COMMON}{key}", entry

    def forget(self, did: str) -> None:
        """Keep nothing of `did`."""
        key = did.removeprefix(_COMMON)
        shard = self._shards[hash(key) % len(self._shards)]
        shard.newer.pop(key, None)
        shard.older.pop(key, None)

    def _put(self, shard: _Shard, key: str, entry: bytes) -> None:
        if len(shard.newer) >= self._generation and key not in shard.newer:
            shard.older, shard.newer = shard.newer, {}
        shard.newer[key] = entry

    def __len__(self) -> int:
        return sum(len(shard.newer) + len(shard.older) for shard in self._shards)


class RecordPart:
    """One of the two records of each DID; empty is the same as not there."""

    __slots__ = ("_cache", "_first")

    def __init__(self, cache: RecordCache, *, first: bool) -> None:
        self._cache = cache
        self._first = first

    def get(self, did: str) -> bytes | None:
        """The record of `did`."""
        entry = self._cache.find(did)
        if entry is None:
            return None
        cut = _LENGTH_BYTES + int.from_bytes(entry[:_LENGTH_BYTES])
        return (entry[_LENGTH_BYTES:cut] if self._first else entry[cut:]) or None

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Every DID that has a record, with it."""
        for did, entry in self._cache.items():
            cut = _LENGTH_BYTES + int.from_bytes(entry[:_LENGTH_BYTES])
            if record := entry[_LENGTH_BYTES:cut] if self._first else entry[cut:]:
                yield did, record

    def put(self, did: str, record: bytes) -> None:
        """Keep `record`; one of the first part has 65,535 bytes at most."""
        entry = self._cache.find(did)
        cut = _LENGTH_BYTES + (0 if entry is None else int.from_bytes(entry[:_LENGTH_BYTES]))
        if self._first:
            other = b"" if entry is None else entry[cut:]
            entry = len(record).to_bytes(_LENGTH_BYTES) + record + other
        else:
            entry = (bytes(_LENGTH_BYTES) if entry is None else entry[:cut]) + record
        self._cache.keep(did, entry)

    def drop(self, did: str) -> None:
        """Keep no record of `did` in this part."""
        if self.get(did) is None:
            return
        self.put(did, b"")
        if self._cache.find(did) == bytes(_LENGTH_BYTES):
            self._cache.forget(did)


class RecentSet:
    """The keys used most recently: at least `capacity` of them, at most twice as many, 70 bytes each.

    A key is kept as its hash, 64 bits of a keyed function that nobody outside can aim at; one new key in 10^13 would be
    taken for a known one.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._newer: set[int] = set()
        self._older: set[int] = set()

    def add(self, item: Hashable) -> bool:
        """Remember `item`; True when it was not known."""
        key = hash(item)
        if key in self._newer:
            return False
        if len(self._newer) >= self._capacity:
            self._older, self._newer = self._newer, set()
        self._newer.add(key)
        return key not in self._older

    def discard(self, item: Hashable) -> None:
        """Forget `item`."""
        key = hash(item)
        self._newer.discard(key)
        self._older.discard(key)

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

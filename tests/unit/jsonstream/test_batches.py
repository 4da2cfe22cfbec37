"""What a batch makes for its consumers, and keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from relay.atproto import drisl, frames
from relay.atproto.cid import Cid
from relay.eventlog.record import Record
from relay.jsonstream.batches import JOINED_SHARE, MAX_JOINED, Batch
from relay.jsonstream.encodings import PLAIN
from relay.jsonstream.filters import Filter, of_query
from relay.jsonstream.messages import CONVERTED_OF_COMMIT, CONVERTED_OF_RECORD, REPEATED_BYTES
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Chunk, chunk_of
from tests.support.blocks import link
from tests.support.repo import RepoBuilder, SigningKey, account_did, create

POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"
ACCOUNTS = 12


@pytest.fixture(scope="module")
def chunk() -> Chunk:
    """A like and a post of each account, in one commit."""
    key, records = SigningKey.create("k256"), []
    for number in range(ACCOUNTS):
        repo = RepoBuilder(account_did(number), key)
        frame = repo.commit(create(f"{POST}/1", {"text": str(number)}), create(f"{LIKE}/1", {})).frame(number + 1)
        records.append(Record(number + 1, number * 10 + 1, number + 1, 1, number + 1, 1, 0, 0, frame))
    return chunk_of(records, ACCOUNTS, Suppressions())


def count(frames: bytes) -> int:
    return frames.count(b'"kind":"commit"')


def test_accounts_that_are_wanted(chunk: Chunk) -> None:
    batch = Batch(chunk)
    dids = [account_did(number) for number in (0, 5, ACCOUNTS + 1)]
    assert count(batch.frames(of_query([], dids, None), PLAIN)) == 4
    assert count(batch.frames(of_query([LIKE], dids, None), PLAIN)) == 2
    assert batch.frames(of_query([], [account_did(ACCOUNTS + 1)], None), PLAIN) == b""
    assert count(batch.frames_after(1, 0, of_query([], dids, None), PLAIN)) == 2


def test_what_is_joined_is_made_once(chunk: Chunk) -> None:
    batch = Batch(chunk)
    first = batch.frames(of_query([POST], [], None), PLAIN)
    assert batch.frames(of_query([POST], [], None), PLAIN) is first


def test_what_is_kept_is_within_the_size_of_the_batch(chunk: Chunk) -> None:
    """Consumers may have as many filters as they like, each of which lets nearly everything through."""
    batch = Batch(chunk)
    for number in range(10 * MAX_JOINED):
        frames = batch.frames(of_query([POST, LIKE, f"com.example.n{number}"], [], str(10_000 + number)), PLAIN)
        assert count(frames) == 2 * ACCOUNTS
    kept = sum(len(frames) + wanted.size for (wanted, _), frames in batch._joined.items())
    assert 0 < kept <= JOINED_SHARE * len(chunk.data) < batch.size
    many = Batch(chunk)
    for number in range(10 * MAX_JOINED):
        assert many.frames(Filter(kinds=frozenset(), max_bytes=number), PLAIN) == b""
    assert len(many._joined) <= MAX_JOINED


def test_an_event_that_cannot_be_read_costs_no_other(chunk: Chunk) -> None:
    """An edge passes on what it only peeked into."""
    frame = drisl.encode({"op": 1, "t": "#identity"}) + drisl.encode({"did": account_did(0), "seq": 2, "handle": 1})
    assert isinstance(frames.peek(frame), frames.Peeked)
    records = [Record(seq, seq * 10, 1, 0, 0, 1, 0, 0, chunk.frame(chunk.events[seq - 1])) for seq in (1, 2, 3)]
    records[1] = records[1]._replace(kind=frames.Kind.IDENTITY, frame=frame)
    batch = Batch(chunk_of(records, 3, Suppressions()))
    assert count(batch.frames(of_query([], [], None), PLAIN)) == 4


def commit_of(count: int, record: Any) -> Chunk:
    """One commit, in which so many operations have the same record."""
    return commit_with([record] * count)


def commit_with(records: Sequence[Any]) -> Chunk:
    """One commit that creates these."""
    repo = RepoBuilder(account_did(0), SigningKey.create("k256"))
    frame = repo.commit(*(create(f"{POST}/{number:03d}", record) for number, record in enumerate(records))).frame(1)
    return chunk_of([Record(1, 1, 1, 1, 1, 1, 0, 0, frame)], 1, Suppressions())


def test_a_commit_does_not_become_a_thousand_times_as_long() -> None:
    """A block is in it once, however many operations have it for their record."""
    chunk = commit_of(200, {"text": "\x01" * 20_000})
    frames = Batch(chunk).frames(of_query([], [], None), PLAIN)
    assert 1 < count(frames) < 200
    # A control character has six in JSON.
    assert len(frames) < 7 * (REPEATED_BYTES + len(chunk.data))
    alike = commit_of(200, {"text": "x" * 250})
    assert count(Batch(alike).frames(of_query([], [], None), PLAIN)) == 200


def test_a_record_without_a_form_in_json_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(commit_of(3, {"number": float("nan")}))
    read: list[bytes] = []
    load = drisl.load

    def counted(data: bytes, **options: Any) -> Any:
        read.append(data)
        return load(data, **options)

    monkeypatch.setattr(drisl, "load", counted)
    for number in range(5):
        assert batch.frames(of_query([], [], str(1000 + number)), PLAIN) == b""
    assert len(read) == 3


@pytest.mark.parametrize(
    "item", [b"", link(b""), link(Cid.of_raw(b"a blob"))], ids=["bytes", "links to nothing", "links"]
)
def test_a_record_of_very_many_links_or_byte_strings_is_left_out(item: Any) -> None:
    """Each takes as long as dozens of other items."""
    for operations, maximum in (1, CONVERTED_OF_COMMIT), (2, CONVERTED_OF_COMMIT // 2), (200, CONVERTED_OF_RECORD):
        for items, passed in (maximum, operations), (maximum + 1, 0):
            chunk = commit_with([{"n": number, "v": [item] * items} for number in range(operations)])
            assert count(Batch(chunk).frames(of_query([], [], None), PLAIN)) == passed


@pytest.mark.parametrize(
    "head", [b"\xd8\x2a", b"\xd9\x00\x2a", b"\xda\0\0\0\x2a", b"\xdb" + bytes(7) + b"\x2a"], ids=repr
)
def test_too_many_links_are_not_even_read(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    items = CONVERTED_OF_COMMIT + 1
    batch = Batch(commit_of(1, b"\xa1\x61v\x99" + items.to_bytes(2) + (head + b"\x41\0") * items))
    monkeypatch.setattr(drisl, "load", None)
    assert batch.frames(of_query([], [], None), PLAIN) == b""

"""What a batch makes for its consumers, and keeps."""

from __future__ import annotations

import pytest

from relay.eventlog.record import Record
from relay.jsonstream.batches import JOINED_SHARE, MAX_JOINED, Batch
from relay.jsonstream.encodings import PLAIN
from relay.jsonstream.filters import Filter, of_query
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Chunk, chunk_of
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

"""What the JSON stream costs: the messages of a batch by who wants them, and filtered consumers on top."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from relay.eventlog.record import Record
from relay.jsonstream.batches import Batch
from relay.jsonstream.encodings import PLAIN
from relay.jsonstream.filters import Filter, of_query
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Chunk, chunk_of
from tests.support.repo import RepoBuilder, SigningKey, account_did, create

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"
# What the network has of each, about.
MIX = (LIKE,) * 6 + (POST,) * 2 + (FOLLOW,) * 2
EVENTS = 20
TIMES = 200


@pytest.fixture(scope="module")
def chunk() -> Chunk:
    """The events of a group commit at 500 a second, more or less: repos of a few hundred records."""
    records = []
    for number in range(EVENTS):
        repo = RepoBuilder(account_did(number), SigningKey.create("k256"))
        repo.commit(*(create(f"{MIX[n % 10]}/{n:013d}", {"text": str(n)}) for n in range(200)))
        record = {
            "$type": MIX[number % 10],
            "text": "a post of the usual length, as people write them " * 3,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "subject": {"uri": "at://did:plc:x/app.bsky.feed.post/3k", "cid": "bafyrei" + "a" * 52},
        }
        frame = repo.commit(create(f"{MIX[number % 10]}/3lrnqk7zwz222", record)).frame(number + 1)
        records.append(Record(number + 1, number + 1, number + 1, 1, number + 1, 1, 0, 0, frame))
    return chunk_of(records, EVENTS, Suppressions())


def cpu_us(work: Callable[[], object]) -> float:
    """Microseconds of CPU for each event."""
    started = time.process_time()
    for _ in range(TIMES):
        work()
    return (time.process_time() - started) / TIMES / EVENTS * 1e6


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("of everything", [Filter()]),
        ("of posts", [of_query([POST], [], None)]),
        ("of one account", [of_query([], [account_did(3)], None)]),
        (
            "200, each of another ten accounts",
            [of_query([], [account_did(n * 10 + m) for m in range(10)], None) for n in range(200)],
        ),
        ("200, of 20 different collections", [of_query([f"{POST}{n % 20}", LIKE], [], None) for n in range(200)]),
    ],
    ids=lambda value: value if type(value) is str else "",
)
def test_a_batch(chunk: Chunk, name: str, wanted: list[Filter]) -> None:
    def work() -> None:
        batch = Batch(chunk)
        for one in wanted:
            batch.frames(one, PLAIN)

    print(f"\nconsumers {name}: {cpu_us(work):.1f} us an event")

"""Events as PDS software other than the reference writes them: the sound ones pass as they came, in known fields."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.atproto.frames import Commit
from tests.support.blocks import car, cbor, cid_of, link
from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.repo import CommitEvent, RepoBuilder, create, delete, update
from tests.support.wait import until

POST = "app.bsky.feed.post"
Writer = Callable[[RepoBuilder], CommitEvent]


def with_its_own_clock_and_chain(repo: RepoBuilder) -> CommitEvent:
    """arroba: revs count from the beginning of 1970, commits link to the last one, `since` is null."""
    repo.micros += 1
    before = repo.head
    event = repo.commit(create(f"{POST}/3kaaa", {}), commit_fields={"prev": link(before)}, at_us=repo.micros)
    event.fields |= {"since": None, "time": "2026-01-01T00:00:00+00:00"}
    return event


def with_the_commit_last(repo: RepoBuilder) -> CommitEvent:
    """tranquil-pds: blocks by their ids, the commit last, the one before along with it."""
    before, before_block = repo.head, repo.head_block
    event = repo.commit(create(f"{POST}/3kaaa", {}), delete(f"{POST}/3k000"))
    commit = event.blocks.pop(event.root)
    event.blocks = {**dict(sorted({**event.blocks, before: before_block}.items())), event.root: commit}
    event.fields["blobs"] = [link(b"\x01\x55\x12\x20" + bytes(32))]
    return event


def with_what_it_deleted(repo: RepoBuilder) -> CommitEvent:
    """cocoon: the block of a deleted record, nanoseconds in the local zone, an empty `since`."""
    event = repo.commit(delete(f"{POST}/3k001"))
    record = cbor({"n": 1})
    assert event.ops[0]["prev"] == link(cid_of(record))
    event.blocks[cid_of(record)] = record
    event.fields |= {"since": "", "time": "2026-01-01T00:00:00.123456789+05:30"}
    return event


def with_fields_of_old(repo: RepoBuilder) -> CommitEvent:
    """millipds and others: `prev` of the event null, as that of a creation."""
    event = repo.commit(create(f"{POST}/3kaaa", {}), update(f"{POST}/3k002", {"n": 2}))
    event.fields["prev"] = event.ops[0]["prev"] = None
    return event


def with_fields_left_out(repo: RepoBuilder) -> CommitEvent:
    """blue-nile-pds: a deletion without `cid`."""
    event = repo.commit(delete(f"{POST}/3k003"))
    del event.ops[0]["cid"]
    for name in ("rebase", "tooBig", "blobs", "since"):
        del event.fields[name]
    return event


@pytest.mark.parametrize(
    "writer",
    [
        with_its_own_clock_and_chain,
        with_the_commit_last,
        with_what_it_deleted,
        with_fields_of_old,
        with_fields_left_out,
    ],
)
def test_a_sound_commit_passes_as_one(path: EventPath, pds: FakePds, writer: Writer) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    if writer is with_its_own_clock_and_chain:
        repo.micros = 1_000
    path.put(host, repo.commit(*[create(f"{POST}/3k{number:03}", {"n": number}) for number in range(30)]).frame(1))
    event = writer(repo)
    path.put(host, event.frame(2))
    path.put(host, repo.commit(create(f"{POST}/3kzzz", {})).frame(3))
    passed = path.logged(3)
    assert [type(one) for one in passed] == [Commit] * 3
    assert isinstance(passed[1], Commit)
    assert passed[1].blocks == car([event.root], event.blocks)
    until(lambda: host.cursor.position == 3)
    path.stream.projector.flush()
    assert not path.stored(repo.did)[1].desynchronized

"""Verification of events: a sound one passes, and each way to spoil one is refused by name."""

from collections.abc import Callable
from typing import Any

import pytest

from relay.atproto import commit, drisl, frames
from relay.atproto.commit import parse_commit, verify_commit, verify_sync
from relay.atproto.crypto import PublicKey, parse_did_key
from relay.atproto.errors import CommitError, ProtocolError
from relay.atproto.syntax import tid_micros
from tests.support.budget import assert_cheap
from tests.support.repo import (
    EPOCH_US,
    CommitEvent,
    RepoBuilder,
    SigningKey,
    account_did,
    cbor,
    cid_of,
    create,
    delete,
    link,
    tid,
    update,
)

DID = account_did(1)
NOW = EPOCH_US + 60_000_000
PATHS = [f"app.bsky.feed.post/{tid(EPOCH_US + number)}" for number in range(40)]

CURVES = pytest.mark.parametrize("curve", ["k256", "p256"])


def public(key: SigningKey) -> PublicKey:
    return parse_did_key(key.did_key)


def repository(curve: str = "k256") -> RepoBuilder:
    repo = RepoBuilder(DID, SigningKey.create(curve))
    repo.commit(*[create(path, {"n": number}) for number, path in enumerate(PATHS[:30])])
    return repo


def batch(repo: RepoBuilder, **options: Any) -> CommitEvent:
    """A commit with two operations of each kind."""
    return repo.commit(
        create(PATHS[30], {"new": 1}),
        create(PATHS[31], {"new": 2}),
        update(PATHS[3], {"changed": 1}),
        update(PATHS[4], {"changed": 2}),
        delete(PATHS[8]),
        delete(PATHS[9]),
        **options,
    )


def decoded(event: CommitEvent) -> frames.Commit:
    result = frames.decode(event.frame(7))
    assert isinstance(result, frames.Commit)
    return result


def refusal(event: CommitEvent, key: SigningKey, now_us: int = NOW, **options: Any) -> str:
    with pytest.raises(ProtocolError) as caught:
        verify_commit(decoded(event), public(key), now_us, **options)
    return caught.value.reason


@CURVES
def test_a_sound_commit(curve: str) -> None:
    repo = repository(curve)
    event = decoded(batch(repo))
    assert verify_commit(event, public(repo.key), NOW)[:4] == (repo.head, repo.data, True, None)


def test_the_first_commit_has_nothing_to_invert_against() -> None:
    repo = RepoBuilder(DID, SigningKey.create())
    event = decoded(repo.commit(create(PATHS[0], {})))
    assert event.prev_data is None
    assert verify_commit(event, public(repo.key), NOW)[:4] == (repo.head, repo.data, False, None)


def test_a_commit_without_operations() -> None:
    repo = repository()
    before = repo.data
    event = decoded(repo.commit())
    assert repo.data == before
    assert verify_commit(event, public(repo.key), NOW).inverted


@CURVES
def test_a_sync(curve: str) -> None:
    repo = repository(curve)
    event = frames.decode(repo.sync_frame(3))
    assert isinstance(event, frames.Sync)
    assert verify_sync(event, public(repo.key), NOW)[:4] == (repo.head, repo.data, False, None)
    for other, reason in ((SigningKey.create(curve, 2), "signature-invalid"), (repo.key, "rev-future")):
        with pytest.raises(ProtocolError) as caught:
            verify_sync(event, public(other), NOW if other is not repo.key else 0)
        assert caught.value.reason == reason


def test_parse_commit_gives_the_signed_bytes() -> None:
    repo = repository()
    parsed = parse_commit(repo.head_block)
    assert parsed[:4] == (DID, repo.rev, repo.data, None)
    unsigned = {"did": DID, "version": 3, "data": link(repo.data), "rev": repo.rev, "prev": None}
    assert parsed.unsigned == cbor(unsigned)
    with_prev = cbor({**unsigned, "prev": link(repo.data), "sig": parsed.sig})
    assert parse_commit(with_prev).prev == repo.data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "commit-version"),
        ({"version": 4}, "commit-version"),
        ({"version": "3"}, "commit-malformed"),
        ({"did": account_did(2)}, "commit-did"),
        ({"did": "did:web:" + "a" * 300 + ".com"}, "commit-did"),
        ({"did": 5}, "commit-malformed"),
        ({"rev": tid(EPOCH_US)}, "commit-rev"),
        ({"rev": "x"}, "commit-malformed"),
        ({"data": None}, "commit-malformed"),
        ({"data": "bafy"}, "commit-malformed"),
        ({"prev": False}, "commit-malformed"),
        ({"extra": 1}, "commit-malformed"),
        ({"sig": b""}, "commit-malformed"),
        ({"sig": bytes(63)}, "commit-malformed"),
        ({"sig": bytes(64)}, "signature-invalid"),
        ({"sig": b"\xff" * 64}, "signature-invalid"),
        ({"sig": "x" * 64}, "commit-malformed"),
        ({"data": link(cid_of(b"nowhere"))}, "mst-node-missing"),
    ],
    ids=repr,
)
@CURVES
def test_an_odd_commit_object(curve: str, change: dict[str, Any], reason: str) -> None:
    repo = repository(curve)
    assert refusal(batch(repo, commit_fields=change), repo.key) == reason


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\xa0",
        cbor([]),
        cbor({"did": DID}),
        repository().head_block + b"\0",
        repository().head_block.replace(b"cdid\x78\x20", b"cdid\x78\x1f"),
        repository().head_block.replace(b"cdid\x78\x20", b"cdid\x79\x00\x20"),
        repository().head_block.replace(b"gversion\x03", b"gversion\x18\x03"),
    ],
    ids=range(8),
)
def test_blocks_that_are_no_commit(block: bytes) -> None:
    with pytest.raises(CommitError, match="commit-malformed"):
        parse_commit(block)


def spoil_field(name: str, value: Any) -> Callable[[CommitEvent], None]:
    def spoil(event: CommitEvent) -> None:
        event.fields[name] = value

    return spoil


def spoil_op(index: int, **changes: Any) -> Callable[[CommitEvent], None]:
    def spoil(event: CommitEvent) -> None:
        event.ops[index].update(changes)

    return spoil


def drop_op(index: int) -> Callable[[CommitEvent], None]:
    return lambda event: event.ops.pop(index) and None


def repeat_op(event: CommitEvent) -> None:
    event.ops.append(event.ops[0])


def without_record(event: CommitEvent) -> None:
    del event.blocks[event.ops[0]["cid"].value[1:]]


def without_root(event: CommitEvent) -> None:
    del event.blocks[event.fields["commit"].value[1:]]


def without_tree(event: CommitEvent) -> None:
    for cid in event.proof:
        del event.blocks[cid]


def false_block(event: CommitEvent) -> None:
    cid = event.ops[0]["cid"].value[1:]
    event.blocks[cid] += b"\0"


def other_root(event: CommitEvent) -> None:
    event.root = event.ops[0]["cid"].value[1:]


OTHER = link(cid_of(b"other"))

SPOILED = [
    (spoil_field("rev", tid(EPOCH_US + 5)), "commit-rev"),
    (spoil_field("rev", "not-a-tid"), "rev-syntax"),
    (spoil_field("repo", account_did(2)), "commit-did"),
    (spoil_field("commit", OTHER), "commit-root"),
    (other_root, "commit-root"),
    (spoil_field("prevData", OTHER), "prev-data-mismatch"),
    (spoil_op(0, cid=OTHER), "record-missing"),
    (spoil_op(0, prev=OTHER), "op-fields"),
    (spoil_op(0, cid=None), "op-fields"),
    (spoil_op(0, action="update", prev=OTHER), "prev-data-mismatch"),
    (spoil_op(0, action="update"), "mst-prev-missing"),
    (spoil_op(0, action="upsert"), "op-fields"),
    (spoil_op(0, path="app.bsky.feed.post"), "op-path"),
    (spoil_op(0, path="app.bsky.feed.post/a/b"), "op-path"),
    (spoil_op(0, path="app.bsky.feed.post/.."), "op-path"),
    (spoil_op(0, path="post/a"), "op-path"),
    (spoil_op(0, path=PATHS[35]), "mst-key-missing"),
    (spoil_op(2, prev=OTHER), "prev-data-mismatch"),
    (spoil_op(2, prev=None), "mst-prev-missing"),
    (spoil_op(2, action="create", prev=None), "prev-data-mismatch"),
    (spoil_op(4, prev=OTHER), "prev-data-mismatch"),
    (spoil_op(4, prev=None), "mst-prev-missing"),
    (spoil_op(4, cid=OTHER), "op-fields"),
    (spoil_op(4, path=PATHS[1]), "mst-key-present"),
    (spoil_op(4, path=PATHS[9]), "mst-duplicate-path"),
    (repeat_op, "mst-duplicate-path"),
    *[(drop_op(index), "prev-data-mismatch") for index in range(6)],
    (without_record, "record-missing"),
    (without_root, "car-root-missing"),
    (without_tree, "mst-node-missing"),
    (false_block, "car-block-hash"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILED, ids=range(len(SPOILED)))
def test_a_spoiled_commit(spoil: Callable[[CommitEvent], None], reason: str) -> None:
    repo = repository()
    event = batch(repo)
    spoil(event)
    assert refusal(event, repo.key) == reason


def test_the_order_of_operations_says_nothing() -> None:
    repo = repository()
    event = batch(repo)
    event.ops.reverse()
    assert verify_commit(decoded(event), public(repo.key), NOW).inverted


def test_another_key() -> None:
    repo = repository()
    assert refusal(batch(repo, sign_with=SigningKey.create(seed=2)), repo.key) == "signature-invalid"
    assert refusal(batch(repository("p256")), repo.key) == "signature-invalid"


def test_a_rev_from_the_future() -> None:
    repo = repository()
    event = batch(repo)
    ahead = tid_micros(repo.rev) - commit.MAX_REV_AHEAD
    assert refusal(event, repo.key, ahead - 1) == "rev-future"
    assert verify_commit(decoded(event), public(repo.key), ahead).inverted


@pytest.mark.parametrize("record", [b"", b"\x80", b"\xf6", b"\x01", b"\xa1aa", b"\xbf\xff", b"\xff", cbor("text")])
def test_a_record_that_is_no_map(record: bytes) -> None:
    repo = repository()
    for options in ({}, {"lenient": True}):
        event = repo.commit(create(f"a.b.c/{tid(repo.micros)}", record))
        assert refusal(event, repo.key, **options) == "record-malformed"


@pytest.mark.parametrize(
    "record",
    [
        cbor({"a": 1}) + b"\x00",
        b"\xb8\x01\x61a\x01",
        b"\xa1\x78\x01a\x01",
        b"\xa1\x61a\x18\x01",
        b"\xa2\x61b\x01\x61a\x01",
        b"\xa1\x61a\xa2\x61b\x01\x61a\x01",
        b"\xa1\x61a\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    ],
)
def test_a_record_in_another_encoding_than_the_canonical(record: bytes) -> None:
    repo = repository()
    event = repo.commit(create(f"a.b.c/{tid(repo.micros)}", record))
    assert refusal(event, repo.key) == "record-malformed"


def test_one_record_in_many_places_is_checked_once() -> None:
    """The costliest record there can be, under as many paths as a commit can write."""
    record = drisl.encode({"x": [[]] * 124_000 + [1] * 120_000, "y": bytes(700_000)})
    repo = repository()
    frame = repo.commit(*[create(f"a.b.c/{number}", record) for number in range(frames.MAX_OPS)]).frame(7)
    assert 970_000 < len(frame) < 1_100_000
    assert_cheap(lambda data: verify_frame(data, repo.key), frame)


def test_as_many_large_records_as_there_is_room_for() -> None:
    repo = repository()
    records = [{"x": [number] * 9_000} for number in range(frames.MAX_OPS)]
    frame = repo.commit(*[create(f"a.b.c/{number}", record) for number, record in enumerate(records)]).frame(7)
    assert len(frame) > 1_800_000
    assert_cheap(lambda data: verify_frame(data, repo.key), frame)


def verify_frame(frame: bytes, key: SigningKey) -> None:
    event = frames.decode(frame)
    assert isinstance(event, frames.Commit)
    assert verify_commit(event, public(key), NOW).inverted


def test_what_is_in_a_record_is_not_looked_at() -> None:
    repo = repository()
    # Not by cbor2, which shortens floats.
    record = drisl.encode(
        {"": [{"$type": "no.such.lexicon"}], "f": 1.5, "link": drisl.UnknownCid(b"\x01\x55\x1b\x08" + bytes(8))}
    )
    assert verify_commit(decoded(repo.commit(create("a.b.c/d", record))), public(repo.key), NOW).inverted


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_field("prevData", OTHER), "prev-data-mismatch"),
        (spoil_op(2, prev=None), "mst-prev-missing"),
        (without_record, "record-missing"),
        (without_tree, "mst-node-missing"),
    ],
)
def test_leniency_passes_unproven_operations(spoil: Callable[[CommitEvent], None], reason: str) -> None:
    repo = repository()
    event = batch(repo)
    spoil(event)
    verified = verify_commit(decoded(event), public(repo.key), NOW, lenient=True)
    assert verified[:4] == (repo.head, repo.data, False, reason)


@pytest.mark.parametrize("reason", ["commit-did", "commit-root", "rev-syntax", "op-path", "car-block-hash"])
def test_leniency_passes_nothing_else(reason: str) -> None:
    for spoil in [spoil for spoil, named in SPOILED if named == reason]:
        repo = repository()
        event = batch(repo)
        spoil(event)
        assert refusal(event, repo.key, lenient=True) == reason

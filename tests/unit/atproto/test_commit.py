"""Verification of events: a sound one passes, and each way to spoil one is named, with what is left of it."""

from dataclasses import replace
from typing import Any

import pytest

from relay.atproto import commit, drisl, frames
from relay.atproto.cid import Cid
from relay.atproto.commit import Unproven, Verified, commit_alone, parse_commit, verify_commit, verify_sync
from relay.atproto.errors import CommitError, ProtocolError
from relay.atproto.frames import Sync
from relay.atproto.syntax import tid_micros
from tests.support.blocks import car, cbor, cid_of, link
from tests.support.budget import assert_cheap
from tests.support.commits import (
    DID,
    NOW,
    OTHER,
    PATHS,
    Spoil,
    batch,
    decoded,
    drop_op,
    false_block,
    false_root,
    header_in_other_order,
    no_cid,
    no_root,
    other_root,
    public,
    raw_root,
    refusal,
    repeat_op,
    repository,
    root_of_another_kind,
    root_that_is_not_there,
    spoil_field,
    spoil_op,
    too_large,
    unproven,
    update_to_the_same,
    verified,
    without_record,
    without_root,
    without_tree,
)
from tests.support.repo import EPOCH_US, RepoBuilder, SigningKey, account_did, create, delete, tid, update
from tests.support.repo_tree import build

CURVES = pytest.mark.parametrize("curve", ["k256", "p256"])


@CURVES
def test_a_sound_commit(curve: str) -> None:
    repo = repository(curve)
    assert verified(batch(repo), repo.key)[:4] == (repo.head, repo.data, True, None)


def test_the_first_commit_has_nothing_to_invert_against() -> None:
    repo = RepoBuilder(DID, SigningKey.create())
    event = repo.commit(create(PATHS[0], {}))
    assert "prevData" not in event.fields
    assert verified(event, repo.key)[:4] == (repo.head, repo.data, False, None)


def test_a_commit_without_operations() -> None:
    repo = repository()
    before = repo.data
    event = repo.commit()
    assert repo.data == before
    assert verified(event, repo.key).inverted


def test_an_update_to_the_record_that_was_there() -> None:
    """The reference PDS writes such commits for an `applyWrites` that changes nothing."""
    repo = repository()
    before = repo.data
    event = repo.commit(update(PATHS[3], {"n": 3}))
    assert event.ops[0]["cid"] == event.ops[0]["prev"] and repo.data == before
    assert verified(event, repo.key).inverted
    among_others = repo.commit(update(PATHS[3], {"n": 3}), create(PATHS[32], {}), delete(PATHS[5]))
    assert verified(among_others, repo.key).inverted


def test_an_update_to_the_record_that_was_there_is_proven_as_any_other() -> None:
    repo = repository()
    for spoil, reason in (
        (without_record, "record-missing"),
        (without_tree, "mst-node-missing"),
        (spoil_op(0, path=PATHS[4]), "mst-value-mismatch"),
        (spoil_op(0, path=PATHS[35]), "mst-node-missing"),
        (spoil_op(0, cid=OTHER, prev=OTHER), "record-missing"),
    ):
        event = repo.commit(update(PATHS[3], {"n": 3}))
        spoil(event)
        assert unproven(event, repo) == reason


@CURVES
def test_a_sync_is_verified_as_a_commit_is(curve: str) -> None:
    repo = repository(curve)
    event = frames.decode(repo.sync_frame(3))
    assert isinstance(event, frames.Sync)
    assert verify_sync(event, public(repo.key), NOW)[:4] == (repo.head, repo.data, False, None)
    refused = ((SigningKey.create(curve, 2), NOW, "signature-invalid"), (repo.key, 0, "rev-future"))
    for other, now_us, reason in refused:
        with pytest.raises(ProtocolError) as caught:
            verify_sync(event, public(other), now_us)
        assert caught.value.reason == reason


def sync(repo: RepoBuilder, **changes: Any) -> Sync:
    event = frames.decode(repo.sync_frame(3))
    assert isinstance(event, Sync)
    return replace(event, **changes)


@pytest.mark.parametrize("rev", [tid(EPOCH_US + 5), tid(EPOCH_US + 10**12), "not-a-tid", ""])
def test_a_sync_that_says_another_rev_than_its_commit(rev: str) -> None:
    """Then the signed commit counts."""
    repo = repository()
    outcome = verify_sync(sync(repo, rev=rev), public(repo.key), NOW)
    assert isinstance(outcome, Unproven)
    assert outcome.reason == "commit-rev"
    assert outcome[2:] == (repo.head, repo.data, repo.rev, sync(repo).blocks)


def test_a_sync_with_more_than_its_commit() -> None:
    repo = repository()
    more = car([repo.head], {repo.head: repo.head_block, cid_of(b"false"): b"x"})
    for changes, reason in (
        ({"blocks": more}, "car-block-hash"),
        ({"fault": "frame-blocks-size"}, "frame-blocks-size"),
    ):
        outcome = verify_sync(sync(repo, **changes), public(repo.key), NOW)
        assert isinstance(outcome, Unproven)
        assert outcome.reason == reason
        assert outcome[2:] == (repo.head, repo.data, repo.rev, sync(repo).blocks)


def test_a_sync_of_another_account() -> None:
    repo = repository()
    with pytest.raises(CommitError, match="commit-did"):
        verify_sync(sync(repo, did=account_did(2)), public(repo.key), NOW)


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


UNSOUND = [
    (spoil_field("rev", tid(EPOCH_US + 5)), "commit-rev"),
    (spoil_field("rev", "not-a-tid"), "rev-syntax"),
    (spoil_field("repo", account_did(2)), "commit-did"),
    (spoil_field("commit", OTHER), "commit-root"),
    (other_root, "commit-root"),
    (raw_root, "commit-root"),
    (without_root, "car-root-missing"),
    (false_root, "car-block-hash"),
]

UNPROVEN = [
    (spoil_field("prevData", OTHER), "prev-data-mismatch"),
    (spoil_op(0, cid=OTHER), "record-missing"),
    (spoil_op(0, action="update", prev=OTHER), "prev-data-mismatch"),
    (spoil_op(0, action="update"), "mst-prev-missing"),
    (spoil_op(0, path=PATHS[35]), "mst-key-missing"),
    (spoil_op(2, prev=OTHER), "prev-data-mismatch"),
    (spoil_op(2, prev=None), "mst-prev-missing"),
    (update_to_the_same, "prev-data-mismatch"),
    (spoil_op(2, action="create", prev=None), "prev-data-mismatch"),
    (spoil_op(4, prev=OTHER), "prev-data-mismatch"),
    (spoil_op(4, prev=None), "mst-prev-missing"),
    (spoil_op(4, path=PATHS[1]), "mst-key-present"),
    (spoil_op(4, path=PATHS[9]), "mst-duplicate-path"),
    (repeat_op, "mst-duplicate-path"),
    *[(drop_op(index), "prev-data-mismatch") for index in range(6)],
    (without_record, "record-missing"),
    (without_tree, "mst-node-missing"),
]

# What leniency does not pass over either.
UNUSABLE = [
    (spoil_op(0, prev=OTHER), "op-fields"),
    (spoil_op(0, cid=None), "op-fields"),
    (spoil_op(0, action="upsert"), "op-fields"),
    (spoil_op(2, cid=None), "op-fields"),
    (spoil_op(4, cid=OTHER), "op-fields"),
    (spoil_op(0, path="app.bsky.feed.post"), "op-path"),
    (spoil_op(0, path="app.bsky.feed.post/a/b"), "op-path"),
    (spoil_op(0, path="app.bsky.feed.post/.."), "op-path"),
    (spoil_op(0, path="post/a"), "op-path"),
    (false_block, "car-block-hash"),
    (no_cid, "car-cid"),
    (too_large, "car-block-size"),
    (header_in_other_order, "car-header"),
    (no_root, "car-header"),
    (root_of_another_kind, "car-cid"),
    (root_that_is_not_there, "car-root-missing"),
]


@pytest.mark.parametrize(("spoil", "reason"), UNSOUND, ids=range(len(UNSOUND)))
@pytest.mark.parametrize("lenient", [False, True])
def test_an_unsound_commit_is_refused(spoil: Spoil, reason: str, lenient: bool) -> None:
    repo = repository()
    event = batch(repo)
    spoil(event)
    assert refusal(event, repo.key, lenient=lenient) == reason


@pytest.mark.parametrize(("spoil", "reason"), UNPROVEN + UNUSABLE, ids=range(len(UNPROVEN + UNUSABLE)))
def test_a_sound_commit_that_is_not_proven(spoil: Spoil, reason: str) -> None:
    repo = repository()
    event = batch(repo)
    spoil(event)
    assert unproven(event, repo) == reason


@pytest.mark.parametrize(("spoil", "reason"), UNPROVEN, ids=range(len(UNPROVEN)))
def test_leniency_passes_unproven_operations(spoil: Spoil, reason: str) -> None:
    repo = repository()
    event = batch(repo)
    spoil(event)
    assert verified(event, repo.key, lenient=True)[:4] == (repo.head, repo.data, False, reason)


@pytest.mark.parametrize(("spoil", "reason"), UNUSABLE, ids=range(len(UNUSABLE)))
def test_leniency_passes_nothing_else(spoil: Spoil, reason: str) -> None:
    repo = repository()
    event = batch(repo)
    spoil(event)
    assert unproven(event, repo, lenient=True) == reason


def test_a_frame_of_which_the_commit_alone_counts() -> None:
    repo = repository()
    event = replace(decoded(batch(repo)), fault="frame-ops-count", ops=())
    for lenient in (False, True):
        outcome = verify_commit(event, public(repo.key), NOW, lenient=lenient)
        assert isinstance(outcome, Unproven)
        assert outcome[:5] == ("frame-ops-count", "", repo.head, repo.data, repo.rev)
    with pytest.raises(ProtocolError, match="signature-invalid"):
        verify_commit(event, public(SigningKey.create(seed=2)), NOW)
    with pytest.raises(ProtocolError, match="commit-root"):
        verify_commit(replace(event, commit=Cid(cid_of(b"other"))), public(repo.key), NOW)


def test_a_verified_commit_can_be_told_alone() -> None:
    repo = repository()
    event = decoded(batch(repo))
    alone = car([repo.head], {repo.head: repo.head_block})
    expected = ("prev-data-missing", "", repo.head, repo.data, repo.rev, alone)
    assert commit_alone(event, Cid(repo.data), "prev-data-missing") == expected


def test_a_commit_to_a_tree_that_is_not_there() -> None:
    repo = repository()
    event = batch(repo, commit_fields={"data": link(cid_of(b"nowhere"))})
    outcome = verify_commit(decoded(event), public(repo.key), NOW)
    assert isinstance(outcome, Unproven)
    assert (outcome.reason, outcome.data) == ("mst-node-missing", cid_of(b"nowhere"))


def test_a_commit_to_a_tree_that_is_malformed() -> None:
    repo = repository()
    event = batch(repo, commit_fields={"data": link(cid_of(b"\xff"))})
    event.blocks[cid_of(b"\xff")] = b"\xff"
    outcome = verify_commit(decoded(event), public(repo.key), NOW)
    assert isinstance(outcome, Unproven)
    assert outcome.reason == "mst-node-malformed"


def test_the_order_of_operations_says_nothing() -> None:
    repo = repository()
    event = batch(repo)
    event.ops.reverse()
    assert verified(event, repo.key).inverted


def test_a_commit_under_another_key_is_refused() -> None:
    repo = repository()
    assert refusal(batch(repo, sign_with=SigningKey.create(seed=2)), repo.key) == "signature-invalid"
    assert refusal(batch(repository("p256")), repo.key) == "signature-invalid"


def test_a_rev_from_the_future() -> None:
    repo = repository()
    event = batch(repo)
    ahead = tid_micros(repo.rev) - commit.MAX_REV_AHEAD
    assert refusal(event, repo.key, ahead - 1) == "rev-future"
    assert isinstance(verify_commit(decoded(event), public(repo.key), ahead), Verified)


@pytest.mark.parametrize(
    "record", [b"", b"\x80", b"\x9f\xff", b"\xf6", b"\x01", b"\xbc", b"\xbf\xff", b"\xff", cbor("text")]
)
@pytest.mark.parametrize("lenient", [False, True])
def test_a_record_that_does_not_begin_as_a_map(record: bytes, lenient: bool) -> None:
    repo = repository()
    event = repo.commit(create(f"a.b.c/{tid(repo.micros)}", record))
    assert unproven(event, repo, lenient=lenient) == "record-malformed"


@pytest.mark.parametrize("lenient", [False, True])
def test_a_record_that_is_a_blob_by_its_id(lenient: bool) -> None:
    """A link to a record is one to an object (repository draft, 4.5), whatever the bytes are."""
    repo = repository()
    record = cbor({"n": 1})
    blob = bytes(Cid.of_raw(record))
    nodes: dict[bytes, bytes] = {}
    root = build({**repo.records, PATHS[30]: blob}, nodes)
    event = repo.commit(commit_fields={"data": link(root)})
    event.ops = [{"action": "create", "path": PATHS[30], "cid": link(blob)}]
    event.blocks |= {**nodes, blob: record}
    outcome = verify_commit(decoded(event), public(repo.key), NOW, lenient=lenient)
    assert isinstance(outcome, Unproven)
    assert (outcome.reason, outcome.data) == ("record-malformed", root)
    # One from before may be taken out.
    event = repo.commit(commit_fields={"data": link(repo.data)})
    event.fields["prevData"] = link(root)
    event.ops = [{"action": "delete", "path": PATHS[30], "cid": None, "prev": link(blob)}]
    nodes = {}
    build(repo.records, nodes)
    event.blocks |= nodes
    assert verified(event, repo.key).inverted


@pytest.mark.parametrize(
    "record",
    [
        b"\xa1aa",
        cbor({"a": 1}) + b"\x00",
        b"\xb8\x01\x61a\x01",
        b"\xb9\x00\x01\x61a\x01",
        b"\xbb" + bytes(7) + b"\x01\x61a\x01",
        b"\xa1\x61a\x18\x01",
        b"\xa2\x61b\x01\x61a\x01",
        b"\xa1\x61a\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
        b"\xa1\x61a\xf9\x3e\x00",
        b"\xa1\x61a\xc1\x01",
        b"\xa1\x61a\x61\xff",
        b"\xa1\x61a" + b"\x81" * 500 + b"\x80",
        cbor({"$type": "no.such.lexicon", "f": 1.5}),
    ],
    ids=range(13),
)
def test_what_is_in_a_record_is_not_looked_at(record: bytes) -> None:
    repo = repository()
    assert verified(repo.commit(create(f"a.b.c/{tid(repo.micros)}", record)), repo.key).inverted


def test_a_record_of_as_many_bytes_as_it_may_have() -> None:
    repo = repository()
    record = cbor({"t": "x" * (1_000_000 - 8)})
    assert len(record) == 1_000_000
    assert verified(repo.commit(create("a.b.c/d", record)), repo.key).inverted
    assert unproven(repo.commit(create("a.b.c/e", record + b"\0")), repo) == "car-block-size"


@pytest.mark.parametrize("values", [[{}], [0], [[]]], ids=str)
def test_records_of_tiny_items_cost_no_more_than_their_bytes(values: list[Any]) -> None:
    repo = repository()
    writes = [create(f"a.b.c/{number}", cbor({"i": number, "v": values * 9_600})) for number in range(180)]
    frame = repo.commit(*writes).frame(7)
    assert len(frame) > 1_700_000
    assert_cheap(lambda data: verify_frame(data, repo.key), frame)


def test_one_record_in_many_places_is_checked_once() -> None:
    """The costliest record there can be, under as many paths as a commit can write."""
    record = drisl.encode({"x": [[]] * 124_000 + [1] * 120_000, "y": bytes(700_000)})
    repo = repository()
    frame = repo.commit(*[create(f"a.b.c/{number}", record) for number in range(frames.MAX_OPS)]).frame(7)
    assert 970_000 < len(frame) < 1_100_000
    assert_cheap(lambda data: verify_frame(data, repo.key), frame)


def test_as_many_large_records_as_there_is_room_for() -> None:
    repo = repository()
    records = [{"x": [number] * 4_800} for number in range(frames.MAX_OPS)]
    frame = repo.commit(*[create(f"a.b.c/{number}", record) for number, record in enumerate(records)]).frame(7)
    assert len(frame) > 1_700_000
    assert_cheap(lambda data: verify_frame(data, repo.key), frame)


def verify_frame(frame: bytes, key: SigningKey) -> None:
    event = frames.decode(frame)
    assert isinstance(event, frames.Commit)
    assert isinstance(verify_commit(event, public(key), NOW), Verified)

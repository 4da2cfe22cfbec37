"""Random repositories and batches: inversion both ways, and no change to a sound commit that goes unseen."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.atproto import car, cid, commit, drisl, frames, mst, mst_read, operations
from relay.atproto.cid import Cid
from relay.atproto.crypto import PublicKey
from relay.atproto.errors import ProtocolError
from relay.atproto.frames import RepoOp
from tests.support.blocks import link
from tests.support.repo import (
    EPOCH_US,
    CommitEvent,
    RepoBuilder,
    SigningKey,
    Write,
    account_did,
    create,
    delete,
    tid,
    update,
)
from tests.support.repo_tree import build, layer_of
from tests.support.trees import invert

NOW = EPOCH_US + 3_600_000_000
KEY = SigningKey.create("k256")
PUBLIC = PublicKey.from_compressed(KEY.curve, KEY.public)
MODULES = (car, cid, commit, drisl, frames, mst, mst_read, operations)
REASONS = frozenset().union(*(module.REASONS for module in MODULES))

COLLECTIONS = ("a.b.c", "a.b.cc", "app.bsky.feed.like", "app.bsky.feed.post", "app.bsky.graph.follow")


def high_paths() -> list[str]:
    """Paths of high layers, which random ones seldom are: they make bridges, and tops that rise and fall."""
    found: list[str] = []
    number = 0
    while len(found) < 24:
        path = f"{COLLECTIONS[number % 5]}/h{number}"
        if layer_of(path) >= 3 + len(found) // 8:
            found.append(path)
        number += 1
    return found


HIGH_PATHS = high_paths()


def random_path(rng: random.Random) -> str:
    if rng.random() < 0.25:
        return rng.choice(HIGH_PATHS)
    return f"{rng.choice(COLLECTIONS)}/{rng.choice(['', 'x', '3k', 'self-'])}{rng.randrange(400)}"


def random_writes(rng: random.Random, repo: RepoBuilder, most: int) -> list[Write]:
    writes: dict[str, Write] = {}
    for _ in range(rng.randint(0, most)):
        path = rng.choice(sorted(repo.records)) if repo.records and rng.random() < 0.6 else random_path(rng)
        if path in writes:
            continue
        # A few are alike, and none is an update to what was there.
        record = {"n": rng.randrange(1000), **({"of": repo.micros} if path in repo.records else {})}
        if path not in repo.records:
            writes[path] = create(path, record)
        else:
            writes[path] = delete(path) if rng.random() < 0.6 else update(path, record)
    return list(writes.values())


def random_repository(rng: random.Random, size: int) -> RepoBuilder:
    repo = RepoBuilder(account_did(1), KEY)
    paths = {random_path(rng) for _ in range(size)}
    repo.commit(*[create(path, {"n": rng.randrange(1000)}) for path in sorted(paths)])
    return repo


def steps(seed: int, size: int, most: int, count: int) -> Iterator[tuple[RepoBuilder, CommitEvent]]:
    rng = random.Random(seed)
    repo = random_repository(rng, size)
    for _ in range(count):
        yield repo, repo.commit(*random_writes(rng, repo, most))


def decoded(event: CommitEvent) -> frames.Commit:
    result = frames.decode(event.frame(1))
    assert isinstance(result, frames.Commit)
    return result


def reversed_ops(ops: tuple[RepoOp, ...]) -> list[RepoOp]:
    """The batch that leads from the new tree to the old one."""
    opposite = {"create": "delete", "delete": "create", "update": "update"}
    return [RepoOp(opposite[op.action], op.path, op.prev, op.cid) for op in ops]


@settings(max_examples=400)
@given(seed=st.integers(0, 2**32), size=st.integers(0, 80), most=st.sampled_from([1, 2, 5, 30, 200]))
def test_inversion_both_ways(seed: int, size: int, most: int) -> None:
    """From the new tree back to the old one with the proof alone, and from the old one to the new with all nodes."""
    everything: dict[bytes, bytes] = {}
    for repo, event in steps(seed, size, most, 8):
        assert build(repo.records, everything) == repo.data
        commit = decoded(event)
        assert commit.prev_data is not None
        blocks = car.parse(commit.blocks).blocks
        proof = {cid: block for cid, block in blocks.items() if cid in event.proof}
        assert invert(Cid(repo.data), commit.ops, proof) == commit.prev_data
        everything |= event.blocks
        if commit.prev_data in everything:
            assert invert(commit.prev_data, reversed_ops(commit.ops), everything) == repo.data


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32), size=st.integers(0, 80))
def test_the_short_way_and_the_tree_agree(seed: int, size: int) -> None:
    """One operation is undone without a tree where that can be; what comes of it is the same."""
    for repo, event in steps(seed, size, 1, 8):
        commit = decoded(event)
        opened = mst_read.open_tree(Cid(repo.data), car.parse(commit.blocks).blocks)
        for change in operations.changes(commit.ops):
            before = mst._undo_in_one_node(Cid(repo.data), change, opened)
            assert before in (None, commit.prev_data)
            assert mst._undo_in_tree(Cid(repo.data), [change], opened, None) == commit.prev_data
            note(f"{change} in one node: {before is not None}")


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), most=st.sampled_from([1, 3, 40]))
def test_sound_commits_verify_in_any_order_of_operations(seed: int, most: int) -> None:
    rng = random.Random(seed)
    for repo, event in steps(seed, 60, most, 3):
        rng.shuffle(event.ops)
        verified = commit.verify_commit(decoded(event), PUBLIC, NOW)
        assert verified[:4] == (repo.head, repo.data, True, None)


def mutate(rng: random.Random, event: CommitEvent) -> None:
    """One change that makes a sound commit with operations unsound."""
    other = link(Cid.of_dag_cbor(rng.randbytes(8)))
    op = rng.choice(event.ops)
    kind = rng.randrange(11)
    if kind == 0:
        event.ops.remove(op)
    elif kind <= 1:
        # An update that is done again comes to the same.
        event.ops.append(op if op["action"] != "update" else {**op, "prev": op["cid"], "cid": other})
    elif kind == 2:
        event.ops.append({"action": "create", "path": "a.b.c/added", "cid": event.ops[0]["cid"] or other})
    elif kind == 3:
        op["cid"] = None if op["cid"] else other
    elif kind == 4:
        op["prev"] = other
    elif kind == 5:
        op["path"] += "x"
    elif kind == 6:
        event.fields[rng.choice(["prevData", "commit"])] = other
    elif kind == 7:
        event.fields["rev"] = tid(EPOCH_US + rng.randrange(10**9) + 10**9)
    elif kind == 8:
        needed = event.proof | {event.root} | {op["cid"].value[1:] for op in event.ops if op["cid"]}
        del event.blocks[rng.choice(sorted(needed & event.blocks.keys()))]
    elif kind == 9:
        cid = rng.choice(sorted(event.blocks))
        block = bytearray(event.blocks[cid])
        block[rng.randrange(len(block))] ^= 1 << rng.randrange(8)
        event.blocks[cid] = bytes(block)
    else:
        op["action"] = rng.choice([action for action in ("create", "update", "delete") if action != op["action"]])


@settings(max_examples=1500)
@given(seed=st.integers(0, 2**32), most=st.sampled_from([1, 4, 30]))
def test_every_mutation_is_noticed_and_named(seed: int, most: int) -> None:
    rng = random.Random(seed)
    repo = random_repository(rng, 40)
    event = repo.commit(*(random_writes(rng, repo, most) or [create("a.b.c/one", {})]))
    mutate(rng, event)
    try:
        outcome = commit.verify_commit(decoded(event), PUBLIC, NOW)
    except ProtocolError as error:
        assert error.reason in REASONS
    else:
        assert isinstance(outcome, commit.Unproven)
        assert outcome.reason in REASONS
        assert outcome[2:5] == (repo.head, repo.data, repo.rev)


@settings(max_examples=1500)
@given(seed=st.integers(0, 2**32))
def test_mutated_nodes_raise_nothing_else(seed: int) -> None:
    """Nodes whose hashes were made right again after damage: whatever comes of it, it is no other kind of error."""
    rng = random.Random(seed)
    repo = random_repository(rng, 30)
    event = decoded(repo.commit(*random_writes(rng, repo, 5), create("a.b.c/one", {})))
    blocks = dict(car.parse(event.blocks).blocks)
    damaged = bytearray(blocks[Cid(repo.data)])
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(damaged))
        damaged[at : at + rng.randrange(3)] = rng.choice([b"", rng.randbytes(1), b"\xff", b"\x18", b"a"])
    root = Cid.of_dag_cbor(bytes(damaged))
    blocks[root] = bytes(damaged)
    try:
        before = invert(root, event.ops, blocks)
    except ProtocolError as error:
        assert error.reason in REASONS
    else:
        assert (before == event.prev_data) == (root == repo.data)


@settings(max_examples=500)
@given(block=st.binary(max_size=300), shape=st.sampled_from([b"", b"\xa2ae", b"\xa2ae\x81\xa4ak", b"\xa2ae\x80al"]))
def test_any_bytes_as_a_node(block: bytes, shape: bytes) -> None:
    root = Cid.of_dag_cbor(shape + block)
    with pytest.raises(ProtocolError) as caught:
        invert(root, [RepoOp("create", "a.b.c/d", root, None)], {root: shape + block})
    assert caught.value.reason in REASONS

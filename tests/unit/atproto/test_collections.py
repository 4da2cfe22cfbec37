"""Which collections a commit leaves with records and which without, told from its own proof alone."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from relay.atproto import car, frames
from relay.atproto.cid import Cid
from relay.atproto.commit import touched
from relay.atproto.mst import has_records, key_depth
from relay.atproto.mst_read import MAX_NODE_SIZE, open_tree
from tests.support.budget import assert_cheap
from tests.support.repo import CommitEvent as BuiltCommit
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete, update
from tests.support.repo_tree import build

# Names next to each other in the tree: one is the beginning of another, and `.` and `-` sort before `/`.
NAMES = ("app.a", "app.a.b", "app.a-b", "app.ab", "app.b", "zzz.last", "aaa.first")


def told(built: BuiltCommit, repo: RepoBuilder) -> dict[str, bool | None]:
    event = frames.decode(built.frame(1))
    assert isinstance(event, frames.Commit)
    return touched(event.ops, Cid(repo.data), open_tree(Cid(repo.data), car.parse(event.blocks).blocks))


def test_random_repos_are_told_exactly() -> None:
    """Thousands of deletions, of the last record and of others, alone and in batches: never wrong, never in doubt."""
    rng = random.Random(7)
    outcomes = {True: 0, False: 0}
    for seed in range(25):
        repo = RepoBuilder(account_did(seed), SigningKey.create(seed=seed))
        for step in range(80):
            writes = {}
            for _ in range(rng.choice((1, 1, 2, 5))):
                path = f"{rng.choice(NAMES)}/{rng.randrange(2)}"
                known = path in repo.records
                if known and rng.random() < 0.7:
                    writes[path] = delete(path)
                else:
                    writes[path] = (update if known else create)(path, {"n": step})
            built = repo.commit(*writes.values())
            here = {path.partition("/")[0] for path in repo.records}
            expected = {collection: collection in here for collection in (p.partition("/")[0] for p in writes)}
            assert told(built, repo) == expected
            for write in writes.values():
                if write.action == "delete":
                    outcomes[expected[write.path.partition("/")[0]]] += 1
    assert min(outcomes.values()) > 200


def test_the_proof_alone_tells_in_a_large_repo() -> None:
    repo = RepoBuilder(account_did(1), SigningKey.create())
    repo.commit(*(create(f"app.a/{n:04}", {"n": n}) for n in range(3000)), create("app.b/only", {}))
    assert told(repo.commit(delete("app.b/only")), repo) == {"app.b": False}
    assert told(repo.commit(delete("app.a/1500")), repo) == {"app.a": True}


def test_the_last_record_of_all() -> None:
    repo = RepoBuilder(account_did(1), SigningKey.create())
    repo.commit(create("app.a/x", {}))
    assert told(repo.commit(delete("app.a/x")), repo) == {"app.a": False}


def test_what_is_written_tells_whatever_came_along() -> None:
    repo = RepoBuilder(account_did(1), SigningKey.create())
    repo.commit(create("app.a/x", {}), create("app.b/x", {}))
    event = frames.decode(repo.commit(create("app.a/y", {}), delete("app.a/x"), delete("app.b/x")).frame(1))
    assert isinstance(event, frames.Commit)
    assert touched(event.ops, Cid(repo.data), {}) == {"app.a": True, "app.b": None}


def test_moved_within_a_collection() -> None:
    repo = RepoBuilder(account_did(1), SigningKey.create())
    repo.commit(create("app.a/x", {}))
    assert told(repo.commit(delete("app.a/x"), create("app.a/y", {})), repo) == {"app.a": True}


def test_many_collections_in_one_wide_node_are_cheap() -> None:
    """As many operations as an event has, each with a collection of its own, and a node as large as any may be."""
    numbers = (f"a.b.c/{number:06}" for number in range(100_000))
    keys = list(islice((key for key in numbers if key_depth(key.encode()) == 0), 1_700))
    blocks: dict[bytes, bytes] = {}
    root = Cid(build(dict.fromkeys(keys, bytes(Cid.of_dag_cbor(b"\xa0"))), blocks))
    assert 0.9 * MAX_NODE_SIZE < len(blocks[root]) < MAX_NODE_SIZE
    ops = [frames.RepoOp("delete", f"a.b{number}.c/x", None, root) for number in range(frames.MAX_OPS)]
    told = dict.fromkeys((f"a.b{number}.c" for number in range(frames.MAX_OPS)), False)
    assert touched(ops, root, open_tree(root, blocks)) == told
    assert_cheap(lambda block: touched(ops, root, open_tree(root, {root: block})), blocks[root])


@pytest.fixture
def large() -> tuple[Cid, dict[bytes, bytes]]:
    blocks: dict[bytes, bytes] = {}
    root = build({f"app.{name}/{n}": bytes(Cid.of_dag_cbor(b"\xa0")) for name in "ac" for n in range(200)}, blocks)
    return Cid(root), {Cid(cid): block for cid, block in blocks.items()}


def test_without_a_node_that_would_tell_nothing_is_said(large: tuple[Cid, dict[bytes, bytes]]) -> None:
    root, blocks = large
    assert has_records(root, "app.b", open_tree(root, blocks)) is False
    needed = 0
    for cid in blocks:
        opened = open_tree(root, {key: block for key, block in blocks.items() if key != cid})
        answer = has_records(root, "app.b", opened)
        assert answer in (False, None)
        needed += answer is None
    assert needed >= 2
    assert has_records(root, "app.a", {}) is None


def test_several_operations_on_one_path() -> None:
    """What counts is what the tree holds in the end, whatever the order in which they are listed."""
    repo = RepoBuilder(account_did(1), SigningKey.create())
    built = repo.commit(create("app.a/x", {}), create("app.b/x", {}))
    root = Cid(repo.data)
    opened = open_tree(root, built.blocks)
    here, gone = (
        [frames.RepoOp("create", path, root, None), frames.RepoOp("delete", path, None, root)]
        for path in ("app.a/x", "app.c/x")
    )
    for ops in (here + gone, gone + here, gone[::-1] + here[::-1]):
        assert touched(ops, root, opened) == {"app.a": True, "app.c": False}
        assert touched(ops, root, {}) == {"app.a": None, "app.c": None}

"""Trees of a few keys for tests: sound ones, nodes written by hand, and what becomes of operations on them.

root, blocks = tree_of(A, C, HIGH)
assert invert(root, [put(HIGH)], blocks) == tree_of(A, C)[0]
assert refused_node(node(None, (0, C, value("other"), None)), key=C) == "mst-value-mismatch"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from relay.atproto import mst, mst_read, operations
from relay.atproto.cid import Cid
from relay.atproto.errors import CommitError, MstError
from relay.atproto.frames import RepoOp
from tests.support.blocks import cbor, link
from tests.support.repo_tree import build

REASONS = mst.REASONS | mst_read.REASONS | operations.REASONS

# Keys with their layer behind the letter: the one in the middle stands two layers above the others.
LAYERED = ["A0/374913", "C0/451630", "D2/269196", "E0/670489", "F0/697858"]
A, C, HIGH, E, F = LAYERED


def value(text: str) -> Cid:
    return Cid.of_dag_cbor(text.encode())


def put(path: str, cid: Cid | None = None) -> RepoOp:
    return RepoOp("create", path, cid or value(path), None)


def change(path: str, cid: Cid, prev: Cid) -> RepoOp:
    return RepoOp("update", path, cid, prev)


def drop(path: str, prev: Cid | None = None) -> RepoOp:
    return RepoOp("delete", path, None, prev or value(path))


def tree_of(*paths: str) -> tuple[Cid, dict[bytes, bytes]]:
    """A sound tree of these paths, each with `value(path)`; root and all its nodes."""
    blocks: dict[bytes, bytes] = {}
    root = build({path: value(path) for path in paths}, blocks)
    return Cid(root), {Cid(cid): block for cid, block in blocks.items()}


def node(left: bytes | None, *entries: tuple[int, str, bytes, bytes | None]) -> bytes:
    """A node as written by hand: (prefix length, rest of the key, value, right subtree)."""
    return cbor(
        {
            "l": link(left),
            "e": [{"p": p, "k": k.encode(), "v": link(v), "t": link(t)} for p, k, v, t in entries],
        }
    )


def invert(root: Cid, ops: Sequence[RepoOp], blocks: Mapping[bytes, bytes]) -> Cid:
    return mst.invert(root, operations.changes(ops), mst_read.open_tree(root, blocks))


def refused(root: Cid, ops: list[RepoOp], blocks: Mapping[bytes, bytes]) -> str:
    with pytest.raises((CommitError, MstError)) as caught:
        invert(root, ops, blocks)
    assert caught.value.reason in REASONS
    return caught.value.reason


def refused_node(block: bytes, *others: bytes, key: str = "C0/451630") -> str:
    """Why a tree with this root is refused when `key` is said to have been created."""
    blocks: dict[bytes, bytes] = {Cid.of_dag_cbor(data): data for data in (block, *others)}
    return refused(Cid.of_dag_cbor(block), [put(key)], blocks)

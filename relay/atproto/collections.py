"""What a commit says of the collections it touches: which ones have records, and which had their last one deleted.

Called by `ingest` for accepted commits, and by recovery for those in the log. The keys of a collection stand next to
each other in the tree, so the neighbours of a deleted key tell, and they come along as part of the proof. Pure
functions over blocks whose hashes are verified. Specification: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from relay.atproto.cid import Cid
from relay.atproto.errors import MstError
from relay.atproto.frames import RepoOp
from relay.atproto.mst_node import HIGHEST, LINK, LOWEST, NULL, Node, decode

Opened: TypeAlias = dict[tuple[bytes, int | None, bytes, bytes], Node | None]
"""Nodes by their link, layer and bounds; None when a node breaks a rule there, or is not at hand."""


def touched(ops: Sequence[RepoOp], root: Cid, blocks: Mapping[bytes, bytes]) -> dict[str, bool | None]:
    """Collection -> whether the tree at `root` has a record of it after `ops`; None when the blocks do not tell."""
    found: dict[str, bool | None] = {op.path.partition("/")[0]: True for op in ops if op.cid is not None}
    opened: Opened = {}
    for op in ops:
        if op.cid is None and (collection := op.path.partition("/")[0]) not in found:
            found[collection] = has_records(root, collection, blocks, opened)
    return found


def has_records(root: Cid, collection: str, blocks: Mapping[bytes, bytes], opened: Opened | None = None) -> bool | None:
    """Whether the tree at `root` has a record of `collection`; None when a node that would tell is not in `blocks`.

    A node without a key of the collection can have such keys in one of its subtrees only, so one way down is walked.
    Nodes in `opened` are not read again.
    """
    opened = {} if opened is None else opened
    prefix = collection.encode() + b"/"
    layer, low, high = None, LOWEST, HIGHEST
    link = LINK + root
    while link != NULL:
        place = link, layer, low, high
        if place not in opened:
            opened[place] = _open(blocks, *place)
        node = opened[place]
        if node is None:
            return None
        i = bisect_left(node.keys, prefix)
        if i < len(node.keys) and node.keys[i].startswith(prefix):
            return True
        child = node.subtree(i)
        assert isinstance(child, bytes)
        layer, link, (low, high) = node.layer - 1, child, node.bounds(i)
    return False


def _open(blocks: Mapping[bytes, bytes], link: bytes, layer: int | None, low: bytes, high: bytes) -> Node | None:
    block = blocks.get(link[len(LINK) :])
    if block is None or layer == -1:
        return None
    try:
        return decode(block, layer, low, high)
    except MstError:
        return None

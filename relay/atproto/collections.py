"""What a commit says of the collections it touches: which ones have records, and which had their last one deleted.

Called by `ingest` for accepted commits, and by recovery for those in the log. The keys of a collection stand next to
each other in the tree, so the neighbours of a deleted key tell, and they come along as part of the proof. Pure
functions over nodes that keep the rules (`mst_open`). Specification: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from relay.atproto.cid import Cid
from relay.atproto.events import RepoOp
from relay.atproto.mst_node import subtree_link
from relay.atproto.mst_open import Opened
from relay.atproto.mst_read import LINK, NULL


def touched(ops: Sequence[RepoOp], root: Cid, opened: Opened) -> dict[str, bool | None]:
    """Collection -> whether the tree at `root` has a record of it after `ops`; None when the nodes do not tell."""
    found: dict[str, bool | None] = {}
    doubtful = {op.path for op in ops if op.cid is None}
    for op in ops:
        if op.path not in doubtful:
            found[op.path.partition("/")[0]] = True
    for path in doubtful:
        collection = path.partition("/")[0]
        if collection not in found:
            found[collection] = has_records(root, collection, opened)
    return found


def has_records(root: Cid, collection: str, opened: Opened) -> bool | None:
    """Whether the tree at `root` has a record of `collection`; None when a node that would tell is not in `opened`.

    A node without a key of the collection can have such keys in one of its subtrees only, so one way down is walked.
    """
    prefix = collection.encode() + b"/"
    link = LINK + root
    while link != NULL:
        node = opened.get(link[len(LINK) :])
        if node is None:
            return None
        _, keys, fields, left, _ = node
        i = bisect_left(keys, prefix)
        if i < len(keys) and keys[i].startswith(prefix):
            return True
        link = subtree_link(fields, i) if i else left
    return False

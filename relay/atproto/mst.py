"""The Merkle search tree of a repository, as far as one commit shows it, and the undoing of its operations.

`commit` calls `invert` with the nodes of a commit's CAR: it takes the operations back out of the new tree and returns
the root that the tree had before. Only nodes on the way are opened (`mst_node`) and only those are encoded again.
Knows nothing of records, signatures or events. Specification: https://atproto.com/specs/repository
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from hashlib import sha256

from relay.atproto.cid import Cid
from relay.atproto.errors import MstError
from relay.atproto.frames import RepoOp
from relay.atproto.mst_node import (
    HIGHEST,
    LINK,
    LOWEST,
    NULL,
    TREE_LINK,
    Child,
    Node,
    decode,
    encode,
    is_bare,
    key_depth,
    read,
    subtree_link,
)

__all__ = ["REASONS", "invert", "key_depth"]

REASONS = frozenset(
    {
        "mst-duplicate-path",
        "mst-key-missing",
        "mst-key-present",
        "mst-node-missing",
        "mst-prev-missing",
        "mst-value-mismatch",
    }
)

EMPTY_TREE = Cid.of_dag_cbor(b"\xa2ae\x80al\xf6")


def invert(root: Cid, ops: Sequence[RepoOp], blocks: Mapping[bytes, bytes]) -> Cid:
    """The root of the tree as it was before `ops`, given the blocks that the commit came with.

    Paths are distinct, so the operations can be undone in any order. Deletions first, then by path, is the reference
    relay's order, and with it decides which nodes a producer has to send along. Raises MstError: the operations are not
    what led to this tree, the tree breaks a rule of its structure, or a node that is needed is not there.
    """
    # A commit without operations may come without a single node.
    if not ops:
        return root
    if len(ops) == 1:
        op = ops[0]
        if op.action == "create" or op.prev is not None:
            before = _undo_in_one_node(root, op, blocks)
            if before is not None:
                return before
    elif len({op.path for op in ops}) != len(ops):
        raise MstError("mst-duplicate-path")
    return _undo_in_tree(root, ops, blocks)


def _undo_in_tree(root: Cid, ops: Sequence[RepoOp], blocks: Mapping[bytes, bytes]) -> Cid:
    tree = _PartialTree(root, blocks)
    for op in sorted(ops, key=_undo_order):
        key = op.path.encode()
        if op.cid is None:
            tree.insert(key, LINK + _prev(op))
        elif op.action == "create":
            tree.remove(key, LINK + op.cid)
        else:
            tree.replace(key, LINK + op.cid, LINK + _prev(op))
    return tree.root()


def _undo_order(op: RepoOp) -> tuple[bool, str]:
    return op.cid is not None, op.path


def _prev(op: RepoOp) -> Cid:
    if op.prev is None:
        raise MstError("mst-prev-missing", op.path)
    return op.prev


def _undo_in_one_node(root: Cid, op: RepoOp, blocks: Mapping[bytes, bytes]) -> Cid | None:
    """`invert` of one operation that changed the entries of one node, and nothing but links above it.

    Most commits are like that, and need no tree to be undone. None when this one is not, or when the tree has to find
    and name what is wrong with it.
    """
    above: list[tuple[bytes, bytes]] = []
    key = op.path.encode()
    depth = key_depth(key)
    layer, low, high = None, LOWEST, HIGHEST
    link = LINK + root
    while True:
        data = blocks.get(link[len(LINK) :])
        if data is None:
            return None
        layer, keys, fields, left = read(data, layer, low, high)
        i = bisect_left(keys, key)
        if layer <= depth:
            break
        if i < len(keys):
            high = keys[i]
        if i:
            low = keys[i - 1]
            link = subtree_link(fields, i)
        else:
            link = left
        if link == NULL:
            return None
        above.append((data, link))
        layer -= 1
    if layer < depth or not _undo_here(node := Node(layer, low, high, left, keys, fields, data), i, key, op):
        return None
    link = TREE_LINK + sha256(node.encoded()).digest()
    for data, old in reversed(above):
        if data.count(old) != 1:
            return None
        link = TREE_LINK + sha256(data.replace(old, link)).digest()
    return Cid(link[len(LINK) :])


def _undo_here(node: Node, i: int, key: bytes, op: RepoOp) -> bool:
    """Undo the operation in the node if it leaves the subtrees as they are, and at least one entry."""
    found = i < len(node.keys) and node.keys[i] == key
    before = node.subtree(i)
    if op.cid is None:
        if found or before != NULL:
            return False
        node.insert(i, key, LINK + _prev(op), (NULL, NULL))
        return True
    if not found or node.value(i) != LINK + op.cid:
        return False
    if op.action != "create":
        node.replace(i, LINK + _prev(op))
        return True
    after = node.subtree(i + 1)
    if len(node.keys) == 1 or NULL not in (before, after):
        return False
    node.remove(i, after if before == NULL else before)
    return True


class _PartialTree:
    """The nodes of a tree that have been opened. Undoing may leave some without entries: `root` drops them."""

    def __init__(self, root: Cid, blocks: Mapping[bytes, bytes]) -> None:
        self._blocks = blocks
        self._root = decode(self._block(root), None, LOWEST, HIGHEST)

    def insert(self, key: bytes, value: bytes) -> None:
        """Put back a record that is not in the tree."""
        layer = key_depth(key)
        while self._root.layer < layer:
            raised = Node.bare(self._root.layer + 1, LOWEST, HIGHEST)
            raised.opened[0] = self._root
            self._root = raised
        node = self._root
        while node.layer > layer:
            i = bisect_left(node.keys, key)
            if node.subtree(i) == NULL:
                node.bridge(i)
            node = self._child(node, i)
        i = bisect_left(node.keys, key)
        if i < len(node.keys) and node.keys[i] == key:
            raise MstError("mst-key-present", key.decode())
        node.insert(i, key, value, self._split(node, i, key))

    def replace(self, key: bytes, value: bytes, prev: bytes) -> None:
        """Put back the value that the record at `key` had."""
        node, i = self._find(key, value)
        node.replace(i, prev)

    def remove(self, key: bytes, value: bytes) -> None:
        """Take out a record that is in the tree."""
        node, i = self._find(key, value)
        node.remove(i, self._join(node, i, node, i + 1))

    def root(self) -> Cid:
        """The id of the tree as it is now, without bridges that lead down to its first entries."""
        node = self._root
        while not node.keys:
            child = node.subtree(0)
            if child == NULL:
                return EMPTY_TREE
            # A bridge under the top can only have come with the commit, so a node that did not come along is none.
            if isinstance(child, bytes) and (link := Cid(child[len(LINK) :])) not in self._blocks:
                return link
            node = self._child(node, 0)
        return Cid(encode(node)[len(LINK) :])

    def _find(self, key: bytes, value: bytes) -> tuple[Node, int]:
        node = self._root
        while True:
            keys = node.keys
            i = bisect_left(keys, key)
            if i < len(keys) and keys[i] == key:
                break
            child = node.subtree(i)
            if child == NULL:
                raise MstError("mst-key-missing", key.decode())
            node = child if isinstance(child, Node) else self._open(node, i, child)
        if key_depth(key) != node.layer:
            raise MstError("mst-key-layer", key.decode())
        if node.value(i) != value:
            raise MstError("mst-value-mismatch", key.decode())
        return node, i

    def _split(self, parent: Node, i: int, key: bytes) -> tuple[Child, Child]:
        """The parts of a subtree before and after `key`, which is not in it."""
        if parent.subtree(i) == NULL:
            return NULL, NULL
        node = self._child(parent, i)
        at = bisect_left(node.keys, key)
        return node.split(at, key, self._split(node, at, key))

    def _join(self, before: Node, i: int, after: Node, j: int) -> Child:
        """One subtree of two, `before`'s at `i` and `after`'s at `j`, that stand on the same layer."""
        if is_bare(before.subtree(i)):
            return after.subtree(j)
        if is_bare(after.subtree(j)):
            return before.subtree(i)
        left, right = self._child(before, i), self._child(after, j)
        left.join(self._join(left, len(left.keys), right, 0), right)
        return left

    def _child(self, node: Node, i: int) -> Node:
        """Subtree `i` of the node, which is not null, opened."""
        child = node.subtree(i)
        return child if isinstance(child, Node) else self._open(node, i, child)

    def _open(self, node: Node, i: int, link: bytes) -> Node:
        if node.layer == 0:
            raise MstError("mst-key-layer", "a subtree below layer 0")
        low, high = node.bounds(i)
        opened = node.opened[i] = decode(self._block(link[len(LINK) :]), node.layer - 1, low, high)
        opened.link = link
        return opened

    def _block(self, cid: bytes) -> bytes:
        data = self._blocks.get(cid)
        if data is None:
            raise MstError("mst-node-missing", str(Cid(cid)))
        return data

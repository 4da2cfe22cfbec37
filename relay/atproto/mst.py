"""The Merkle search tree of a repository, as far as one commit shows it, and the undoing of what the commit did.

`commit` calls this with the nodes that came along, opened and proven to keep the rules (`mst_read`). `invert` takes the
changes back out of the new tree and returns the root that the tree had before: only nodes on the way are changed
(`mst_node`) and encoded again. Knows nothing of records, signatures or events.
Specification: https://atproto.com/specs/repository
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import sha256

from relay.atproto.cid import Cid
from relay.atproto.errors import MstError
from relay.atproto.mst_node import Child, Node, encode, is_bare, record_link, subtree_link, without_entry
from relay.atproto.mst_read import LINK, NULL, TREE_LINK, Opened, Read, key_depth
from relay.atproto.operations import Change

__all__ = ["REASONS", "check_record", "has_records", "invert", "key_depth"]

REASONS = frozenset(
    {
        "mst-key-missing",
        "mst-key-present",
        "mst-node-missing",
        "mst-value-mismatch",
    }
)

EMPTY_TREE = Cid.of_dag_cbor(b"\xa2ae\x80al\xf6")


def invert(root: Cid, changes: Sequence[Change], opened: Opened, pause: Callable[[], None] | None = None) -> Cid:
    """The root of the tree as it was before `changes`, given the nodes that the commit came with.

    Paths are distinct, so the changes can be undone in any order. Deletions first, then by path, is the reference
    relay's order, and with it decides which nodes a producer has to send along. Raises MstError: the changes are not
    what led to this tree, or a node that is needed is not there. `pause` is called before each change.
    """
    if len(changes) == 1:
        before = _undo_in_one_node(root, changes[0], opened)
        if before is not None:
            return before
    for path, before, after in changes:
        if before == after:
            check_record(root, path, after, opened)
    undone = sorted([change for change in changes if change.before != change.after], key=_undo_order)
    # A commit without operations may come without a single node.
    return _undo_in_tree(root, undone, opened, pause) if undone else root


def _undo_in_tree(root: Cid, changes: Sequence[Change], opened: Opened, pause: Callable[[], None] | None) -> Cid:
    tree = _PartialTree(root, opened)
    for change in changes:
        if pause is not None:
            pause()
        key = change.path.encode()
        if change.after is None:
            assert change.before is not None
            tree.insert(key, LINK + change.before)
        elif change.before is None:
            tree.remove(key, LINK + change.after)
        else:
            tree.replace(key, LINK + change.after, LINK + change.before)
    return tree.root()


def _undo_order(change: Change) -> tuple[bool, str]:
    return change.after is not None, change.path


def check_record(root: Cid, path: str, record: Cid | None, opened: Opened) -> None:
    """Raise MstError unless the tree has this record at `path`, or none if it is None.

    `mst-node-missing` when the nodes that came along do not tell.
    """
    key = path.encode()
    cid: bytes = root
    while True:
        node = opened.get(cid)
        if node is None:
            raise MstError("mst-node-missing", str(Cid(cid)))
        _, keys, fields, left, _ = node
        i = bisect_left(keys, key)
        if i < len(keys) and keys[i] == key:
            if record is None:
                raise MstError("mst-key-present", path)
            if record_link(fields, i) != LINK + record:
                raise MstError("mst-value-mismatch", path)
            return
        link = subtree_link(fields, i) if i else left
        if link == NULL:
            if record is not None:
                raise MstError("mst-key-missing", path)
            return
        cid = link[len(LINK) :]


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


def _undo_in_one_node(root: Cid, change: Change, opened: Opened) -> Cid | None:
    """`invert` of one change to the entries of one node, and to nothing but links above it.

    Most commits are like that, and need no tree to be undone. None when this one is not, or when the tree has to find
    and name what is wrong with it.
    """
    above: list[tuple[bytes, bytes]] = []
    key = change.path.encode()
    depth = key_depth(key)
    cid: bytes = root
    while True:
        read = opened.get(cid)
        if read is None:
            return None
        layer, keys, fields, left, data = read
        i = bisect_left(keys, key)
        if layer <= depth:
            break
        link = subtree_link(fields, i) if i else left
        if link == NULL:
            return None
        above.append((data, link))
        cid = link[len(LINK) :]
    data = _undo_here(read, i, key, change) if layer == depth else b""
    if not data:
        return None
    link = TREE_LINK + sha256(data).digest()
    for data, old in reversed(above):
        parts = data.split(old)
        if len(parts) != 2:
            return None
        link = TREE_LINK + sha256(link.join(parts)).digest()
    return Cid(link[len(LINK) :])


def _undo_here(read: Read, i: int, key: bytes, change: Change) -> bytes:
    """The node without the change, if that leaves the subtrees as they are, and at least one entry; else nothing."""
    _, keys, fields, _, _ = read
    _, before, after = change
    found = i < len(keys) and keys[i] == key
    if after is not None and (not found or record_link(fields, i) != LINK + after):
        return b""
    if before is None:
        return without_entry(read, i) if after is not None else b""
    node = Node.of(read, NULL)
    if after is not None:
        node.replace(i, LINK + before)
    elif found or node.subtree(i) != NULL:
        return b""
    else:
        node.insert(i, key, LINK + before, (NULL, NULL))
    return node.encoded()


class _PartialTree:
    """The nodes of a tree that have been taken up to be changed. Undoing may leave some without entries: `root` drops
    them."""

    def __init__(self, root: Cid, opened: Opened) -> None:
        self._opened = opened
        self._root = self._take_up(LINK + root)

    def insert(self, key: bytes, value: bytes) -> None:
        """Put back a record that is not in the tree."""
        layer = key_depth(key)
        while self._root.layer < layer:
            raised = Node.bare(self._root.layer + 1)
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
            # A bridge under the top can only have come with the commit, so a node that did not come along is not one.
            if isinstance(child, bytes) and (link := Cid(child[len(LINK) :])) not in self._opened:
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
            if node.subtree(i) == NULL:
                raise MstError("mst-key-missing", key.decode())
            node = self._child(node, i)
        if node.value(i) != value:
            raise MstError("mst-value-mismatch", key.decode())
        return node, i

    def _split(self, parent: Node, i: int, key: bytes) -> tuple[Child, Child]:
        """The parts of a subtree before and after `key`, which is not in it."""
        if parent.subtree(i) == NULL:
            return NULL, NULL
        node = self._child(parent, i)
        at = bisect_left(node.keys, key)
        return node.split(at, self._split(node, at, key))

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
        """Subtree `i` of the node, which is not null, taken up."""
        child = node.subtree(i)
        if isinstance(child, bytes):
            child = node.opened[i] = self._take_up(child)
        return child

    def _take_up(self, link: bytes) -> Node:
        read = self._opened.get(link[len(LINK) :])
        if read is None:
            raise MstError("mst-node-missing", str(Cid(link[len(LINK) :])))
        return Node.of(read, link)

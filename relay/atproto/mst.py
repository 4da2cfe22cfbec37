"""The Merkle search tree of a repository, as far as one commit shows it, and the undoing of what the commit did.

`commit` calls this with the nodes that came along, opened and proven to keep the rules (`mst_read`). `invert` takes the
changes back out of the new tree and returns the root that the tree had before: only nodes on the way are changed
(`mst_node`) and encoded again. Knows nothing of records, signatures or events.
Specification: https://atproto.com/specs/repository
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from relay.atproto.cid import Cid
from relay.atproto.errors import MstError
from relay.atproto.mst_node import Child, Node, encode, id_of, is_bare, record_link, without_entry
from relay.atproto.mst_read import LINK, Opened, Read, key_depth
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

    Paths are distinct, so the changes can be undone in any order, but not every order takes the same nodes. Producers
    should send along what any order takes; some send what their own one does. Raises MstError: the changes are not what
    led to this tree, or nodes that are needed are not there. `pause` is called before each change.
    """
    if len(changes) == 1:
        before = _undo_in_one_node(root, changes[0], opened)
        if before is not None:
            return before
    for path, before, after in changes:
        if before == after:
            check_record(root, path, after, opened)
    listed = [change for change in changes if change.before != change.after]
    # A commit without operations may come without a single node.
    return _undo_in_some_order(root, listed, opened, pause) if listed else root


def _undo_in_some_order(root: Cid, listed: list[Change], opened: Opened, pause: Callable[[], None] | None) -> Cid:
    """Undo in the reference relay's order; where nodes are not there for that, backwards, and then as listed."""
    for changes in (sorted(listed, key=_undo_order), listed[::-1]):
        try:
            return _undo_in_tree(root, changes, opened, pause)
        except MstError as error:
            if error.reason != "mst-node-missing" or len(listed) == 1:
                raise
    return _undo_in_tree(root, listed, opened, pause)


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
    cid: bytes | None = root
    while cid is not None:
        node = opened.get(cid)
        if node is None:
            raise MstError("mst-node-missing", str(Cid(cid)))
        _, keys, children, _, _ = node
        i = bisect_left(keys, key)
        if i < len(keys) and keys[i] == key:
            if record is None:
                raise MstError("mst-key-present", path)
            if record_link(node, i) != LINK + record:
                raise MstError("mst-value-mismatch", path)
            return
        cid = children[i]
    if record is not None:
        raise MstError("mst-key-missing", path)


def has_records(root: Cid, collection: str, opened: Opened) -> bool | None:
    """Whether the tree at `root` has a record of `collection`; None when a node that would tell is not in `opened`.

    A node without a key of the collection can have such keys in one of its subtrees only, so one way down is walked.
    """
    prefix = collection.encode() + b"/"
    cid: bytes | None = root
    while cid is not None:
        node = opened.get(cid)
        if node is None:
            return None
        _, keys, children, _, _ = node
        i = bisect_left(keys, prefix)
        if i < len(keys) and keys[i].startswith(prefix):
            return True
        cid = children[i]
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
        layer, keys, children, _, data = read
        i = bisect_left(keys, key)
        if layer <= depth:
            break
        child = children[i]
        if child is None:
            return None
        cid = child
        above.append((data, cid))
    data = _undo_here(read, i, key, change) if layer == depth else b""
    if not data:
        return None
    for outer, old in reversed(above):
        parts = outer.split(old)
        if len(parts) != 2:
            return None
        data = id_of(data).join(parts)
    return Cid(id_of(data))


def _undo_here(read: Read, i: int, key: bytes, change: Change) -> bytes:
    """The node without the change, if that leaves the subtrees as they are, and at least one entry; else nothing."""
    _, keys, children, _, data = read
    _, before, after = change
    found = i < len(keys) and keys[i] == key
    if after is None:
        if before is None or found or children[i] is not None:
            return b""
        node = Node.of(b"", read)
        node.insert(i, key, LINK + before, (None, None))
        return node.encoded()
    if not found or record_link(read, i) != LINK + after:
        return b""
    if before is None:
        return without_entry(read, i)
    parts = data.split(after)
    return before.join(parts) if len(parts) == 2 else b""


class _PartialTree:
    """The nodes of a tree that have been taken up to be changed. Undoing may leave some without entries: `root` drops
    them."""

    def __init__(self, root: Cid, opened: Opened) -> None:
        self._opened = opened
        self._root = self._take_up(root)

    def insert(self, key: bytes, value: bytes) -> None:
        """Put back a record that is not in the tree."""
        layer = key_depth(key)
        while self._root.layer < layer:
            self._root = Node.bare(self._root.layer + 1, self._root)
        node = self._root
        while node.layer > layer:
            i = bisect_left(node.keys, key)
            if node.children[i] is None:
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
            child = node.children[0]
            # A bridge under the top can only have come with the commit, so a node that did not come along is not one.
            if isinstance(child, bytes) and child not in self._opened:
                return Cid(child)
            if child is None:
                return EMPTY_TREE
            node = self._child(node, 0)
        cid = encode(node)
        assert cid is not None
        return Cid(cid)

    def _find(self, key: bytes, value: bytes) -> tuple[Node, int]:
        node = self._root
        while True:
            keys = node.keys
            i = bisect_left(keys, key)
            if i < len(keys) and keys[i] == key:
                break
            if node.children[i] is None:
                raise MstError("mst-key-missing", key.decode())
            node = self._child(node, i)
        if node.value(i) != value:
            raise MstError("mst-value-mismatch", key.decode())
        return node, i

    def _split(self, parent: Node, i: int, key: bytes) -> tuple[Child, Child]:
        """The parts of a subtree before and after `key`, which is not in it."""
        if parent.children[i] is None:
            return None, None
        node = self._child(parent, i)
        at = bisect_left(node.keys, key)
        return node.split(at, self._split(node, at, key))

    def _join(self, before: Node, i: int, after: Node, j: int) -> Child:
        """One subtree of two, `before`'s at `i` and `after`'s at `j`, that stand on the same layer."""
        if is_bare(before.children[i]):
            return after.children[j]
        if is_bare(after.children[j]):
            return before.children[i]
        left, right = self._child(before, i), self._child(after, j)
        left.join(self._join(left, len(left.keys), right, 0), right)
        return left

    def _child(self, node: Node, i: int) -> Node:
        """Subtree `i` of the node, which is not null, taken up."""
        child = node.children[i]
        if not isinstance(child, Node):
            assert child is not None
            child = node.children[i] = self._take_up(child)
        return child

    def _take_up(self, cid: bytes) -> Node:
        read = self._opened.get(cid)
        if read is None:
            raise MstError("mst-node-missing", str(Cid(cid)))
        return Node.of(cid, read)

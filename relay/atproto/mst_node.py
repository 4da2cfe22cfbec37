"""One node of a Merkle search tree that is being changed, and its encoding as it is then.

Called by `mst`, which undoes operations. A node is kept as the pieces that `mst_read` made of it, so that most of a
changed node is written back as it came. Must not know where nodes come from: all that it is given is sound.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TypeAlias

from relay.atproto.mst_read import FIELDS, KEY_HEADS, LINK_SIZE, LINKED, LINKS, NULL, SHARED, TREE_LINK, Read, start

# Where more than so many bytes would be looked through for the links of children, a node is put together again.
MAX_SEARCHED = 100_000
# What stands between an entry's two links: its subtree's, which may be null and is one byte then, and its record's.
_BETWEEN = b"av"


def subtree_link(fields: list[bytes], i: int) -> bytes:
    """The link to the subtree before entry `i`, which is not the first."""
    links = fields[FIELDS * i - 1]
    return links[:LINK_SIZE] if links[0] == LINKED else NULL


def record_link(fields: list[bytes], i: int) -> bytes:
    """The link to the record of entry `i`."""
    links = fields[FIELDS * i + LINKS]
    return links[LINK_SIZE + 2 if links[0] == LINKED else 3 :]


def without_entry(read: Read, i: int) -> bytes:
    """The encoding of a node without entry `i`: what most commits added.

    Nothing when there is no other entry, or when it has subtrees on both sides.
    """
    _, keys, fields, left, _ = read
    before, after = subtree_link(fields, i) if i else left, subtree_link(fields, i + 1)
    if len(keys) == 1 or (before != NULL and after != NULL):
        return b""
    joined = after if before == NULL else before
    at = FIELDS * i + 1
    kept = fields[:at] + fields[at + FIELDS :]
    kept[0] = start(len(keys) - 1)
    kept[-1] = b"al" + (left if i else joined)
    if i:
        links = kept[at - 2]
        kept[at - 2] = joined + links[LINK_SIZE if links[0] == LINKED else 1 :]
    if i + 1 < len(keys):
        key = keys[i + 1]
        shared = _shared_length(keys[i - 1], key) if i else 0
        kept[at : at + 3] = KEY_HEADS[len(key) - shared], key[shared:], SHARED[shared]
    return b"".join(kept)


class Node:
    """An opened node: its keys, and the fields of its encoding.

    Subtree `i` stands before `keys[i]`, the last one after all keys. Those that were opened are in `opened`; the links
    to the others are `left` for the first, in `fields` for the rest. `link` and `source` are what was read, `source`
    until it takes more than new links to bring it up to date.
    """

    __slots__ = ("fields", "keys", "layer", "left", "link", "opened", "source")

    def __init__(self, layer: int, keys: list[bytes], fields: list[bytes], left: bytes, source: bytes = b"") -> None:
        self.layer = layer
        self.keys = keys
        self.fields = fields
        self.left = left
        self.source = source
        self.link = b""
        self.opened: dict[int, Node] = {}

    @classmethod
    def of(cls, read: Read, link: bytes) -> Node:
        """The node that was read behind `link`. What was read stays as it is."""
        layer, keys, fields, left, source = read
        # A bridge is not kept as it was read: when nothing is left below it, it goes as well.
        node = cls(layer, keys.copy(), fields.copy(), left, source if keys else b"")
        node.link = link
        return node

    @classmethod
    def bare(cls, layer: int) -> Node:
        """A node without entries."""
        return cls(layer, [], [b""], NULL)

    def subtree(self, i: int) -> Child:
        """Subtree `i` if it was opened, else the link to it."""
        return self.opened.get(i) or (subtree_link(self.fields, i) if i else self.left)

    def value(self, i: int) -> bytes:
        """The link to the record at `keys[i]`."""
        return record_link(self.fields, i)

    def bridge(self, i: int) -> None:
        """An entry-less node where there is no subtree, for a key further down."""
        self.opened[i] = Node.bare(self.layer - 1)
        self.source = b""

    def insert(self, i: int, key: bytes, value: bytes, sides: tuple[Child, Child]) -> None:
        """A new entry before `keys[i]`; its two sides take the place of subtree `i`."""
        self._shift_opened(i + 1, 1)
        self.keys.insert(i, key)
        self.fields[-1] = b""
        at = FIELDS * i + 1
        self.fields[at:at] = [b"", b"", b"", NULL + _BETWEEN + value, b""]
        self._put(i, sides[0])
        self._put(i + 1, sides[1])
        self._changed(i)
        self._changed(i + 1)

    def replace(self, i: int, value: bytes) -> None:
        """Another value for `keys[i]`."""
        at = FIELDS * i + LINKS
        links = self.fields[at]
        self.fields[at] = links[: LINK_SIZE if links[0] == LINKED else 1] + _BETWEEN + value
        self.source = b""

    def remove(self, i: int, joined: Child) -> None:
        """Entry `i` goes; `joined` takes the place of the subtrees on its sides."""
        self._shift_opened(i + 1, -1)
        del self.keys[i]
        at = FIELDS * i + 1
        del self.fields[at : at + FIELDS]
        self._put(i, joined)
        self._changed(i)

    def split(self, i: int, sides: tuple[Child, Child]) -> tuple[Node, Node]:
        """This node with the entries before `keys[i]` and a new one with the rest; `sides` is subtree `i`, split."""
        at = FIELDS * i + 1
        right = Node(self.layer, self.keys[i:], [b"", *self.fields[at:]], NULL)
        right.opened = {j - i: child for j, child in self.opened.items() if j > i}
        del self.fields[at:], self.keys[i:]
        self.opened = {j: child for j, child in self.opened.items() if j < i}
        self._put(i, sides[0])
        self._changed(i)
        right._put(0, sides[1])
        right._changed(0)
        return self, right

    def join(self, middle: Child, right: Node) -> None:
        """Take over the entries of the node to the right; `middle` is the subtree between the two."""
        border = len(self.keys)
        self.keys += right.keys
        self.fields[-1] = b""
        self.fields += right.fields[1:]
        self.opened |= {border + j: child for j, child in right.opened.items()}
        self._put(border, middle)
        self._changed(border)

    def encoded(self) -> bytes:
        """The fields with all that changed in them; empty when neither here nor below there is an entry."""
        for i, child in self.opened.items():
            self._relink(i, encode(child))
        if not self.keys:
            return b"" if self.left == NULL else b"\xa2ae\x80al" + self.left
        self.fields[0] = start(len(self.keys))
        self.fields[-1] = b"al" + self.left
        return b"".join(self.fields)

    def _put(self, i: int, child: Child) -> None:
        if isinstance(child, Node):
            self.opened[i] = child
        else:
            self.opened.pop(i, None)
            self._relink(i, child)

    def _relink(self, i: int, link: bytes) -> None:
        if i:
            at = FIELDS * i - 1
            links = self.fields[at]
            self.fields[at] = link + links[LINK_SIZE if links[0] == LINKED else 1 :]
        else:
            self.left = link

    def _shift_opened(self, first: int, by: int) -> None:
        if self.opened:
            self.opened = {j + by if j >= first else j: child for j, child in self.opened.items()}

    def _changed(self, i: int) -> None:
        """Entry `i` has another one before it now, if there is an entry `i`."""
        self.source = b""
        if i < len(self.keys):
            key = self.keys[i]
            shared = _shared_length(self.keys[i - 1], key) if i else 0
            at = FIELDS * i + 1
            self.fields[at : at + 3] = KEY_HEADS[len(key) - shared], key[shared:], SHARED[shared]


Child: TypeAlias = Node | bytes


def is_bare(child: Child) -> bool:
    """Whether there is no entry here or below, for example because undoing took the last one out."""
    while isinstance(child, Node) and not child.keys:
        child = child.subtree(0)
    return child == NULL


def encode(node: Node) -> bytes:
    """The link to this node as it is now, or null when neither it nor any node below it has an entry."""
    data = node.source
    if len(data) * len(node.opened) > MAX_SEARCHED:
        data = b""
    if data:
        for child in node.opened.values():
            # An old link marks the place of the new one if it stands there once, as it does in every sound node.
            if data.count(child.link) != 1:
                data = b""
                break
            data = data.replace(child.link, encode(child))
    data = data or node.encoded()
    return TREE_LINK + sha256(data).digest() if data else NULL


def _shared_length(previous: bytes, key: bytes) -> int:
    length = min(len(previous), len(key))
    difference = int.from_bytes(previous[:length]) ^ int.from_bytes(key[:length])
    return length - (difference.bit_length() + 7) // 8

"""One node of a Merkle search tree: its encoding, the rules it must keep, and the changes undoing makes to it.

Called by `mst` alone. A node's encoding has one fixed shape, so a pattern reads it: strictly, without a general CBOR
decoder, and keeping the bytes of every entry, so that most of a changed node is written back as it was read.
Specification: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TypeAlias

from relay.atproto.cid import DAG_CBOR_PREFIX
from relay.atproto.errors import MstError

REASONS = frozenset(
    {
        "mst-empty-node",
        "mst-key-layer",
        "mst-key-order",
        "mst-node-malformed",
    }
)

# The specification asks for a limit on keys without naming one; this is the reference implementation's.
MAX_KEY = 1024

# Links are kept as they stand in a node: a CID behind tag 42, or null where there is no subtree.
LINK = b"\xd8\x2a\x58\x25\x00"
NULL = b"\xf6"

# Below and above all keys: the bounds of the root.
LOWEST, HIGHEST = b"", b"\xff"


def key_depth(key: bytes) -> int:
    """How far above the leaves a key stands: the zero bits that its sha-256 begins with, in pairs."""
    return (256 - int.from_bytes(sha256(key).digest()).bit_length()) // 2


class Node:
    """An opened node. `children[i]` is the subtree before `keys[i]`, the last one the subtree after all keys.

    All keys here and below lie between `low` and `high`. `heads` are the encoded beginnings of the entries, up to
    their links; one is empty when the key before it, on which its prefix rests, is no longer the one that was read.
    `link` and `source` are those that were read, `source` until it takes more than new links to bring it up to date.
    """

    __slots__ = ("children", "heads", "high", "keys", "layer", "link", "low", "source", "values")

    def __init__(self, layer: int, low: bytes, high: bytes, child: Child = NULL) -> None:
        self.layer = layer
        self.low = low
        self.high = high
        self.link = b""
        self.source = b""
        self.heads: list[bytes] = []
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.children: list[Child] = [child]

    def bounds(self, i: int) -> tuple[bytes, bytes]:
        """The keys between which `children[i]` lies."""
        return (self.keys[i - 1] if i else self.low), (self.keys[i] if i < len(self.keys) else self.high)

    def bridge(self, i: int) -> None:
        """An entry-less node where there is no subtree, for a key further down."""
        self.children[i] = Node(self.layer - 1, *self.bounds(i))
        self.source = b""

    def insert(self, i: int, key: bytes, value: bytes, sides: tuple[Child, Child]) -> None:
        """A new entry before `keys[i]`; its two sides take the place of `children[i]`."""
        self.heads.insert(i, b"")
        self.keys.insert(i, key)
        self.values.insert(i, value)
        self.children[i : i + 1] = sides
        self._changed(i + 1)

    def replace(self, i: int, value: bytes) -> None:
        """Another value for `keys[i]`."""
        self.values[i] = value
        self.source = b""

    def remove(self, i: int, joined: Child) -> None:
        """Entry `i` goes; `joined` takes the place of the subtrees on its sides."""
        del self.heads[i], self.keys[i], self.values[i]
        self.children[i : i + 2] = [joined]
        self._changed(i)

    def split(self, i: int, key: bytes, sides: tuple[Child, Child]) -> tuple[Node, Node]:
        """This node with the entries before `keys[i]` and a new one with the rest; `sides` is `children[i]`, split."""
        left, right = self, Node(self.layer, key, self.high)
        right.heads, left.heads = left.heads[i:], left.heads[:i]
        right.keys, left.keys = left.keys[i:], left.keys[:i]
        right.values, left.values = left.values[i:], left.values[:i]
        right.children, left.children = [sides[1], *left.children[i + 1 :]], [*left.children[:i], sides[0]]
        left.high = key
        left._changed(i)
        right._changed(0)
        return left, right

    def join(self, middle: Child, right: Node) -> None:
        """Take over the entries of the node to the right; `middle` is the subtree between the two."""
        border = len(self.keys)
        self.heads += right.heads
        self.keys += right.keys
        self.values += right.values
        self.children[border:] = [middle, *right.children[1:]]
        self.high = right.high
        self._changed(border)

    def _changed(self, i: int) -> None:
        """Entry `i` has another one before it now, if there is an entry `i`."""
        self.source = b""
        if i < len(self.heads):
            self.heads[i] = b""


Child: TypeAlias = Node | bytes

_TREE_LINK = rb"\xd8\x2a\x58\x25\x00\x01\x71\x12\x20.{32}"
_VALUE_LINK = rb"\xd8\x2a\x58\x25\x00\x01[\x55\x71]\x12\x20.{32}"

# A node is its count of entries, the entries, and the leftmost subtree; the last alternative takes in all from the
# first byte that is none of these. In an entry: all before the links, and in that the length and text of the key's
# own part and the length of the part it shares with the key before; the subtree to the right; the value.
# No byte of a key can begin the integer after "ap", so an entry reads in one way only.
_parts_of = re.compile(
    rb"(\xa4ak([\x40-\x57]|\x58.|\x59..)([A-Za-z0-9._:~/-]+)ap([\x00-\x17]|\x18.|\x19..)at)(\xf6|%b)av(%b)"
    rb"|al(\xf6|%b)\Z"
    rb"|\A\xa2ae([\x80-\x97]|\x98.|\x99..)"
    rb"|.+" % (_TREE_LINK, _VALUE_LINK, _TREE_LINK),
    re.DOTALL,
).findall
_LEFT, _COUNT = 6, 7


def _head(major: int, number: int) -> bytes:
    """The shortest CBOR head, of a number that fits 16 bits."""
    if number < 24:
        return bytes([major | number])
    if number < 256:
        return bytes([major | 24, number])
    return bytes([major | 25, *number.to_bytes(2)])


# All heads that a key can have; what is not among them is too long, or not the shortest form.
_KEY_HEADS = {length: _head(0x40, length) for length in range(MAX_KEY + 1)}
_NUMBERS = {_head(0x00, number): number for number in range(MAX_KEY + 1)}
_TOO_LONG = MAX_KEY + 1


def decode(data: bytes, layer: int | None, low: bytes, high: bytes) -> Node:
    """Read a node that must stand on `layer` with all keys between `low` and `high`; `layer` is None for a root.

    Raises MstError when it is not canonical or breaks a rule of the structure. Of the keys only the first is hashed:
    that the others belong on its layer was proven when they came, as it is now for those of the operations.
    """
    parts = _parts_of(data)
    entries = parts[1:-1]
    left = parts[-1][_LEFT] if parts else b""
    if not left or parts[0][_COUNT] != _head(0x80, len(entries)):
        raise MstError("mst-node-malformed")
    if not entries:
        return _bare_node(layer, low, high, left)
    heads, lengths, suffixes, shared, rights, values, _, _ = zip(*entries, strict=True)
    keys = _keys(lengths, suffixes, shared)
    if not (low < keys[0] and keys[-1] < high):
        raise MstError("mst-key-order", "not between the keys above")
    depth = key_depth(keys[0])
    if layer is not None and depth != layer:
        raise MstError("mst-key-layer", keys[0].decode())
    node = Node(depth, low, high, left)
    node.source = data
    node.heads, node.keys, node.values = list(heads), keys, list(values)
    node.children += rights
    return node


def _bare_node(layer: int | None, low: bytes, high: bytes, left: bytes) -> Node:
    """A node without entries: the empty tree, or a bridge over a layer. Never a bridge at the top."""
    if (layer is None) != (left == NULL):
        raise MstError("mst-empty-node")
    return Node(layer or 0, low, high, left)


def _keys(lengths: tuple[bytes, ...], suffixes: tuple[bytes, ...], shared: tuple[bytes, ...]) -> list[bytes]:
    if lengths != tuple(map(_KEY_HEADS.get, map(len, suffixes))):
        raise MstError("mst-node-malformed", "length of a key")
    keys = []
    key = b""
    for suffix, kept in zip(suffixes, map(_NUMBERS.get, shared), strict=True):
        if kept is None or kept > len(key):
            raise MstError("mst-node-malformed", "prefix of a key")
        # That the first byte which differs is greater means two things: the keys rise, and no more could be shared.
        if kept < len(key) and suffix[0] <= key[kept]:
            raise MstError("mst-key-order")
        key = key[:kept] + suffix
        keys.append(key)
    return keys


def is_bare(child: Child) -> bool:
    """Whether there is no entry here or below, be it that undoing took the last one out."""
    while isinstance(child, Node) and not child.keys:
        child = child.children[0]
    return child == NULL


def encode(node: Node) -> bytes:
    """The link to this node as it is now, or null when neither it nor any node below it has an entry."""
    data = (node.source and _relinked(node)) or _rebuilt(node)
    return LINK + DAG_CBOR_PREFIX + sha256(data).digest() if data else NULL


def _relinked(node: Node) -> bytes:
    """The encoding that was read, with new links to opened subtrees; empty when an old one does not mark its place."""
    data = node.source
    for child in node.children:
        if type(child) is Node:
            # It does when it stands there once, as it does in every sound node.
            if data.count(child.link) != 1:
                return b""
            data = data.replace(child.link, encode(child))
    return data


def _rebuilt(node: Node) -> bytes:
    left, *rights = [child if isinstance(child, bytes) else encode(child) for child in node.children]
    if not node.keys and left == NULL:
        return b""
    for i, head in enumerate(node.heads):
        if not head:
            node.heads[i] = _entry_head(node.keys[i - 1] if i else b"", node.keys[i])
    entries = [b"%b%bav%b" % entry for entry in zip(node.heads, rights, node.values, strict=True)]
    return b"\xa2ae%b%bal%b" % (_head(0x80, len(entries)), b"".join(entries), left)


def _entry_head(previous: bytes, key: bytes) -> bytes:
    length = min(len(previous), len(key))
    difference = int.from_bytes(previous[:length]) ^ int.from_bytes(key[:length])
    shared = length - (difference.bit_length() + 7) // 8
    return b"\xa4ak%b%bap%bat" % (_head(0x40, len(key) - shared), key[shared:], _head(0x00, shared))

"""One node of a Merkle search tree: its encoding, the rules it must keep, and the changes undoing makes to it.

Called by `mst` alone. A node's encoding has one fixed shape, so a pattern reads it: strictly, without a general CBOR
decoder, and keeping the bytes of every entry, so that most of a changed node is written back as it was read.
Specification: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import TypeAlias

from relay.atproto.cid import DAG_CBOR_PREFIX
from relay.atproto.errors import MstError

REASONS = frozenset(
    {
        "mst-empty-node",
        "mst-key-layer",
        "mst-key-length",
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
    digest = sha256(key).digest()
    if digest[0]:
        return _PAIRS[digest[0]]
    return (256 - int.from_bytes(digest).bit_length()) // 2


_PAIRS = [(8 - byte.bit_length()) // 2 for byte in range(256)]


class Node:
    """An opened node. `children[i]` is the subtree before `keys[i]`, the last one the subtree after all keys.

    All keys here and below lie between `low` and `high`. `heads` are the encoded beginnings of the entries, up to
    their links; one is empty when the key before it, on which its prefix rests, is no longer the one that was read.
    """

    __slots__ = ("children", "heads", "high", "keys", "layer", "low", "values")

    def __init__(self, layer: int, low: bytes, high: bytes, child: Child = NULL) -> None:
        self.layer = layer
        self.low = low
        self.high = high
        self.heads: list[bytes] = []
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.children: list[Child] = [child]

    def bounds(self, i: int) -> tuple[bytes, bytes]:
        """The keys between which `children[i]` lies."""
        return (self.keys[i - 1] if i else self.low), (self.keys[i] if i < len(self.keys) else self.high)

    def insert(self, i: int, key: bytes, value: bytes, sides: tuple[Child, Child]) -> None:
        """A new entry before `keys[i]`; its two sides take the place of `children[i]`."""
        self.heads.insert(i, b"")
        self.keys.insert(i, key)
        self.values.insert(i, value)
        self.children[i : i + 1] = sides
        self._forget_head(i + 1)

    def remove(self, i: int, joined: Child) -> None:
        """Entry `i` goes; `joined` takes the place of the subtrees on its sides."""
        del self.heads[i], self.keys[i], self.values[i]
        self.children[i : i + 2] = [joined]
        self._forget_head(i)

    def split(self, i: int, key: bytes, sides: tuple[Child, Child]) -> tuple[Node, Node]:
        """This node with the entries before `keys[i]` and a new one with the rest; `sides` is `children[i]`, split."""
        left, right = self, Node(self.layer, key, self.high)
        right.heads, left.heads = left.heads[i:], left.heads[:i]
        right.keys, left.keys = left.keys[i:], left.keys[:i]
        right.values, left.values = left.values[i:], left.values[:i]
        right.children, left.children = [sides[1], *left.children[i + 1 :]], [*left.children[:i], sides[0]]
        left.high = key
        right._forget_head(0)
        return left, right

    def join(self, middle: Child, right: Node) -> None:
        """Take over the entries of the node to the right; `middle` is the subtree between the two."""
        border = len(self.keys)
        self.heads += right.heads
        self.keys += right.keys
        self.values += right.values
        self.children[border:] = [middle, *right.children[1:]]
        self.high = right.high
        self._forget_head(border)

    def _forget_head(self, i: int) -> None:
        if i < len(self.heads):
            self.heads[i] = b""


Child: TypeAlias = Node | bytes

_TREE_LINK = rb"\xd8\x2a\x58\x25\x00\x01\x71\x12\x20.{32}"
_VALUE_LINK = rb"\xd8\x2a\x58\x25\x00\x01[\x55\x71]\x12\x20.{32}"
# Everything before the links, therein the length and text of the key's own part and how much it shares with the key
# before; right subtree; value. No byte of a key can begin the integer behind "ap": an entry reads in one way only.
_ENTRY = (
    rb"(\xa4ak([\x40-\x57]|\x58.|\x59..)([A-Za-z0-9._:~/-]*)ap([\x00-\x17]|\x18.|\x19..)at)"
    rb"(\xf6|%b)av(%b)" % (_TREE_LINK, _VALUE_LINK)
)
_NODE = rb"\xa2ae([\x80-\x97]|\x98.|\x99..)((?:%b)*+)al(\xf6|%b)" % (re.sub(rb"\((?!\?)", b"(?:", _ENTRY), _TREE_LINK)
_read_entries = re.compile(_ENTRY, re.DOTALL).findall
_read_node = re.compile(_NODE, re.DOTALL).fullmatch


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

    Raises MstError when it is not canonical or breaks a rule of the structure.
    """
    match = _read_node(data)
    if match is None:
        raise MstError("mst-node-malformed")
    count, body, left = match.groups()
    entries = _read_entries(body)
    if count != _head(0x80, len(entries)):
        raise MstError("mst-node-malformed", "count of entries")
    if not entries:
        return _bare_node(layer, low, high, left)
    heads, lengths, suffixes, shared, rights, values = zip(*entries, strict=True)
    keys = _keys(lengths, suffixes, shared)
    node = Node(key_depth(keys[0]) if layer is None else layer, low, high, left)
    node.heads, node.keys, node.values = list(heads), keys, list(values)
    node.children += rights
    _check_place(node)
    return node


def _bare_node(layer: int | None, low: bytes, high: bytes, left: bytes) -> Node:
    """A node without entries: the empty tree, or a bridge over a layer. Never a bridge at the top."""
    if (layer is None) != (left == NULL):
        raise MstError("mst-empty-node")
    if layer == 0:
        raise MstError("mst-key-layer", "a subtree below layer 0")
    return Node(layer or 0, low, high, left)


def _keys(lengths: Iterable[bytes], suffixes: Iterable[bytes], shared: Iterable[bytes]) -> list[bytes]:
    keys = []
    key = b""
    for length, suffix, prefix in zip(lengths, suffixes, shared, strict=True):
        kept = _NUMBERS.get(prefix, _TOO_LONG)
        if kept > len(key) or length != _KEY_HEADS.get(len(suffix)):
            raise MstError("mst-node-malformed", "key")
        # That the first byte which differs is greater means two things: the keys rise, and no more could be shared.
        if suffix[:1] <= key[kept : kept + 1]:
            raise MstError("mst-key-order")
        key = key[:kept] + suffix
        if len(key) > MAX_KEY:
            raise MstError("mst-key-length")
        keys.append(key)
    return keys


def _check_place(node: Node) -> None:
    if not (node.low < node.keys[0] and node.keys[-1] < node.high):
        raise MstError("mst-key-order", "not between the keys above")
    layer = node.layer
    for key in node.keys:
        if key_depth(key) != layer:
            raise MstError("mst-key-layer", key.decode())
    if layer == 0 and node.children.count(NULL) != len(node.children):
        raise MstError("mst-key-layer", "a subtree below layer 0")


def encode(node: Node) -> bytes:
    """The link to this node as it is now, or null when neither it nor any node below it has an entry."""
    links = [child if isinstance(child, bytes) else encode(child) for child in node.children]
    if not node.keys and links[0] == NULL:
        return NULL
    parts = [b"\xa2ae", _head(0x80, len(node.keys))]
    for i, head in enumerate(node.heads):
        parts += (
            head or _entry_head(node.keys[i - 1] if i else b"", node.keys[i]),
            links[i + 1],
            b"av",
            node.values[i],
        )
    parts += (b"al", links[0])
    return LINK + DAG_CBOR_PREFIX + sha256(b"".join(parts)).digest()


def _entry_head(previous: bytes, key: bytes) -> bytes:
    length = min(len(previous), len(key))
    difference = int.from_bytes(previous[:length]) ^ int.from_bytes(key[:length])
    shared = length - (difference.bit_length() + 7) // 8
    return b"\xa4ak%b%bap%bat" % (_head(0x40, len(key) - shared), key[shared:], _head(0x00, shared))

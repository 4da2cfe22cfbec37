"""One node of a Merkle search tree: its encoding, the rules it must keep, and the changes undoing makes to it.

Called by `mst` and `collections`. A node's encoding has one fixed shape, so a pattern reads it: strictly, without a
general CBOR decoder, and keeping the bytes it read, so that most of a changed node is written back as it came.
Specification: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TypeAlias

from relay.atproto.cid import DAG_CBOR_PREFIX
from relay.atproto.drisl import head
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
TREE_LINK = LINK + DAG_CBOR_PREFIX

# Below and above all keys: the bounds of the root.
LOWEST, HIGHEST = b"", b"\xff"

# A node is read into fields: what stands before its first entry, and five for each entry: the head of the key's own
# part, that part, how much it shares with the key before, the links to the subtree on its right and to its record, and
# what follows up to the next entry. Joined they are the node again.
_FIELDS = 5
_LINKS = 4
_LINK_SIZE = 41
_VALUE_SIZE = 2 + _LINK_SIZE

# The pairs of zero bits at the front of a byte.
_ZERO_PAIRS = [(8 - byte.bit_length()) // 2 for byte in range(256)]


def key_depth(key: bytes) -> int:
    """How far above the leaves a key stands: the zero bits that its sha-256 begins with, in pairs."""
    digest = sha256(key).digest()
    depth = _ZERO_PAIRS[digest[0]]
    return depth if depth < 4 else (256 - int.from_bytes(digest).bit_length()) // 2


def subtree_link(fields: list[bytes], i: int) -> bytes:
    """The link to the subtree before entry `i`, which is not the first."""
    return fields[_FIELDS * i - 1][:-_VALUE_SIZE]


class Node:
    """An opened node: its keys, and the fields of its encoding.

    All keys here and below lie between `low` and `high`. Subtree `i` stands before `keys[i]`, the last one after all
    keys. Those that were opened are in `opened`; the links to the others are `left` for the first, in `fields` for
    the rest. `link` and `source` are what was read, `source` until it takes more than new links to bring it up to date.
    """

    __slots__ = ("fields", "high", "keys", "layer", "left", "link", "low", "opened", "source")

    def __init__(
        self, layer: int, low: bytes, high: bytes, left: bytes, keys: list[bytes], fields: list[bytes], source: bytes
    ) -> None:
        self.layer = layer
        self.low = low
        self.high = high
        self.left = left
        self.keys = keys
        self.fields = fields
        self.source = source
        self.link = b""
        self.opened: dict[int, Node] = {}

    @classmethod
    def bare(cls, layer: int, low: bytes, high: bytes, left: bytes = NULL) -> Node:
        """A node without entries."""
        return cls(layer, low, high, left, [], [b""], b"")

    def bounds(self, i: int) -> tuple[bytes, bytes]:
        """The keys between which subtree `i` lies."""
        return (self.keys[i - 1] if i else self.low), (self.keys[i] if i < len(self.keys) else self.high)

    def subtree(self, i: int) -> Child:
        """Subtree `i` if it was opened, else the link to it."""
        return self.opened.get(i) or (subtree_link(self.fields, i) if i else self.left)

    def value(self, i: int) -> bytes:
        """The link to the record at `keys[i]`."""
        return self.fields[_FIELDS * i + _LINKS][-_LINK_SIZE:]

    def bridge(self, i: int) -> None:
        """An entry-less node where there is no subtree, for a key further down."""
        self.opened[i] = Node.bare(self.layer - 1, *self.bounds(i))
        self.source = b""

    def insert(self, i: int, key: bytes, value: bytes, sides: tuple[Child, Child]) -> None:
        """A new entry before `keys[i]`; its two sides take the place of subtree `i`."""
        self._shift_opened(i + 1, 1)
        self.keys.insert(i, key)
        self.fields[-1] = b""
        at = _FIELDS * i + 1
        self.fields[at:at] = [b"", b"", b"", NULL + b"av" + value, b""]
        self._put(i, sides[0])
        self._put(i + 1, sides[1])
        self._changed(i)
        self._changed(i + 1)

    def replace(self, i: int, value: bytes) -> None:
        """Another value for `keys[i]`."""
        at = _FIELDS * i + _LINKS
        self.fields[at] = self.fields[at][:-_LINK_SIZE] + value
        self.source = b""

    def remove(self, i: int, joined: Child) -> None:
        """Entry `i` goes; `joined` takes the place of the subtrees on its sides."""
        self._shift_opened(i + 1, -1)
        del self.keys[i]
        at = _FIELDS * i + 1
        del self.fields[at : at + _FIELDS]
        self._put(i, joined)
        self._changed(i)

    def split(self, i: int, key: bytes, sides: tuple[Child, Child]) -> tuple[Node, Node]:
        """This node with the entries before `keys[i]` and a new one with the rest; `sides` is subtree `i`, split."""
        at = _FIELDS * i + 1
        right = Node(self.layer, key, self.high, NULL, self.keys[i:], [b"", *self.fields[at:]], b"")
        right.opened = {j - i: child for j, child in self.opened.items() if j > i}
        del self.fields[at:], self.keys[i:]
        self.opened = {j: child for j, child in self.opened.items() if j < i}
        self.high = key
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
        self.high = right.high
        self._put(border, middle)
        self._changed(border)

    def encoded(self) -> bytes:
        """The fields with all that changed in them; empty when neither here nor below there is an entry."""
        for i, child in self.opened.items():
            self._relink(i, encode(child))
        if not self.keys:
            return b"" if self.left == NULL else b"\xa2ae\x80al" + self.left
        self.fields[0] = _start(len(self.keys))
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
            at = _FIELDS * i - 1
            self.fields[at] = link + self.fields[at][-_VALUE_SIZE:]
        else:
            self.left = link

    def _shift_opened(self, start: int, by: int) -> None:
        if self.opened:
            self.opened = {j + by if j >= start else j: child for j, child in self.opened.items()}

    def _changed(self, i: int) -> None:
        """Entry `i` has another one before it now, if there is an entry `i`."""
        self.source = b""
        if i < len(self.keys):
            key = self.keys[i]
            shared = _shared_length(self.keys[i - 1], key) if i else 0
            at = _FIELDS * i + 1
            self.fields[at : at + 3] = _key_field(len(key) - shared), key[shared:], _shared_field(shared)


Child: TypeAlias = Node | bytes

_TREE_LINK = rb"\xd8\x2a\x58\x25\x00\x01\x71\x12\x20.{32}"
_VALUE_LINK = rb"\xd8\x2a\x58\x25\x00\x01[\x55\x71]\x12\x20.{32}"

# Splits a node into its fields. No byte of a key can begin the integer after "ap", so an entry reads in one way only.
_fields_of = re.compile(
    rb"(\xa4ak(?:[\x40-\x57]|\x58.|\x59..))([A-Za-z0-9._:~/-]+)(ap(?:[\x00-\x17]|\x18.|\x19..)at)((?:\xf6|%b)av%b)"
    % (_TREE_LINK, _VALUE_LINK),
    re.DOTALL,
).split
_NO_LEFT = b"al" + NULL
_LEFT = b"al" + TREE_LINK


def _key_field(length: int) -> bytes:
    return b"\xa4ak" + head(0x40, length)


def _shared_field(number: int) -> bytes:
    return b"ap%bat" % head(0x00, number)


def _start(count: int) -> bytes:
    return b"\xa2ae" + head(0x80, count)


# All that a key can have; what is not among them is too long, or not the shortest form.
_LENGTHS = {_key_field(length): length for length in range(MAX_KEY + 1)}
_NUMBERS = {_shared_field(number): number for number in range(MAX_KEY + 1)}
# The commonest beginnings of a node.
_STARTS = [_start(count) for count in range(24)]


Read: TypeAlias = tuple[int, list[bytes], list[bytes], bytes]
"""What a node says: its layer, keys and fields, and the link to its leftmost subtree."""


def read(data: bytes, layer: int | None, low: bytes, high: bytes) -> Read:
    """Read a node that must stand on `layer` with all keys between `low` and `high`; `layer` is None for a root.

    Raises MstError when it is not canonical or breaks a rule of the structure. Of the keys only the first is hashed:
    that the others belong on its layer was proven when they came, as it is now for those of the operations.
    """
    fields = _fields_of(data)
    count = len(fields) // _FIELDS
    if not count:
        return _read_bare(data, layer)
    keys = _keys(fields)
    end = fields[-1]
    start = _STARTS[count] if count < 24 else _start(count)
    if len(keys) != count or fields[0] != start or (end != _NO_LEFT and not _is_end(end)):
        raise _fault(fields)
    first = keys[0]
    if first <= low or keys[-1] >= high:
        raise MstError("mst-key-order", "not between the keys above")
    depth = key_depth(first)
    if depth != layer and layer is not None:
        raise MstError("mst-key-layer", first.decode())
    return depth, keys, fields, end[2:]


def decode(data: bytes, layer: int | None, low: bytes, high: bytes) -> Node:
    """`read` as a node that can be changed."""
    depth, keys, fields, left = read(data, layer, low, high)
    # A bridge is not kept as it was read: when nothing is left below it, it goes as well.
    return Node(depth, low, high, left, keys, fields, data if keys else b"")


def _keys(fields: list[bytes]) -> list[bytes]:
    """The keys of the entries, up to the first entry that is not sound or does not follow right after another."""
    keys: list[bytes] = []
    key = b"\0"
    each = iter(fields)
    for before, length, suffix, number, _ in zip(each, each, each, each, each):  # noqa: B905
        try:
            shared = _NUMBERS[number]
            # That the first byte which differs is greater means two things: the keys rise, and no more could be shared.
            if _LENGTHS[length] != len(suffix) or suffix[0] <= key[shared]:
                break
        except LookupError:
            # Or none differs, as the key before is the beginning of this one.
            if not keys or _LENGTHS.get(length) != len(suffix) or _NUMBERS.get(number) != len(key):
                break
        if before and keys:
            break
        key = key[:shared] + suffix
        keys.append(key)
    return keys


def _is_end(end: bytes) -> bool:
    """Whether these are the last bytes of a node, with the link to the leftmost subtree."""
    return end == _NO_LEFT or (len(end) == len(_LEFT) + 32 and end.startswith(_LEFT))


def _read_bare(data: bytes, layer: int | None) -> Read:
    """A node without entries: the empty tree, or a bridge over a layer. Never a bridge at the top."""
    if not (data.startswith(_STARTS[0]) and _is_end(data[4:])):
        raise MstError("mst-node-malformed")
    left = data[6:]
    if (layer is None) != (left == NULL):
        raise MstError("mst-empty-node")
    return layer or 0, [], [data], left


def _fault(fields: list[bytes]) -> MstError:
    """What is wrong with a node that is not sound: its encoding, or if that is all right, the order of its keys."""
    suffixes = fields[2::_FIELDS]
    start, *between, end = fields[::_FIELDS]
    if start != _start(len(suffixes)) or any(between) or not _is_end(end):
        return MstError("mst-node-malformed")
    if list(map(_LENGTHS.get, fields[1::_FIELDS])) != list(map(len, suffixes)):
        return MstError("mst-node-malformed", "length of a key")
    key = b""
    for suffix, shared in zip(suffixes, map(_NUMBERS.get, fields[3::_FIELDS]), strict=True):
        if shared is None or shared > len(key):
            return MstError("mst-node-malformed", "prefix of a key")
        if key[shared : shared + 1] >= suffix[:1]:
            break
        key = key[:shared] + suffix
    return MstError("mst-key-order")


def is_bare(child: Child) -> bool:
    """Whether there is no entry here or below, be it that undoing took the last one out."""
    while isinstance(child, Node) and not child.keys:
        child = child.subtree(0)
    return child == NULL


def encode(node: Node) -> bytes:
    """The link to this node as it is now, or null when neither it nor any node below it has an entry."""
    data = node.source
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

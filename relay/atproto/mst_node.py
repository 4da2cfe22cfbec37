"""One node of a Merkle search tree that is being changed, and its encoding as it is then.

Called by `mst`, which undoes operations. Must not know where nodes come from: all that it is given is sound.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TypeAlias

from relay.atproto.cid import DAG_CBOR_PREFIX
from relay.atproto.mst_read import FIELDS, HEADS, LINK, NULL, NUMBERS, VALUE, Read, start

# Where more bytes than this would be looked through for the links of children, a node is put together again.
MAX_SEARCHED = 100_000


def id_of(data: bytes) -> bytes:
    """The id of a node that is encoded so."""
    return DAG_CBOR_PREFIX + sha256(data).digest()


def record_link(read: Read, i: int) -> bytes:
    """The link to the record of entry `i`."""
    return read[3][FIELDS * i + VALUE]


def without_entry(read: Read, i: int) -> bytes:
    """The encoding of a node without entry `i`: what most commits added.

    Nothing when there is no other entry, when it has a subtree on its right, or when its bytes stand there twice.
    """
    _, keys, children, fields, data = read
    if len(keys) == 1 or children[i + 1] is not None:
        return b""
    at = FIELDS * i + 1
    head, suffix, number, _, value, _ = fields[at : at + FIELDS]
    parts = data.split(b"".join((b"\xa4ak", head, suffix, b"ap", number, b"at\xf6av", value)))
    if len(parts) != 2:
        return b""
    before, after = parts
    if i + 1 < len(keys):
        old_head, old_suffix, old_number = fields[at + FIELDS : at + FIELDS + 3]
        head, suffix, number = _key_fields(keys[i - 1] if i else b"", keys[i + 1])
        after = b"".join((b"\xa4ak", head, suffix, b"ap", number, after[5 + len(old_head + old_suffix + old_number) :]))
    return b"".join((start(len(keys) - 1), before[len(fields[0]) :], after))


class Node:
    """An opened node.

    `children[i]` is the subtree before `keys[i]`, the last one after all keys: a node that was opened, the id of one
    that was not, or None. `fields` are those of the entries, as they were read: of these the subtrees' are not kept up
    to date. `cid` and `source` are what was read, `source` until it takes more than new links to bring it up to date.
    """

    __slots__ = ("children", "cid", "fields", "keys", "layer", "source")

    def __init__(
        self,
        layer: int,
        keys: list[bytes],
        children: list[Child],
        fields: list[bytes],
        cid: bytes = b"",
        source: bytes = b"",
    ) -> None:
        self.layer = layer
        self.keys = keys
        self.children = children
        self.fields = fields
        self.cid = cid
        self.source = source

    @classmethod
    def of(cls, cid: bytes, read: Read) -> Node:
        """The node that was read behind `cid`. What was read stays as it is."""
        layer, keys, children, fields, source = read
        # A bridge is not kept as it was read: when nothing is left below it, it goes as well.
        return cls(layer, keys.copy(), [*children], fields[1:], cid, source if keys else b"")

    @classmethod
    def bare(cls, layer: int, below: Child = None) -> Node:
        """A node without entries."""
        return cls(layer, [], [below], [])

    def value(self, i: int) -> bytes:
        """The link to the record at `keys[i]`."""
        return self.fields[FIELDS * i + VALUE - 1]

    def bridge(self, i: int) -> None:
        """An entry-less node where there is no subtree, for a key further down."""
        self.children[i] = Node.bare(self.layer - 1)
        self.source = b""

    def insert(self, i: int, key: bytes, value: bytes, sides: tuple[Child, Child]) -> None:
        """A new entry before `keys[i]`; its two sides take the place of subtree `i`."""
        self.keys.insert(i, key)
        self.children[i : i + 1] = sides
        at = FIELDS * i
        self.fields[at:at] = [b"", b"", b"", b"", value, b""]
        self._changed(i)
        self._changed(i + 1)

    def replace(self, i: int, value: bytes) -> None:
        """Another value for `keys[i]`."""
        self.fields[FIELDS * i + VALUE - 1] = value
        self.source = b""

    def remove(self, i: int, joined: Child) -> None:
        """Entry `i` goes; `joined` takes the place of the subtrees on its sides."""
        del self.keys[i]
        self.children[i : i + 2] = [joined]
        del self.fields[FIELDS * i : FIELDS * (i + 1)]
        self._changed(i)

    def split(self, i: int, sides: tuple[Child, Child]) -> tuple[Node, Node]:
        """This node with the entries before `keys[i]` and a new one with the rest; `sides` is subtree `i`, split."""
        at = FIELDS * i
        right = Node(self.layer, self.keys[i:], [sides[1], *self.children[i + 1 :]], self.fields[at:])
        right._changed(0)
        del self.keys[i:], self.fields[at:]
        self.children[i:] = [sides[0]]
        self.source = b""
        return self, right

    def join(self, middle: Child, right: Node) -> None:
        """Take over the entries of the node to the right; `middle` is the subtree between the two."""
        border = len(self.keys)
        self.keys += right.keys
        self.fields += right.fields
        self.children[border:] = [middle, *right.children[1:]]
        self._changed(border)

    def encoded(self) -> bytes:
        """The encoding; empty when neither here nor below there is an entry."""
        first, *others = map(_link, self.children)
        if not self.keys:
            return b"" if first == NULL else b"\xa2ae\x80al" + first
        fields = self.fields
        parts = [b"\xa4ak", b"", b"", b"ap", b"", b"at", b"", b"av", b""] * len(self.keys)
        parts[1::9], parts[2::9], parts[4::9] = fields[::FIELDS], fields[1::FIELDS], fields[2::FIELDS]
        parts[6::9], parts[8::9] = others, fields[VALUE - 1 :: FIELDS]
        return b"".join((start(len(self.keys)), *parts, b"al", first))

    def _changed(self, i: int) -> None:
        """Entry `i` has another one before it now, if there is an entry `i`."""
        self.source = b""
        if i < len(self.keys):
            at = FIELDS * i
            self.fields[at : at + 3] = _key_fields(self.keys[i - 1] if i else b"", self.keys[i])


Child: TypeAlias = Node | bytes | None


def is_bare(child: Child) -> bool:
    """Whether there is no entry here or below, for example because undoing took the last one out."""
    while isinstance(child, Node) and not child.keys:
        child = child.children[0]
    return child is None


def encode(node: Node) -> bytes | None:
    """The id of this node as it is now, or None when neither it nor any node below it has an entry.

    In the place of the opened nodes below it there are their ids from then on.
    """
    data = node.source
    searched = 0
    for i, child in enumerate(node.children):
        if isinstance(child, Node):
            # Here already, since below what is encoded twice is encoded twice as often on each layer.
            node.children[i] = cid = encode(child)
            searched += len(data)
            # An old link marks the place of the new one if it stands there once, as it does in every sound node.
            old = LINK + child.cid
            found = searched <= MAX_SEARCHED and data.count(old) == 1
            data = data.replace(old, _link(cid)) if found else b""
    data = data or node.encoded()
    return id_of(data) if data else None


def _link(child: Child) -> bytes:
    cid = encode(child) if isinstance(child, Node) else child
    return NULL if cid is None else LINK + cid


def _key_fields(previous: bytes, key: bytes) -> tuple[bytes, bytes, bytes]:
    """The fields of a key that stands behind another one: head, own part and how much is shared."""
    shared = _shared_length(previous, key)
    return HEADS[len(key) - shared], key[shared:], NUMBERS[shared]


def _shared_length(previous: bytes, key: bytes) -> int:
    length = min(len(previous), len(key))
    difference = int.from_bytes(previous[:length]) ^ int.from_bytes(key[:length])
    return length - (difference.bit_length() + 7) // 8

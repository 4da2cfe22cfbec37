"""Reads a Merkle search tree as far as it came along, and proves that every such node keeps the rules.

Called by `commit` before anything is undone or looked up: consumers read these nodes, too, and some of their verifiers
fail badly on a malformed one, even away from the paths of the operations. What nobody can reach from the root is not
read. A node's encoding has one fixed shape, so a pattern reads it: strictly, without a general CBOR decoder. `mst_node`
encodes what was read again.
Specification: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from typing import TypeAlias

from relay.atproto.cid import DAG_CBOR_PREFIX, Cid, length_of
from relay.atproto.drisl import head
from relay.atproto.errors import MstError

# Python's own, whose name depends on its version. With a short key OpenSSL's takes half as long again, to begin with.
try:
    from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from hashlib import sha256

REASONS = frozenset(
    {
        "mst-empty-node",
        "mst-key-layer",
        "mst-key-order",
        "mst-node-malformed",
        "mst-size",
    }
)

# The specification asks for a limit on keys without naming one; this is the reference implementation's.
MAX_KEY = 1024

# What the nodes of one commit may take up together, bytes. Two hundred operations need a tenth of it. Each key of a
# node costs a hash, and keys can be mined so that one node has as many as there is room for.
MAX_NODES_SIZE = 1_000_000
# And one of them. Of every four keys one stands higher, so that among billions of nodes none comes to a hundred entries
# but where keys are mined.
MAX_NODE_SIZE = 100_000

# A link is a CID behind tag 42, or null where there is no subtree.
LINK = b"\xd8\x2a\x58\x25\x00"
NULL = b"\xf6"

SLASH = ord("/")
# Below and above all keys: the bounds of the root.
LOWEST, HIGHEST = b"", b"\xff"

# A node is read into fields: what stands before its first entry, and six for each entry: the head of the key's own
# part, that part, how much it shares with the key before, the id of the subtree on its right (None for null), the link
# to its record, and what follows up to the next entry.
FIELDS = 6
SUBTREE, VALUE = 4, 5

Read: TypeAlias = tuple[int, list[bytes], list[bytes | None], list[bytes], bytes]
"""What a node says: its layer, its keys, the ids of the subtrees before each of these and after them all, and its
fields; and the node as it came."""

Place: TypeAlias = tuple[bytes, int | None, bytes, bytes]
"""Where a node must stand: its id, its layer, which is None for a root, and the keys between which its own lie."""

Opened: TypeAlias = dict[bytes, Read]
"""The nodes that came along, by the bytes of their ids."""

# The pairs of zero bits at the front of a byte.
_ZERO_PAIRS = [(8 - byte.bit_length()) // 2 for byte in range(256)]
# The least and the greatest digest that a key of each layer has.
_LAYER_DIGESTS = [
    ((4 ** (127 - layer)).to_bytes(32) if layer < 128 else bytes(32), (4 ** (128 - layer) - 1).to_bytes(32))
    for layer in range(129)
]


def open_tree(root: Cid, blocks: Mapping[bytes, bytes], pause: Callable[[], None] | None = None) -> Opened:
    """Read every node that is in `blocks` and can be reached from `root`; none when the root itself is not there.

    `pause` is called before each. Raises MstError: one is malformed, out of order, on a wrong layer, in two places or
    too large, or they are too much together.
    """
    opened: Opened = {}
    room = MAX_NODES_SIZE
    places: list[Place] = [(root, None, LOWEST, HIGHEST)]
    for place in places:
        cid = place[0]
        data = blocks.get(cid)
        if data is None:
            break
        size = len(data)
        room -= size
        if room < 0 or size > MAX_NODE_SIZE:
            raise MstError("mst-size", f"a node of {size} bytes, where {room + size} are left")
        if pause is not None:
            pause()
        # A subtree has keys somewhere below, and a key has one place only.
        if cid in opened:
            raise MstError("mst-key-order", "one subtree in two places")
        opened[cid] = read(place, data, blocks, places)
    return opened


def key_depth(key: bytes) -> int:
    """How far above the leaves a key stands: the zero bits that its sha-256 begins with, in pairs."""
    return _depth(sha256(key).digest())


def _depth(digest: bytes) -> int:
    depth = _ZERO_PAIRS[digest[0]]
    return depth if depth < 4 else (256 - int.from_bytes(digest).bit_length()) // 2


_SUBTREE = rb"(?:\xf6|\xd8\x2a\x58\x25\x00(\x01\x71\x12\x20.{32}))"
_VALUE = rb"\xd8\x2a\x58\x25\x00\x01[\x55\x71]\x12\x20.{32}"
_ENTRY = rb"\xa4ak([\x40-\x57]|\x58.|\x59..)([A-Za-z0-9._:~/-]+)ap([\x00-\x17]|\x18.|\x19..)at%bav" % _SUBTREE

# Splits a node into its fields. No byte of a key can begin the integer after "ap", so an entry reads in one way only.
_fields_of = re.compile(rb"%b(%b)" % (_ENTRY, _VALUE), re.DOTALL).split
# The same piece by piece, for a link to the record of any kind.
_match_start = re.compile(rb"\xa2ae(?:[\x80-\x97]|\x98.|\x99..)", re.DOTALL).match
_match_entry = re.compile(rb"%b\xd8\x2a([\x41-\x57]|\x58.)\x00" % _ENTRY, re.DOTALL).match
_NO_LEFT = b"al" + NULL
_LEFT = b"al" + LINK + DAG_CBOR_PREFIX
_CID_AT = len(b"al" + LINK)


def start(count: int) -> bytes:
    """What stands before the first of `count` entries."""
    return _STARTS[count] if count < len(_STARTS) else b"\xa2ae" + head(0x80, count)


# The commonest beginnings of a node.
_STARTS = [b"\xa2ae" + head(0x80, count) for count in range(24)]
# The heads of a key's own part, by its length, and the numbers of bytes that are shared.
HEADS = [head(0x40, length) for length in range(MAX_KEY + 1)]
NUMBERS = [head(0x00, number) for number in range(MAX_KEY + 1)]
# All that an entry can have; what is not among them is too long, or not the shortest form.
_LENGTHS = {field: length for length, field in enumerate(HEADS)}
_SHARED = {field: number for number, field in enumerate(NUMBERS)}


def read(place: Place, data: bytes, blocks: Container[bytes], below: list[Place]) -> Read:
    """Read the node in `place`, and add the places of those of its subtrees to `below` that are in `blocks`.

    Raises MstError when it is not canonical or breaks a rule of the structure: keys two names around a slash, sorted,
    within the bounds, and each on its layer; prefixes exact; no node without entries but the empty tree and bridges;
    nothing below the leaves.
    """
    _, layer, low, high = place
    fields = _fields_of(data)
    count = len(fields) // FIELDS
    end = fields[-1]
    first = _STARTS[count] if count < len(_STARTS) else start(count)
    if fields[0] != first or (end != _NO_LEFT and not _is_end(end)):
        if data.startswith(_STARTS[0]) and _is_end(data[4:]):
            return _read_bare(place, data, blocks, below)
        fields = _fields_of_odd(data)
        end = fields[-1]
    if layer is None:
        layer = key_depth(fields[2])
    least, greatest = _LAYER_DIGESTS[layer]
    keys: list[bytes] = []
    key = b"\0"
    # Where the slash of the key before stands.
    slash = MAX_KEY
    for length, suffix, number in zip(fields[1::FIELDS], fields[2::FIELDS], fields[3::FIELDS]):  # noqa: B905
        try:
            shared = _SHARED[number]
            # That the first byte which differs is greater means two things: the keys rise, and no more could be shared.
            if length != HEADS[len(suffix)] or suffix[0] <= key[shared]:
                raise _fault(fields)
        except LookupError:
            # Or none differs, as the key before is the beginning of this one.
            if not keys or _SHARED.get(number) != len(key):
                raise _fault(fields) from None
        key = key[:shared] + suffix
        if SLASH in suffix:
            slash = key.find(SLASH)
            if not 0 < slash < len(key) - 1 or key.find(SLASH, slash + 1) > 0:
                raise _not_a_path(key)
        elif shared <= slash:
            raise _not_a_path(key)
        if not least <= sha256(key).digest() <= greatest:
            raise MstError("mst-key-layer", key.decode())
        keys.append(key)
    # All bytes of a key stand in its node.
    if len(data) > MAX_KEY and max(map(len, keys)) > MAX_KEY:
        raise MstError("mst-node-malformed", "length of a key")
    if keys[0] <= low or key >= high:
        raise MstError("mst-key-order", "not between the keys above")
    if count > 1 and any(fields[FIELDS:-1:FIELDS]):
        raise MstError("mst-node-malformed")
    children = [None if end == _NO_LEFT else end[_CID_AT:], *fields[SUBTREE::FIELDS]]
    if layer:
        for child in children:
            if child is not None and child in blocks:
                i = children.index(child)
                below.append((child, layer - 1, keys[i - 1] if i else low, keys[i] if i < len(keys) else high))
    elif any(children):
        raise MstError("mst-key-layer", "a subtree below layer 0")
    return layer, keys, children, fields, data


def _is_end(end: bytes) -> bool:
    """Whether these are the last bytes of a node, with the link to the leftmost subtree."""
    return end == _NO_LEFT or (len(end) == len(_LEFT) + 32 and end.startswith(_LEFT))


def _read_bare(place: Place, data: bytes, blocks: Container[bytes], below: list[Place]) -> Read:
    """A node without entries: the empty tree, or a bridge over a layer. Never a bridge at the top or to nothing."""
    _, layer, low, high = place
    end = data[len(_STARTS[0]) :]
    left = None if end == _NO_LEFT else end[_CID_AT:]
    if (layer is None) != (left is None) or layer == 0:
        raise MstError("mst-empty-node")
    if layer is not None and left is not None and left in blocks:
        below.append((left, layer - 1, low, high))
    return layer or 0, [], [left], [data], data


def _fields_of_odd(data: bytes) -> list[bytes]:
    """The fields of a node whose links to records may be of any kind of CID. MstError when it is not built like a node.

    Old repositories have such links. What they name does not matter, for as long as no operation touches the entry.
    """
    match = _match_start(data)
    fields, at = ([match[0]], match.end()) if match is not None else ([b""], 0)
    while match := _match_entry(data, at):
        *key, link_head = match.groups()
        cid_at = match.end()
        cid_end = cid_at + (link_head[1] if len(link_head) > 1 else link_head[0] & 0x1F) - 1
        cid = data[cid_at:cid_end]
        if not cid or length_of(cid) != cid_end - cid_at or head(0x40, len(cid) + 1) != link_head:
            break
        at = cid_end
        fields += (*key, data[match.start(5) - len(b"\xd8\x2a") : at], b"")
    fields[-1] = data[at:]
    count = len(fields) // FIELDS
    if not count or fields[0] != start(count) or not _is_end(fields[-1]):
        raise MstError("mst-node-malformed")
    return fields


def _not_a_path(key: bytes) -> MstError:
    return MstError("mst-node-malformed", f"a key that is not a path: {key[:80].decode()}")


def _fault(fields: list[bytes]) -> MstError:
    """What is wrong with the keys of a node: their encoding, or if that is all right, their order."""
    suffixes = fields[2::FIELDS]
    if any(fields[FIELDS:-1:FIELDS]):
        return MstError("mst-node-malformed")
    if list(map(_LENGTHS.get, fields[1::FIELDS])) != list(map(len, suffixes)):
        return MstError("mst-node-malformed", "length of a key")
    key = b""
    for suffix, shared in zip(suffixes, map(_SHARED.get, fields[3::FIELDS]), strict=True):
        if shared is None or shared > len(key):
            return MstError("mst-node-malformed", "prefix of a key")
        if key[shared : shared + 1] >= suffix[:1]:
            break
        key = key[:shared] + suffix
    return MstError("mst-key-order")

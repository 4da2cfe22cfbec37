"""CAR v1: the container in which a commit's blocks travel.

Called by `commit` on the `blocks` of an event, by `healing` on what a host answers, and by `jsonstream` and `stream` on
what is in the log. Verifies every hash of the two kinds that the protocol uses and keeps nothing it could not verify.
Blocks in any order, twice, or of other kinds are tolerated (repository draft, 5.3). Must not know what a block means.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from relay.atproto import drisl
from relay.atproto.cid import DAG_CBOR_PREFIX, LENGTH, PREFIXES, RAW_PREFIX, Cid, length_of
from relay.atproto.errors import CarError, DrislError

REASONS = frozenset(
    {
        "car-block-count",
        "car-block-hash",
        "car-block-size",
        "car-cid",
        "car-header",
        "car-root-missing",
        "car-truncated",
        "car-varint",
    }
)

MAX_HEADER = 16_384
# The bytes that a record may take (sync specification, limits); no other object comes near.
MAX_BLOCK = 1_000_000
# Two hundred operations need fewer, and a host that sends its whole trees along has room for one of 2,000,000 bytes.
MAX_BLOCKS = 10_000
_MAX_LENGTH = LENGTH + MAX_BLOCK
BLOCKS_BEFORE_PAUSE = 200

# The header that nearly every file has is recognised without decoding it.
_ANY_ROOT = Cid(b"\xff" * LENGTH)
_HEADER = drisl.encode({"version": 1, "roots": [_ANY_ROOT]})
_BEFORE_ROOT, _AFTER_ROOT = (bytes([len(_HEADER)]) + _HEADER).split(_ANY_ROOT)
_ROOT_AT, _ROOT_END = len(_BEFORE_ROOT), len(_BEFORE_ROOT) + LENGTH
_HEADER_END = _ROOT_END + len(_AFTER_ROOT)


class Car(NamedTuple):
    """A CAR file whose blocks are all what their ids say. `root`, the first of the roots, is among them."""

    root: Cid
    blocks: dict[bytes, bytes]
    """By the bytes of their ids, which a `Cid` is equal to. Those of other kinds than the protocol's are left out."""


def parse(data: bytes, pause: Callable[[], None] | None = None) -> Car:
    """Read a whole CAR v1 file. CarError with the first thing that is wrong with it.

    `pause` is called now and then, so that others can be served meanwhile.
    """
    root, position = _start(data)
    blocks = _blocks(data, position, pause)
    if root not in blocks:
        raise CarError("car-root-missing", str(root))
    return Car(root, blocks)


def root_block(data: bytes) -> tuple[Cid, bytes]:
    """The first root and its block, whatever else is wrong with the file or too much in it.

    CarError when the header cannot be read, or no block with the root's hash is found.
    """
    root, position = _start(data)
    block = _find(root, data, position)
    if block is None:
        raise CarError("car-root-missing", str(root))
    return root, block


def block_of(cid: Cid, data: bytes) -> bytes | None:
    """The block `cid` in a file or in the beginning of one, whatever roots it names; None when it is not there."""
    try:
        length, position = _varint(data, 0)
        return _find(cid, data, position + length)
    except CarError:
        return None


def known_blocks(data: bytes) -> dict[bytes, bytes]:
    """The blocks of a file that was verified before, by the bytes of their ids: nothing is hashed again.

    Raises CarError when it cannot be read.
    """
    _, position = _start(data)
    blocks: dict[bytes, bytes] = {}
    size = len(data)
    while position < size:
        length, position = _varint(data, position)
        body, end = position + LENGTH, position + length
        blocks[data[position:body]] = data[body:end]
        position = end
    return blocks


def of_root(root: Cid, block: bytes) -> bytes:
    """A file with nothing but its root, as `#sync` events have it. `block` has fewer than 16,000 bytes."""
    length = LENGTH + len(block)
    return b"".join((_BEFORE_ROOT, root, _AFTER_ROOT, bytes((length & 0x7F | 0x80, length >> 7)), root, block))


def _find(cid: Cid, data: bytes, position: int) -> bytes | None:
    """The block `cid` among those from `position` on; None when it is not there. CarError for a broken length."""
    for _ in range(MAX_BLOCKS):
        if position >= len(data):
            break
        length, position = _varint(data, position)
        end = position + length
        if data.startswith(cid, position):
            block = data[position + LENGTH : end]
            if sha256(block).digest() == cid.digest:
                return block
        position = end
    return None


def _start(data: bytes) -> tuple[Cid, int]:
    """The first root, and where the first block begins."""
    root = data[_ROOT_AT:_ROOT_END]
    if data.startswith(_BEFORE_ROOT) and data.startswith(_AFTER_ROOT, _ROOT_END) and root.startswith(PREFIXES):
        return Cid(root), _HEADER_END
    length, position = _varint(data, 0)
    if not 0 < length <= MAX_HEADER:
        raise CarError("car-header", f"{length} bytes")
    end = position + length
    if end > len(data):
        raise CarError("car-truncated", "in the header")
    return _first_root(data[position:end]), end


def _first_root(header: bytes) -> Cid:
    try:
        value = drisl.decode(header)
    except DrislError as error:
        raise CarError("car-header", str(error)) from error
    version = value.get("version") if isinstance(value, dict) else None
    if not isinstance(value, dict) or type(version) is not int or version != 1:
        raise CarError("car-header", "not version 1")
    roots = value.get("roots")
    if not isinstance(roots, list) or not roots:
        raise CarError("car-header", "no roots")
    if not isinstance(roots[0], Cid):
        raise CarError("car-cid", "a root that is not dag-cbor or raw with sha-256")
    return roots[0]


def _blocks(data: bytes, position: int, pause: Callable[[], None] | None) -> dict[bytes, bytes]:
    blocks: dict[bytes, bytes] = {}
    size = len(data)
    for number in range(MAX_BLOCKS):
        if position >= size:
            return blocks
        if pause is not None and not number % BLOCKS_BEFORE_PAUSE:
            pause()
        length = data[position]
        position += 1
        if length > 0x7F:
            # Nearly all lengths that take more than one byte take two.
            second = data[position] if position < size else 0
            if 0 < second < 0x80:
                length += (second - 1) * 0x80
                position += 1
            else:
                length, position = _varint(data, position - 1)
        body, end = position + LENGTH, position + length
        cid, block = data[position:body], data[body:end]
        # What nearly every block is; all others are told apart elsewhere.
        if (
            cid == DAG_CBOR_PREFIX + sha256(block).digest() and LENGTH <= length <= _MAX_LENGTH and end <= size
        ) or _is_sound(data, position, end):
            blocks[cid] = block
        position = end
    if position < size:
        raise CarError("car-block-count", f"over {MAX_BLOCKS}")
    return blocks


def _is_sound(data: bytes, position: int, end: int) -> bool:
    """True for a block of raw bytes that is what its id says, False for one of a kind that nobody here needs.

    CarError for a block that is broken.
    """
    if end > len(data):
        raise CarError("car-truncated", f"{end - len(data)} bytes missing")
    cid = data[position : min(position + LENGTH, end)]
    if len(cid) < LENGTH or not cid.startswith(PREFIXES):
        if not length_of(data[position : min(position + 100, end)]):
            raise CarError("car-cid", cid.hex())
        return False
    block = data[position + LENGTH : end]
    if len(block) > MAX_BLOCK and not cid.startswith(RAW_PREFIX):
        raise CarError("car-block-size", f"{len(block)} bytes")
    if sha256(block).digest() != cid[4:]:
        raise CarError("car-block-hash", str(Cid(cid)))
    return True


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """An unsigned LEB128 number and the position after it. Four bytes are enough for any length that is allowed."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= len(data):
            raise CarError("car-truncated", "in a length")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise CarError("car-varint", "not the shortest form")
            return value, position
    raise CarError("car-varint", "over four bytes")

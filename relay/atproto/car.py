"""CAR v1: the container in which a commit's blocks travel.

Called by `commit` on the `blocks` of an event. Reads everything, verifies every hash, keeps nothing it could not
verify. Must not know what a block means.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from relay.atproto import drisl
from relay.atproto.cid import DAG_CBOR_PREFIX, LENGTH, PREFIXES, Cid
from relay.atproto.errors import CarError, DrislError

REASONS = frozenset(
    {
        "car-block-hash",
        "car-block-size",
        "car-cid",
        "car-duplicate",
        "car-header",
        "car-root-missing",
        "car-truncated",
        "car-varint",
    }
)

MAX_HEADER = 16_384
# A block of 1,000,000 bytes is already too large (sync specification, limits).
MAX_BLOCK = 999_999

# The header that nearly every file has is recognised without decoding it.
_ANY_ROOT = Cid(b"\xff" * LENGTH)
_HEADER = drisl.encode({"version": 1, "roots": [_ANY_ROOT]})
_BEFORE_ROOT, _AFTER_ROOT = (bytes([len(_HEADER)]) + _HEADER).split(_ANY_ROOT)
_ROOT_AT, _ROOT_END = len(_BEFORE_ROOT), len(_BEFORE_ROOT) + LENGTH
_HEADER_END = _ROOT_END + len(_AFTER_ROOT)


class Car(NamedTuple):
    """A CAR file whose block hashes are all verified. The first root is among the blocks."""

    roots: tuple[Cid, ...]
    blocks: dict[bytes, bytes]
    """By the bytes of their ids, which a `Cid` is equal to."""


def parse(data: bytes) -> Car:
    """Read a whole CAR v1 file. CarError with the first thing that is wrong with it."""
    roots: tuple[Cid, ...]
    root = data[_ROOT_AT:_ROOT_END]
    if data.startswith(_BEFORE_ROOT) and data.startswith(_AFTER_ROOT, _ROOT_END) and root.startswith(PREFIXES):
        roots, end = (Cid(root),), _HEADER_END
    else:
        roots, end = _read_header(data)
    blocks = _blocks(data, end)
    if roots[0] not in blocks:
        raise CarError("car-root-missing", str(roots[0]))
    return Car(roots, blocks)


def _read_header(data: bytes) -> tuple[tuple[Cid, ...], int]:
    """The roots, and where the first block begins."""
    length, position = _varint(data, 0)
    if not 0 < length <= MAX_HEADER:
        raise CarError("car-header", f"{length} bytes")
    end = position + length
    if end > len(data):
        raise CarError("car-truncated", "in the header")
    return _roots(data[position:end]), end


def _roots(header: bytes) -> tuple[Cid, ...]:
    try:
        value = drisl.decode(header)
    except DrislError as error:
        raise CarError("car-header", str(error)) from error
    if not isinstance(value, dict) or value.get("version") != 1 or value["version"] is True:
        raise CarError("car-header", "not version 1")
    roots = value.get("roots")
    if not isinstance(roots, list) or not roots:
        raise CarError("car-header", "no roots")
    cids = tuple(root for root in roots if isinstance(root, Cid))
    if len(cids) != len(roots):
        raise CarError("car-cid", "a root of another kind")
    return cids


def _blocks(data: bytes, position: int) -> dict[bytes, bytes]:
    blocks: dict[bytes, bytes] = {}
    size = len(data)
    while position < size:
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
            cid != DAG_CBOR_PREFIX + sha256(block).digest()
            or cid in blocks
            or length < LENGTH
            or length > MAX_BLOCK + LENGTH
            or end > size
        ):
            _check_block(cid, length, end - size, block, blocks)
        blocks[cid] = block
        position = end
    return blocks


def _check_block(cid: bytes, length: int, missing: int, block: bytes, blocks: dict[bytes, bytes]) -> None:
    """Return for a raw block that is sound; CarError for any block that is not."""
    if length > MAX_BLOCK + LENGTH:
        raise CarError("car-block-size", f"{length - LENGTH} bytes")
    if missing > 0:
        raise CarError("car-truncated", f"{missing} bytes missing")
    if length < LENGTH or not cid.startswith(PREFIXES):
        raise CarError("car-cid", cid[:length].hex())
    if sha256(block).digest() != cid[4:]:
        raise CarError("car-block-hash", str(Cid(cid)))
    if cid in blocks:
        raise CarError("car-duplicate", str(Cid(cid)))


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

"""DRISL, the strict DAG-CBOR of the protocol: one value has one encoding, and only that one is accepted.

cbor2 is the codec; this module narrows it down to the data model and proves that the input was canonical. Called by
`car`, `frames`, `commit` and `mst` for everything that is signed, hashed or framed. Must not know what a value means.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NoReturn, TypeAlias

import cbor2

from relay.atproto.cid import LENGTH, PREFIXES, Cid
from relay.atproto.errors import DrislError

REASONS = frozenset(
    {
        "drisl-cid",
        "drisl-depth",
        "drisl-float",
        "drisl-items",
        "drisl-key",
        "drisl-malformed",
        "drisl-not-canonical",
        "drisl-order",
        "drisl-tag",
        "drisl-truncated",
        "drisl-type",
    }
)

MAX_DEPTH = 64
# What one input may turn into: about 25 MB of objects at worst. No input of fewer bytes can reach it.
MAX_ITEMS = 250_000

CID_TAG = 42
_CID_HEAD = b"\xd8\x2a\x58\x25\x00"  # tag 42, a string of 37 bytes, the multibase prefix of binary


class UnknownCid(bytes):
    """A link of a kind the protocol does not bless, kept as it came: it may stand inside a record, nowhere else."""

    __slots__ = ()


Value: TypeAlias = "bool | int | float | str | bytes | Cid | UnknownCid | list[Value] | dict[str, Value] | None"


def decode(data: bytes, *, max_depth: int = MAX_DEPTH) -> Value:
    """The value that `data`, all of it, encodes. DrislError when it is not canonical DRISL (data model, DRISL 2)."""
    value = load(data, max_depth=max_depth)
    check_canonical(value, data)
    return value


def decode_prefix(data: bytes) -> tuple[Value, int]:
    """The first value in `data` and the number of bytes it takes. DrislError as `decode`."""
    value = load(data)
    _canonical_size(value)
    encoded = encode(value)
    if not data.startswith(encoded):
        raise DrislError("drisl-not-canonical")
    return value, len(encoded)


def load(data: bytes, *, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS) -> Value:
    """The first value in `data`, canonical or not: only well-formed and of the data model's types.

    For callers that have to know what a value said although it is refused; all others want `decode`.
    """
    if len(data) > max_items:
        _limit_items(data, max_items)
    try:
        value: Value = cbor2.loads(
            data,
            semantic_decoders=_TAGS,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            # Maps in the place of keys would be hashed and sorted again at each level: time doubles with the depth.
            strict_hashable_types=True,
            max_depth=max_depth,
        )
    except cbor2.CBORDecodeError as error:
        raise _refusal(error) from None
    return value


def check_canonical(value: Value, data: bytes) -> None:
    """Prove that `data` is the canonical encoding of `value`, which `load` read from it. DrislError if it is not.

    Every item of a definite-length encoding is at least as long as its canonical form, so it is enough that the
    whole is not longer than the sum: cheaper than encoding it again. Floats are the exception (a half is
    shorter than the double that is canonical), so a value with floats is encoded again.
    """
    size = _canonical_size(value)
    if size >= _FLOAT:
        if encode(value) != data:
            raise DrislError("drisl-not-canonical", "with floats")
    elif size != len(data):
        raise DrislError("drisl-not-canonical", f"{len(data)} bytes for {size}")


def encode(value: Value) -> bytes:
    """The canonical encoding of `value`. DrislError for a float that is not finite and text that is not Unicode."""
    try:
        return cbor2.dumps(value, canonical=True, encoders=_ENCODERS)
    except (cbor2.CBOREncodeError, UnicodeEncodeError) as error:
        raise DrislError("drisl-type", str(error)) from error


def head(major: int, argument: int) -> bytes:
    """The shortest head of an item: its major type in the upper three bits, and a length or number below 2**16."""
    if argument < 24:
        return bytes((major | argument,))
    if argument < 0x100:
        return bytes((major | 24, argument))
    return bytes((major | 25, *argument.to_bytes(2)))


def head_size(argument: int) -> int:
    """How many bytes the shortest head with this length or number takes."""
    if argument < 24:
        return 1
    if argument < 0x100:
        return 2
    if argument < 0x10000:
        return 3
    return 5 if argument < 0x100000000 else 9


# What a float counts for: no input is that long, so the sum tells whether there are any.
_FLOAT = 1 << 40

# The commonest heads are one byte: testing for those first, in line, halves the time of the count.


def _canonical_size(value: Any) -> int:
    kind = type(value)
    if kind is str:
        length = len(value) if value.isascii() else len(value.encode())
        return length + (1 if length < 24 else head_size(length))
    if kind is Cid:
        return 41
    if kind is bool or value is None:
        return 1
    if kind is int:
        argument = value if value >= 0 else ~value
        return 1 if argument < 24 else head_size(argument)
    if kind is bytes:
        return len(value) + head_size(len(value))
    if kind is dict:
        return _canonical_map_size(value)
    if kind is list:
        return head_size(len(value)) + sum(map(_canonical_size, value))
    if kind is UnknownCid:
        return 3 + len(value) + head_size(len(value) + 1)
    if kind is float:
        if not math.isfinite(value):
            raise DrislError("drisl-float", repr(value))
        return _FLOAT
    raise DrislError("drisl-type", kind.__name__)


def _canonical_map_size(value: dict[Any, Any]) -> int:
    size = head_size(len(value))
    last, last_length = "", -1
    for key, item in value.items():
        if type(key) is not str:
            raise DrislError("drisl-key", type(key).__name__)
        length = len(key) if key.isascii() else len(key.encode())
        # UTF-8 sorts as its code points do.
        if length <= last_length and (length < last_length or key <= last):
            raise DrislError("drisl-order", repr(key[:40]))
        last, last_length = key, length
        size += length + (1 if length < 24 else head_size(length)) + _canonical_size(item)
    return size


def _limit_items(data: bytes, maximum: int) -> None:
    """Count items before they are made. DrislError when there are more than `maximum`."""
    position, open_items, items = 0, 1, 0
    try:
        while open_items:
            head = data[position]
            position += 1
            argument = head & 0x1F
            if argument > 23:
                width = 1 << (argument - 24)
                if argument > 27:
                    raise DrislError("drisl-malformed", "indefinite length")
                argument = int.from_bytes(data[position : position + width], "big")
                position += width
            major = head >> 5
            if major in (2, 3):
                position += argument
            elif major == 4:
                open_items += argument
            elif major == 5:
                open_items += 2 * argument
            elif major == 6:
                open_items += 1
            open_items -= 1
            items += 1
            if items + open_items > maximum:
                raise DrislError("drisl-items", f"over {maximum}")
    except IndexError:
        raise DrislError("drisl-truncated") from None


_BLESSED = tuple(b"\x00" + prefix for prefix in PREFIXES)


def _decode_link(content: object, _immutable: bool) -> Cid | UnknownCid:
    if type(content) is not bytes or not content.startswith(b"\x00"):
        raise DrislError("drisl-cid", "not a binary CID")
    if content.startswith(_BLESSED) and len(content) == LENGTH + 1:
        return Cid(content[1:])
    return UnknownCid(content[1:])


def _refuse_tag(_content: object, _immutable: bool) -> NoReturn:
    raise DrislError("drisl-tag")


class _Tags(dict[int, Any]):
    """How to read each tag. All but one are refused before cbor2 makes dates, regular expressions or cycles of them."""

    def __missing__(self, _tag: int) -> Any:
        return _refuse_tag


_TAGS = _Tags({CID_TAG: _decode_link})


def _refusal(error: cbor2.CBORDecodeError) -> DrislError:
    if isinstance(error.__cause__, DrislError):
        return error.__cause__
    if isinstance(error, cbor2.CBORDecodeEOF):
        return DrislError("drisl-truncated")
    if "nesting depth" in str(error):
        return DrislError("drisl-depth")
    if "map key must be" in str(error):
        return DrislError("drisl-key")
    return DrislError("drisl-malformed", str(error))


def _encode_link(encoder: cbor2.CBOREncoder, cid: Cid) -> None:
    encoder.write(_CID_HEAD + cid)


def _encode_unknown_link(encoder: cbor2.CBOREncoder, cid: UnknownCid) -> None:
    encoder.encode(cbor2.CBORTag(CID_TAG, b"\x00" + cid))


def _encode_float(encoder: cbor2.CBOREncoder, value: float) -> None:
    # cbor2's canonical form is RFC 8949's, which shortens floats; DRISL has 64-bit ones only.
    if not math.isfinite(value):
        raise DrislError("drisl-float", repr(value))
    encoder.write(b"\xfb" + struct.pack(">d", value))


_ENCODERS: dict[type, Any] = {Cid: _encode_link, UnknownCid: _encode_unknown_link, float: _encode_float}

"""Content ids: the 36 bytes of a CIDv1 with a sha-256 digest, over DAG-CBOR or raw bytes.

Everything that is hashed or linked uses `Cid`. Being `bytes` it hashes and compares at C speed, which the CAR and
tree code on the hot path relies on. Must not know of CBOR: the tag around a link is `drisl`'s.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b32encode

from relay.atproto.errors import CidError

REASONS = frozenset({"cid-syntax", "cid-unsupported"})

DAG_CBOR = 0x71
RAW = 0x55
LENGTH = 36
DAG_CBOR_PREFIX = b"\x01\x71\x12\x20"
RAW_PREFIX = b"\x01\x55\x12\x20"
PREFIXES = (DAG_CBOR_PREFIX, RAW_PREFIX)

# The older kind, a bare multihash; and what a CIDv1 of any kind begins with, up to the length of its digest. No hash
# function in use has a digest of more than 64 bytes.
_V0_PREFIX, _V0_LENGTH = b"\x12\x20", 34
_NUMBER = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,4}[\x01-\x7f])"
_match_v1 = re.compile(rb"\x01%b%b([\x00-\x40])" % (_NUMBER, _NUMBER), re.DOTALL).match

_TEXT_LENGTH = 59  # "b" and 36 bytes in base32 without padding
_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz234567" + bytes(224)
# The same characters as the digits that `int` reads, and all others as what it refuses.
_DIGITS = bytes(
    b"0123456789abcdefghijklmnopqrstuv"[_CHARACTERS.index(one)] if one in _CHARACTERS[:32] else 0x21
    for one in range(256)
)


def _spread(width: int) -> tuple[int, int, int]:
    """The lower `width` bits of each pair of groups, the upper ones, and how far these move to stand apart."""
    low = sum((1 << width) - 1 << pair * 16 * width // 5 for pair in range(160 // width))
    return low, low << width, 3 * width // 5


_SPREAD = [_spread(width) for width in (160, 80, 40, 20, 10, 5)]


class Cid(bytes):
    """The 36 binary bytes of a CIDv1 (version, codec, sha-256, length 32, digest).

    The constructor is that of `bytes` and checks nothing: bytes from outside go through `from_bytes` or `parse`.
    """

    __slots__ = ()

    @classmethod
    def of_dag_cbor(cls, data: bytes) -> Cid:
        """The id of an encoded object."""
        return cls(DAG_CBOR_PREFIX + hashlib.sha256(data).digest())

    @classmethod
    def of_raw(cls, data: bytes) -> Cid:
        """The id of a blob."""
        return cls(RAW_PREFIX + hashlib.sha256(data).digest())

    @classmethod
    def from_bytes(cls, data: bytes) -> Cid:
        """Check the binary form. CidError: `cid-unsupported` for anything but the two blessed kinds."""
        if len(data) != LENGTH or not data.startswith(PREFIXES):
            raise CidError("cid-unsupported", data[:40].hex())
        return cls(data)

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read the string form, multibase `b` (base32, lower case, no padding).

        CidError: `cid-syntax` when it is not written so, `cid-unsupported` when it is another kind of CID.
        """
        if len(text) != _TEXT_LENGTH or text[0] != "b" or not text.isascii():
            raise CidError("cid-syntax", repr(text[:80]))
        # A tenth of the time that `b32decode` takes: accounts are read from SQL by the thousand.
        try:
            number = int(text[1:].encode().translate(_DIGITS), 32)
        except ValueError as error:
            raise CidError("cid-syntax", repr(text)) from error
        # The last character holds 2 bits that decode to nothing: two strings must not name one CID.
        if number & 0b11:
            raise CidError("cid-syntax", repr(text))
        return cls.from_bytes((number >> 2).to_bytes(LENGTH))

    @property
    def codec(self) -> int:
        """DAG_CBOR or RAW."""
        return self[1]

    @property
    def digest(self) -> bytes:
        """The 32 bytes of sha-256."""
        return self[4:]

    def __str__(self) -> str:
        if len(self) != LENGTH:
            # Of another kind, as a refusal may name it.
            return "b" + b32encode(self).decode("ascii").rstrip("=").lower()
        # Each five bits move into a byte of their own, halves first: a quarter of the time that `b32encode` takes.
        number = int.from_bytes(self) << 2
        for low, high, shift in _SPREAD:
            number = number & low | (number & high) << shift
        return "b" + number.to_bytes(_TEXT_LENGTH - 1).translate(_CHARACTERS).decode()

    def __repr__(self) -> str:
        return f"Cid({self})"


def length_of(data: bytes) -> int:
    """How many bytes the CID takes that `data` begins with, of whatever kind; 0 when it begins with none.

    For what nobody follows: an unrelated block, or a link in an entry that a commit does not touch.
    """
    match = _match_v1(data)
    length = match.end() + match[1][0] if match is not None else _V0_LENGTH
    return length if length <= len(data) and (match is not None or data.startswith(_V0_PREFIX)) else 0

"""CBOR, CIDs and CAR files for tests, made without any code of `relay.atproto`. Used by `repo` and `repo_tree`."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import cbor2


def cid_of(data: bytes) -> bytes:
    """The binary CID of a dag-cbor block."""
    return b"\x01\x71\x12\x20" + sha256(data).digest()


def cid_text(cid: bytes) -> str:
    return "b" + b32encode(cid).decode().lower().rstrip("=")


def link(cid: bytes | None) -> cbor2.CBORTag | None:
    """A CID as a CBOR value."""
    return None if cid is None else cbor2.CBORTag(42, b"\0" + cid)


def cbor(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def car(roots: Iterable[bytes], blocks: dict[bytes, bytes]) -> bytes:
    header = cbor({"version": 1, "roots": [link(root) for root in roots]})
    parts = [varint(len(header)), header]
    for cid, block in blocks.items():
        parts += varint(len(cid) + len(block)), cid, block
    return b"".join(parts)

"""What a DID document says, and the two forms it is kept in: packed bytes in memory, a row in SQL.

Made by `lookup` and `prime`, kept by `cache`, read by the gate. Pure data, no clock.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from relay.atproto.crypto import Curve, PublicKey
from relay.atproto.hostname import Endpoint, parse_endpoint
from relay.store.identities import IdentityRow


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a DID is. A part that the document lacks, or has in a form that cannot be used, is None."""

    did: str
    pds: Endpoint | None
    key: PublicKey | None
    handle: str | None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A DID that was deactivated for good."""

    did: str


Fact = Identity | Tombstone

_HEAD = struct.Struct(">dB")
_TOMBSTONE, _PDS, _TLS, _P256, _K256, _HANDLE = (1 << bit for bit in range(6))
_CURVES: dict[int, Curve] = {_P256: "p256", _K256: "k256"}
_CURVE_FLAGS = {curve: flag for flag, curve in _CURVES.items()}
_KEY_BYTES = 33


def pack(fact: Fact, resolved_at: float) -> bytes:
    """`fact` and when it was resolved (seconds since the epoch) as bytes.

    A cached identity is one such object: a third of the memory of the dataclasses, and none of the work that
    hundreds of thousands of them would be for the garbage collector.
    """
    if isinstance(fact, Tombstone):
        return _HEAD.pack(resolved_at, _TOMBSTONE)
    flags = 0
    key = b""
    if fact.key:
        flags |= _CURVE_FLAGS[fact.key.curve]
        key = fact.key.compressed
    if fact.pds:
        flags |= _PDS | (_TLS if fact.pds.tls else 0)
    if fact.handle is not None:
        flags |= _HANDLE
    names = f"{fact.pds.hostname if fact.pds else ''}\0{fact.handle or ''}"
    return _HEAD.pack(resolved_at, flags) + key + names.encode()


def resolved_at(packed: bytes) -> float:
    """When the packed fact was resolved, in seconds since the epoch."""
    seconds, _ = _HEAD.unpack_from(packed)
    return float(seconds)


def unpack(did: str, packed: bytes) -> Fact:
    """The fact about `did` that was packed."""
    _, flags = _HEAD.unpack_from(packed)
    if flags & _TOMBSTONE:
        return Tombstone(did)
    names_at = _HEAD.size
    key = None
    curve = _CURVES.get(flags & (_P256 | _K256))
    if curve:
        names_at += _KEY_BYTES
        key = PublicKey.from_compressed(curve, packed[_HEAD.size : names_at])
    hostname, _, handle = packed[names_at:].decode().partition("\0")
    return Identity(
        did,
        Endpoint(hostname, bool(flags & _TLS)) if flags & _PDS else None,
        key,
        handle if flags & _HANDLE else None,
    )


def to_row(fact: Fact, resolved_at: float) -> IdentityRow:
    """The table's form of a fact that was resolved at `resolved_at`."""
    if isinstance(fact, Tombstone):
        return IdentityRow(fact.did, None, None, None, None, resolved_at, tombstone=True)
    pds, key = fact.pds, fact.key
    return IdentityRow(
        fact.did,
        pds.url if pds else None,
        key.curve if key else None,
        key.compressed if key else None,
        fact.handle,
        resolved_at,
    )


def from_row(row: IdentityRow) -> Fact:
    """The fact in a row of the table."""
    if row.tombstone:
        return Tombstone(row.did)
    key = PublicKey.from_compressed(row.curve, row.key) if row.curve and row.key else None
    return Identity(row.did, parse_endpoint(row.pds) if row.pds else None, key, row.handle)

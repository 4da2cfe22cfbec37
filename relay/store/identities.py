"""The `identity` table: what counts of every DID document that was fetched, so that a restart asks nobody.

Read and written in batches by `identity`. Keys are kept as a curve code and the compressed point: parsing one is
the reader's work. Must not know how long an entry is good for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay.atproto.crypto import Curve
from relay.store.database import Row, Transaction

_CURVE_CODES: dict[Curve, bytes] = {"p256": b"\x01", "k256": b"\x02"}
_CURVES = {code: curve for curve, code in _CURVE_CODES.items()}


@dataclass(slots=True)
class IdentityRow:
    """What a DID resolved to at `resolved_at` (seconds since the epoch).

    `pds` is the endpoint's URL; `curve` is `p256` or `k256` and `key` the compressed point of 33 bytes, both None
    when the document names no key; a tombstone has nothing. A `key` without a curve is of a kind that is not known.
    """

    did: str
    pds: str | None
    curve: Curve | None
    key: bytes | None
    handle: str | None
    resolved_at: float
    tombstone: bool = False


def load_many(tx: Transaction, dids: Sequence[str]) -> dict[str, IdentityRow]:
    """Those of `dids` that are in the table."""
    rows = tx.rows_in("SELECT did, pds, key_code, handle, resolved_at, tombstone FROM identity WHERE did IN ({})", dids)
    return {row[0]: _identity(row) for row in rows}


def upsert_many(tx: Transaction, identities: Sequence[IdentityRow], now: float) -> None:
    """Store what different DIDs resolved to, over what is older, and over what is dated after `now`.

    A clock that was wrong dated that, and nothing else could replace it. `now` stands in the text: a statement for each
    row would take half as long again.
    """
    if identities:
        tx.many(
            "INSERT INTO identity (did, pds, key_code, handle, resolved_at, tombstone) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (did) DO UPDATE SET pds = excluded.pds, key_code = excluded.key_code,"
            " handle = excluded.handle, resolved_at = excluded.resolved_at, tombstone = excluded.tombstone"
            f" WHERE excluded.resolved_at >= identity.resolved_at OR identity.resolved_at > {float(now)!r}",
            [(row.did, row.pds, _key_code(row), row.handle, row.resolved_at, row.tombstone) for row in identities],
        )


def forget_many(tx: Transaction, dids: Sequence[str]) -> None:
    """Remove what is stored for `dids`: it no longer holds."""
    if dids:
        tx.many("DELETE FROM identity WHERE did = ?", [(did,) for did in dids])


def _key_code(row: IdentityRow) -> bytes | None:
    return None if row.curve is None or row.key is None else _CURVE_CODES[row.curve] + row.key


def _identity(row: Row) -> IdentityRow:
    did, pds, stored, handle, resolved_at, tombstone = row
    # PostgreSQL gives a memoryview.
    code = None if stored is None else bytes(stored)
    return IdentityRow(
        did,
        pds,
        None if code is None else _CURVES.get(code[:1]),
        None if code is None else code[1:],
        handle,
        resolved_at,
        bool(tombstone),
    )

"""Values of the AT Protocol's data model as Hypothesis draws them, and their canonical encoding written down once more.

For the tests of the codec: alone (`tests/unit`), and beside other people's (`tests/differential`).
"""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from relay.atproto.cid import Cid
from relay.atproto.drisl import UnknownCid

LINK = Cid.of_dag_cbor(b"")
OLD_LINK = UnknownCid(b"\x12\x20" + bytes(32))

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.integers(-300, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(min_size=250, max_size=260)
    | st.binary()
    | st.binary(min_size=32, max_size=32).map(lambda digest: Cid(LINK[:4] + digest))
    | st.just(OLD_LINK)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(), inner, max_size=30), max_leaves=40
)


def head(major: int, argument: int, *, width: int | None = None) -> bytes:
    """A CBOR head, the shortest unless a width of 0, 1, 2, 4 or 8 bytes is asked for."""
    if width is None:
        width = next(w for w in (0, 1, 2, 4, 8) if argument < (24 if w == 0 else 1 << 8 * w))
    if width == 0:
        return bytes([major << 5 | argument])
    return bytes([major << 5 | 23 + width.bit_length()]) + argument.to_bytes(width)


def reference(value: Any) -> bytes:
    """The canonical encoding, written down once more."""
    match value:
        case None | bool():
            return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case float():
            return b"\xfb" + struct.pack(">d", value)
        case Cid() | UnknownCid():
            return b"\xd8\x2a" + head(2, len(value) + 1) + b"\0" + value
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list():
            return head(4, len(value)) + b"".join(map(reference, value))
        case dict():
            pairs = sorted((len(key.encode()), key.encode(), reference(item)) for key, item in value.items())
            return head(5, len(pairs)) + b"".join(head(3, size) + key + item for size, key, item in pairs)
        case _:
            raise TypeError(value)

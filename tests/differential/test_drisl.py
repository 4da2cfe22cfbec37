"""Against two other codecs of DAG-CBOR: they encode alike, and judge damaged bytes alike."""

from __future__ import annotations

from typing import Any

import cbrrr
import libipld
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.atproto import drisl
from relay.atproto.cid import Cid
from relay.atproto.drisl import UnknownCid, decode, encode
from relay.atproto.errors import DrislError
from tests.support.drisl_values import reference, values


def accepts(codec: Any, data: bytes) -> bool:
    try:
        codec(data)
    except (ValueError, RecursionError):
        return False
    return True


@given(values)
def test_others_encode_alike(value: Any) -> None:
    # libipld writes -0.0 as 0.0.
    assume(not holds_link(value) and "-0.0" not in repr(value))
    assert libipld.encode_dag_cbor(value) == cbrrr.encode_dag_cbor(value) == encode(value)


def holds_link(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(holds_link, value.values()))
    if isinstance(value, list):
        return any(map(holds_link, value))
    return isinstance(value, Cid | UnknownCid)


@given(values, st.data())
def test_others_judge_a_mutation_alike(value: Any, data: st.DataObject) -> None:
    """Whatever is refused by the strictest of the others is refused here, and what both take is taken here."""
    mutated = bytearray(reference(value))
    for _ in range(data.draw(st.integers(1, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    case = bytes(mutated)
    try:
        decoded = decode(case)
    except DrislError as error:
        assert error.reason in drisl.REASONS
        if error.reason not in ("drisl-cid", "drisl-tag", "drisl-depth"):
            assert not (accepts(libipld.decode_dag_cbor, case) and accepts(cbrrr.decode_dag_cbor, case))
    else:
        assert accepts(cbrrr.decode_dag_cbor, case)
        assert encode(decoded) == case

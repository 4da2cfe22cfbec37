"""Records in bytes: what is written is what is read, and nothing that was changed passes for a record."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.eventlog.record import HEADER_SIZE, MAX_FRAME, Record, decode, decode_header, encode_header
from tests.support.stream import record

U64 = st.integers(0, 2**64 - 1)
RECORDS = st.builds(
    Record, U64, U64, U64, U64, U64, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), st.binary()
)


def encoded(written: Record) -> bytes:
    return encode_header(written) + written.frame


@given(RECORDS, st.binary(max_size=100), st.binary(max_size=100))
def test_a_record_is_read_as_it_was_written(written: Record, before: bytes, behind: bytes) -> None:
    assert decode(before + encoded(written) + behind, len(before)) == written


@given(RECORDS, st.data())
def test_one_flipped_bit_is_noticed(written: Record, data: st.DataObject) -> None:
    spoilt = bytearray(encoded(written))
    bit = data.draw(st.integers(0, len(spoilt) * 8 - 1))
    spoilt[bit // 8] ^= 1 << bit % 8
    assert decode(bytes(spoilt), 0) is None


@given(RECORDS, st.data())
def test_a_part_is_no_record(written: Record, data: st.DataObject) -> None:
    whole = encoded(written)
    assert decode(whole[: data.draw(st.integers(0, len(whole) - 1))], 0) is None


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
def test_filler_is_no_record(filler: bytes) -> None:
    assert decode(filler * 1000, 0) is None


def test_a_length_above_any_frame_is_refused() -> None:
    assert decode_header(encode_header(record(1, frame=bytes(MAX_FRAME))), 0)
    assert decode_header(encode_header(record(1, frame=bytes(MAX_FRAME + 1))), 0) is None


def test_a_records_size_is_that_of_its_bytes() -> None:
    written = record(1, frame=os.urandom(100))
    assert written.size == HEADER_SIZE + 100 == len(encoded(written))

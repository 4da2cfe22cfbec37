"""Frames as people see them, whole and broken."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto.cid import Cid
from relay.atproto.diagnostic import show
from tests.support.blocks import cbor, cid_of, link
from tests.support.repo import frame


def test_a_frame_is_shown_in_diagnostic_notation() -> None:
    cid = cid_of(b"x")
    payload = {"seq": 7, "ok": True, "none": None, "cid": link(cid), "ops": [{"a": -1}, []], "blocks": b"abc", "t": 0.5}
    assert show(frame("#commit", payload)).splitlines() == [
        "{",
        "  't': '#commit',",
        "  'op': 1",
        "}",
        "{",
        "  't': 0.5,",
        "  'ok': true,",
        f"  'cid': 42({Cid(cid)}),",
        "  'ops': [{ 'a': -1}, []],",
        "  'seq': 7,",
        "  'none': null,",
        "  'blocks': h'616263'",
        "}",
    ]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (b"", ""),
        (b"\xff", "<byte 0: an item of indefinite length>"),
        (b"\x1c", "<byte 0: an item not well-formed>"),
        (b"\xa1\x63seq\x5b\xff\xff\xff\xff\xff\xff\xff\xff", "<byte 5: the item ends"),
        (b"\xa1\x62us\x63\xff\xfea", "'us': <text that is not UTF-8 at its byte 0: b'\\xff\\xfea'>"),
        (b"\xa1\x61a\xc1\x02", "'a': 1(2)"),
        (b"\xa1\x61a\xd8\x2a\x41\x00", "'a': 42(h'00')"),
        (b"\xa1\x01\x02", "1: 2"),
        (b"\x81" * 100, "<nested over 32 levels>"),
        (b"\xfb\x7f\xf0" + bytes(6), "inf"),
        (b"\xf9\x7e\x00", "nan"),
        (b"\xf8\x20", "simple(32)"),
        (cbor("<script>\u2028\n"), r"'<script>\u2028\n'"),
    ],
)
def test_what_is_broken_is_told_where_it_stands(broken: bytes, told: str) -> None:
    assert told in show(broken)


def test_what_is_long_is_shortened() -> None:
    shown = show(cbor({"text": "x" * 1000, "bytes": b"y" * 1000}))
    assert "... 1000 characters" in shown and "... 1000 bytes'" in shown and len(shown) < 400
    assert show(cbor(list(range(10_000))), 100).endswith(" ...") and len(show(cbor([1] * 10_000), 100)) <= 110


@given(st.binary(max_size=300))
def test_any_bytes_are_shown(data: bytes) -> None:
    shown = show(data)
    assert len(shown) <= 2_100 and shown.isascii()


def test_no_bytes_take_long() -> None:
    began = time.process_time()
    for head in (b"\x9b", b"\xbb"):
        show(head + b"\x7f" * 8 + b"\x80" * 5_000_000)
    assert time.process_time() - began < 0.1

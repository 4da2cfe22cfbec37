"""Strict DAG-CBOR: one encoding for each value, and bounds on hostile input."""

import math
from random import Random
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from relay.atproto import drisl
from relay.atproto.cid import Cid
from relay.atproto.drisl import UnknownCid, decode, decode_prefix, encode
from relay.atproto.errors import DrislError
from tests.support.budget import assert_cheap
from tests.support.drisl_values import LINK, OLD_LINK, head, reference, values


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all through: 1, 1.0 and True are three values here."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def refusal(data: bytes) -> str:
    with pytest.raises(DrislError) as caught:
        decode(data)
    assert caught.value.reason in drisl.REASONS
    assert len(str(caught.value)) < 300
    return caught.value.reason


@given(values)
@example({"b": 1, "aa": 2, "\u00e9": 3, "c": {}})
def test_a_value_survives_its_encoding(value: Any) -> None:
    data = encode(value)
    assert data == reference(value)
    assert same(decode(data), value)
    assert decode_prefix(data + b"\x80") == (value, len(data))


@given(values, st.binary(min_size=1))
def test_trailing_bytes_are_refused(value: Any, rest: bytes) -> None:
    refusal(reference(value) + rest)


@given(values)
def test_truncated_input_is_refused(value: Any) -> None:
    data = reference(value)
    for size in range(max(0, len(data) - 40), len(data)):
        refusal(data[:size])


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 9), min_size=2, max_size=6), st.randoms())
def test_keys_out_of_order_are_refused(value: dict[str, int], random: Random) -> None:
    pairs = [reference(key) + reference(item) for key, item in value.items()]
    random.shuffle(pairs)
    data = head(5, len(pairs)) + b"".join(pairs)
    assume(data != reference(value))
    assert refusal(data) == "drisl-order"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "drisl-truncated"),
        # lengths and numbers that are not the shortest
        ("1800", "drisl-not-canonical"),
        ("1817", "drisl-not-canonical"),
        ("190017", "drisl-not-canonical"),
        ("1900ff", "drisl-not-canonical"),
        ("1a0000ffff", "drisl-not-canonical"),
        ("1b00000000ffffffff", "drisl-not-canonical"),
        ("3800", "drisl-not-canonical"),
        ("580161", "drisl-not-canonical"),
        ("780161", "drisl-not-canonical"),
        ("980100", "drisl-not-canonical"),
        ("b801616100", "drisl-not-canonical"),
        ("a178016100", "drisl-not-canonical"),
        ("d9002a" + "5825" + "00" + LINK.hex(), "drisl-not-canonical"),
        ("d82a" + "590025" + "00" + LINK.hex(), "drisl-not-canonical"),
        # indefinite lengths
        ("9fff", "drisl-malformed"),
        ("bfff", "drisl-malformed"),
        ("5f4100ff", "drisl-malformed"),
        ("7f6161ff", "drisl-malformed"),
        ("ff", "drisl-malformed"),
        # maps
        ("a2616100616101", "drisl-malformed"),
        ("a2616200616100", "drisl-order"),
        ("a262616100616200", "drisl-order"),
        ("a10001", "drisl-key"),
        ("a1416101", "drisl-key"),
        ("a1f601", "drisl-key"),
        ("a18001", "drisl-key"),
        ("a1a001", "drisl-key"),
        ("a1d82a5825" + "00" + LINK.hex() + "01", "drisl-key"),
        # tags
        ("c074323031332d30332d32315432303a30343a30305a", "drisl-tag"),
        ("c24101", "drisl-tag"),
        ("d81c80", "drisl-tag"),
        ("d81c81d81d00", "drisl-tag"),
        ("d823635b615d", "drisl-tag"),
        ("d9010080", "drisl-tag"),
        ("c482391b57391b58", "drisl-tag"),
        ("d9d9f700", "drisl-tag"),
        ("db" + "ff" * 8 + "00", "drisl-tag"),
        ("d82a40", "drisl-cid"),
        ("d82a00", "drisl-cid"),
        ("d82a6100", "drisl-cid"),
        ("d82aa0", "drisl-cid"),
        ("d82a80", "drisl-cid"),
        ("d82a5824" + LINK.hex(), "drisl-cid"),
        ("d82ad82a4100", "drisl-cid"),
        # simple values and floats
        ("f7", "drisl-type"),
        ("e0", "drisl-type"),
        ("f0", "drisl-type"),
        ("f820", "drisl-type"),
        ("f8ff", "drisl-type"),
        ("f814", "drisl-malformed"),
        ("f93c00", "drisl-not-canonical"),
        ("fa3f800000", "drisl-not-canonical"),
        ("f97e00", "drisl-float"),
        ("fb7ff8000000000000", "drisl-float"),
        ("fb7ff0000000000000", "drisl-float"),
        ("fbfff0000000000000", "drisl-float"),
        ("81fb7ff0000000000000", "drisl-float"),
        # a half is six bytes shorter than the double it should be: padding elsewhere must not make up for it
        ("82f93c001b0000000000000000", "drisl-not-canonical"),
        ("83f93c001817" + "1a00000000", "drisl-not-canonical"),
        # heads and text that are no CBOR
        ("1c", "drisl-malformed"),
        ("1f", "drisl-malformed"),
        ("fc", "drisl-malformed"),
        ("61ff", "drisl-malformed"),
        ("63eda080", "drisl-malformed"),
        ("62c080", "drisl-malformed"),
        # lengths over what is there, from one byte to all the memory in the world
        ("6261", "drisl-truncated"),
        ("8100"[:2], "drisl-truncated"),
        ("5bffffffffffffffff", "drisl-truncated"),
        ("7b7fffffffffffffff", "drisl-truncated"),
        ("9bffffffffffffffff", "drisl-truncated"),
        ("bb7fffffffffffffff", "drisl-truncated"),
        ("9a3fffffff00", "drisl-truncated"),
        ("5a3fffffff00", "drisl-truncated"),
    ],
)
def test_what_is_refused(data: str, reason: str) -> None:
    assert refusal(bytes.fromhex(data)) == reason


DOUBLE = "fb3ff8000000000000"


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("a1416100", "drisl-key"),
        ("a10000", "drisl-key"),
        ("a2616200616100", "drisl-order"),
        ("f7", "drisl-type"),
        ("e0", "drisl-type"),
        ("1800", "drisl-not-canonical"),
        ("f93c00", "drisl-not-canonical"),
        ("fb7ff8000000000000", "drisl-float"),
    ],
)
@pytest.mark.parametrize("around", ["82{item}{double}", "82{double}{item}"])
def test_a_float_beside_it_hides_nothing(item: str, reason: str, around: str) -> None:
    assert refusal(bytes.fromhex(around.format(item=item, double=DOUBLE))) == reason


@pytest.mark.parametrize(
    "item", ["a1416100", "a10000", "a2616200616100", "f7", "e0", "1800", "fa3f800000", "d9002a4100"]
)
def test_a_prefix_is_held_to_the_same_rules(item: str) -> None:
    for rest in (b"", b"\x00", bytes(9)):
        with pytest.raises(DrislError):
            decode_prefix(bytes.fromhex(item) + rest)


@pytest.mark.parametrize(
    "data",
    [
        b"\xa1" * 60 + bytes(61),
        b"\xa1\x01" + b"\xa1" * 60 + bytes(100),
        b"\xa1\x81" * 30 + bytes(61),
        b"\xa2\x61a\xfb" + bytes(8) + b"\xa1" * 60 + bytes(61),
        b"\xa1\x60" * 60 + b"\x00",
    ],
    ids=["keys", "keys in a value", "lists", "behind a float", "values"],
)
def test_depth_costs_nothing(data: bytes) -> None:
    """Found by fuzzing: maps as keys of maps took twice the time for each level."""
    assert_cheap(decode, data)
    assert_cheap(decode_prefix, data)


def test_links_of_other_kinds_are_kept_apart() -> None:
    assert type(decode(reference(OLD_LINK))) is UnknownCid
    assert type(decode(reference(LINK))) is Cid
    assert type(decode(reference(bytes(LINK)))) is bytes
    for odd in (LINK[:-1], LINK + b"\0"):
        assert type(decode(reference(UnknownCid(odd)))) is UnknownCid


@pytest.mark.parametrize("unit", [b"\x81", b"\xa1\x60", b"\xd8\x2a", b"\xc1", b"\x81\xa1\x60"])
def test_depth_is_bounded(unit: bytes) -> None:
    refusal(unit * (5_000_000 // len(unit)))
    refusal(unit * 1_000)


def test_depth_may_be_chosen() -> None:
    nested: Any = 1
    for _ in range(20):
        nested = [nested]
    assert decode(encode(nested)) == nested
    with pytest.raises(DrislError, match=r"^drisl-depth"):
        decode(encode(nested), max_depth=10)


def five_megabytes(unit: bytes) -> bytes:
    count = 5_000_000 // len(unit)
    return head(4, count) + unit * count


@pytest.mark.parametrize(
    "data",
    [
        *map(
            five_megabytes, [b"\x80", b"\xa0", b"\x00", b"\xa1\x60\x00", b"\x62ab", b"\x41\x80", b"\xf7", b"\x81\xa0"]
        ),
        five_megabytes(reference(LINK)),
        five_megabytes(b"\xfb" + bytes(8)),
        head(5, 400_000) + b"".join(reference(f"{number:07}") + b"\x00" for number in range(400_000)),
        head(2, 4_999_995) + bytes(4_999_995),
        head(3, 4_999_995) + b"a" * 4_999_995,
        head(3, 4_999_994) + "\u00e9".encode() * 2_499_997,
        head(5, 249_000 // 2) + b"".join(reference(f"{number:06}") + b"\x80" for number in range(249_000 // 2)),
        head(4, 83_000) + b"\xa1\x60\x80" * 83_000,
    ],
    ids=lambda data: data[:9].hex(),
)
def test_five_megabytes_cost_neither_time_nor_memory(data: bytes) -> None:
    assert_cheap(decode, data)


def test_items_are_counted_before_they_are_made() -> None:
    assert refusal(five_megabytes(b"\x80")) == "drisl-items"
    most = drisl.MAX_ITEMS - 1
    assert decode(head(4, most) + b"\x80" * most) == [[]] * most
    assert refusal(head(4, most + 1) + b"\x80" * (most + 1)) == "drisl-items"
    assert refusal(head(5, drisl.MAX_ITEMS // 2) + b"\x60\x80" * (drisl.MAX_ITEMS // 2)) == "drisl-items"
    assert refusal(head(4, 2**63) + bytes(drisl.MAX_ITEMS)) == "drisl-items"
    assert refusal(head(2, 2**63) + bytes(drisl.MAX_ITEMS)) == "drisl-truncated"
    assert refusal(b"\x82" + head(2, drisl.MAX_ITEMS) + bytes(drisl.MAX_ITEMS)) == "drisl-truncated"
    assert refusal(b"\x82" + head(2, drisl.MAX_ITEMS) + bytes(drisl.MAX_ITEMS) + b"\x19") == "drisl-truncated"
    large: list[drisl.Value] = [bytes(drisl.MAX_ITEMS), {"a": LINK}, "x" * 70_000, -(2**40)]
    assert decode(encode(large)) == large


@pytest.mark.parametrize("value", [object(), {"a": math.nan}, [math.inf], "\ud800", {"\ud800": 1}])
def test_what_cannot_be_encoded(value: Any) -> None:
    with pytest.raises(DrislError) as caught:
        encode(value)
    assert caught.value.reason in drisl.REASONS


@given(st.binary())
def test_random_bytes_are_refused_or_canonical(data: bytes) -> None:
    try:
        assert encode(decode(data)) == data
    except DrislError as error:
        assert error.reason in drisl.REASONS

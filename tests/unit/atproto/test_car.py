"""CAR files: everything in them is verified, and nothing in them costs much."""

from collections.abc import Sequence

import cbor2
import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import car
from relay.atproto.cid import Cid
from relay.atproto.errors import CarError
from tests.support.budget import assert_cheap

BLOCKS = [b"\xa0", b"\xa1aa\x01", b"\xa1ab" + b"\x59\x01\x2c" + bytes(300), b""]


def varint(number: int) -> bytes:
    data = b""
    while number > 0x7F:
        data += bytes([number & 0x7F | 0x80])
        number >>= 7
    return data + bytes([number])


def section(content: bytes) -> bytes:
    return varint(len(content)) + content


def link(cid: bytes) -> cbor2.CBORTag:
    return cbor2.CBORTag(42, b"\0" + cid)


def header(roots: Sequence[bytes], **changes: object) -> bytes:
    return section(cbor2.dumps({"roots": list(map(link, roots)), "version": 1} | changes, canonical=True))


def entry(block: bytes, cid: bytes | None = None) -> bytes:
    return section((Cid.of_dag_cbor(block) if cid is None else cid) + block)


def file(blocks: Sequence[bytes], roots: Sequence[bytes] | None = None) -> bytes:
    return header([Cid.of_dag_cbor(blocks[0])] if roots is None else roots) + b"".join(map(entry, blocks))


def refusal(data: bytes) -> str:
    with pytest.raises(CarError) as caught:
        car.parse(data)
    assert caught.value.reason in car.REASONS
    assert len(str(caught.value)) < 300
    return caught.value.reason


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=20, unique=True), st.data())
def test_what_was_written_is_read(blocks: list[bytes], data: st.DataObject) -> None:
    cids = list(map(Cid.of_dag_cbor, blocks))
    roots = data.draw(st.lists(st.sampled_from(cids), min_size=1, max_size=3))
    parsed = car.parse(file(blocks, roots))
    assert parsed == (tuple(roots), dict(zip(cids, blocks, strict=True)))
    assert all(type(cid) is Cid for cid in parsed.roots)


def test_libipld_reads_the_same() -> None:
    blocks = [block for block in BLOCKS if block]
    theirs, blocks_by_cid = libipld.decode_car(file(blocks))
    ours = car.parse(file(blocks))
    assert tuple(theirs["roots"]) == ours.roots
    assert blocks_by_cid.keys() == ours.blocks.keys()
    assert [libipld.decode_dag_cbor(block) for block in ours.blocks.values()] == list(blocks_by_cid.values())


def test_raw_blocks_and_unneeded_blocks_are_allowed() -> None:
    raw = b"a picture"
    parsed = car.parse(file(BLOCKS) + entry(raw, Cid.of_raw(raw)))
    assert parsed.blocks[Cid.of_raw(raw)] == raw
    assert len(parsed.blocks) == len(BLOCKS) + 1


def test_unknown_header_fields_are_allowed() -> None:
    root = Cid.of_dag_cbor(BLOCKS[0])
    assert car.parse(header([root], extra=1) + entry(BLOCKS[0])).roots == (root,)


ROOT = Cid.of_dag_cbor(BLOCKS[0])
ONE = entry(BLOCKS[0])
FOREIGN = b"\x01\x70\x12\x20" + bytes(32)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "car-truncated"),
        (b"\x00", "car-header"),
        (b"\x80", "car-truncated"),
        (b"\x3a", "car-truncated"),
        (section(b"\xff"), "car-header"),
        (section(b"\x01"), "car-header"),
        (section(b"\x80"), "car-header"),
        (section(cbor2.dumps({"version": 1})), "car-header"),
        (section(cbor2.dumps({"roots": [link(ROOT)]})) + ONE, "car-header"),
        (header([]) + ONE, "car-header"),
        (header([ROOT], version=2) + ONE, "car-header"),
        (header([ROOT], version=True) + ONE, "car-header"),
        (header([ROOT], version="1") + ONE, "car-header"),
        (header([ROOT], version=1.0) + ONE, "car-header"),
        (section(cbor2.dumps({"roots": [ROOT], "version": 1})) + ONE, "car-cid"),
        (section(cbor2.dumps({"roots": "x", "version": 1})) + ONE, "car-header"),
        (section(cbor2.dumps({"version": 1, "roots": [link(ROOT)]})) + ONE, "car-header"),
        (header([FOREIGN]) + ONE, "car-cid"),
        (header([ROOT, FOREIGN]) + ONE, "car-cid"),
        (header([ROOT] * 500) + ONE, "car-header"),
        (header([ROOT]), "car-root-missing"),
        (header([Cid.of_dag_cbor(b"other")]) + ONE, "car-root-missing"),
        (header([Cid.of_raw(BLOCKS[0])]) + ONE, "car-root-missing"),
        (header([ROOT]) + ONE[:-1], "car-truncated"),
        (header([ROOT]) + ONE + b"\x80", "car-truncated"),
        (header([ROOT]) + ONE + b"\x24", "car-truncated"),
        (header([ROOT]) + ONE + b"\x00", "car-cid"),
        (header([ROOT]) + ONE + section(ROOT[:35]), "car-cid"),
        (header([ROOT]) + ONE + section(ROOT[:35]) + ROOT, "car-cid"),
        (header([ROOT]) + ONE + entry(b"\xa0", FOREIGN), "car-cid"),
        (header([ROOT]) + ONE + entry(b"\xa0", b"\x12\x20" + bytes(34)), "car-cid"),
        (header([ROOT]) + ONE + ONE, "car-duplicate"),
        (header([ROOT]) + entry(b"\xa1aa\x01", ROOT), "car-block-hash"),
        (header([ROOT]) + entry(BLOCKS[0], ROOT[:-1] + b"\0"), "car-block-hash"),
        (header([ROOT]) + b"\xa5\x80\x00" + ROOT + BLOCKS[0], "car-varint"),
        (b"\xba\x00" + header([ROOT])[1:] + ONE, "car-varint"),
        (b"\xff" * 9 + b"\x01", "car-varint"),
        (header([ROOT]) + b"\xff" * 5_000_000, "car-varint"),
        (header([ROOT]) + b"\x80" * 5_000_000, "car-varint"),
        (header([ROOT]) + b"\xff\xff\xff\x7f" + bytes(1000), "car-block-size"),
        (b"\xff\xff\xff\x7f" + bytes(1000), "car-header"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


def test_the_largest_block() -> None:
    assert len(car.parse(file([bytes(999_999)])).blocks) == 1
    assert refusal(file([bytes(1_000_000)])) == "car-block-size"


@given(st.data())
def test_any_flipped_bit_is_noticed_or_harmless(data: st.DataObject) -> None:
    whole = bytearray(file(BLOCKS))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        parsed = car.parse(bytes(whole))
    except CarError as error:
        assert error.reason in car.REASONS
    else:
        # Only a root's kind or the name of a field nobody reads can change without a hash telling.
        assert list(parsed.blocks.values()) == BLOCKS


@given(st.binary())
def test_random_bytes(data: bytes) -> None:
    assert refusal(data)
    assert refusal(header([ROOT]) + data)


@pytest.mark.parametrize(
    "data",
    [
        header([ROOT]) + ONE + b"".join(entry(number.to_bytes(3)) for number in range(5_000_000 // 40)),
        header([ROOT]) + ONE + b"\x00" * 5_000_000,
        header([ROOT]) + ONE + b"".join(entry(bytes([number]) * 999_999) for number in range(5)),
        b"\xff\xff\xff\x01" + bytes(5_000_000),
    ],
    ids=["many", "zeros", "large", "header"],
)
def test_five_megabytes_cost_neither_time_nor_memory(data: bytes) -> None:
    assert_cheap(car.parse, data)

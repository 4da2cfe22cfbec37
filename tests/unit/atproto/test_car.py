"""CAR files: everything in them is verified, and nothing in them costs much."""

from collections.abc import Sequence

import cbor2
import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import car, drisl
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


ROOT = Cid.of_dag_cbor(BLOCKS[0])
ONE = entry(BLOCKS[0])
EMPTY = Cid.of_dag_cbor(b"")
FOREIGN = b"\x01\x70\x12\x20" + bytes(32)


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
    assert type(parsed.root) is Cid
    assert parsed == (roots[0], dict(zip(cids, blocks, strict=True)))


def test_libipld_reads_the_same() -> None:
    blocks = [block for block in BLOCKS if block]
    theirs, blocks_by_cid = libipld.decode_car(file(blocks))
    ours = car.parse(file(blocks))
    assert theirs["roots"] == [ours.root]
    assert blocks_by_cid.keys() == ours.blocks.keys()
    assert [libipld.decode_dag_cbor(block) for block in ours.blocks.values()] == list(blocks_by_cid.values())


def test_raw_blocks_and_unneeded_blocks_are_allowed() -> None:
    raw = b"a picture"
    parsed = car.parse(file(BLOCKS) + entry(raw, Cid.of_raw(raw)))
    assert parsed.blocks[Cid.of_raw(raw)] == raw
    assert len(parsed.blocks) == len(BLOCKS) + 1


def test_the_same_block_twice_and_any_order_are_allowed() -> None:
    parsed = car.parse(file(BLOCKS))
    for order in (BLOCKS[::-1], BLOCKS + BLOCKS, [*BLOCKS[1:], BLOCKS[0], BLOCKS[1]]):
        assert car.parse(header([parsed.root]) + b"".join(map(entry, order))) == parsed


OTHER_KINDS = [
    b"\x12\x20" + bytes(32),
    b"\x01\x70\x12\x20" + bytes(32),
    b"\x01\x71\x13\x40" + bytes(64),
    b"\x01\x55\x1b\x20" + bytes(32),
    b"\x01\x71\x12\x14" + bytes(20),
    b"\x01\x71\xa0\xe4\x02\x20" + bytes(32),
    b"\x01\x55\x00\x00",
    b"\x01\x55\x00\x05hello",
]


@pytest.mark.parametrize("cid", OTHER_KINDS, ids=bytes.hex)
@pytest.mark.parametrize("block", [b"", b"x", bytes(200), bytes(1_500_000)], ids=len)
def test_blocks_of_other_kinds_are_passed_over(cid: bytes, block: bytes) -> None:
    parsed = car.parse(file(BLOCKS))
    assert car.parse(header([parsed.root]) + entry(block, cid) + b"".join(map(entry, BLOCKS))) == parsed
    assert car.parse(file(BLOCKS) + entry(block, cid)) == parsed


def test_unknown_header_fields_and_further_roots_are_allowed() -> None:
    root = Cid.of_dag_cbor(BLOCKS[0])
    assert car.parse(header([root], extra=1) + entry(BLOCKS[0])).root == root
    assert car.parse(header([root, FOREIGN]) + entry(BLOCKS[0])).root == root


def test_a_header_of_as_many_bytes_as_it_may_have() -> None:
    room = car.MAX_HEADER - len(header([ROOT], extra=bytes(1_000))) + len(varint(1_000)) + 1_000
    assert car.parse(header([ROOT], extra=bytes(room)) + ONE).root == ROOT
    assert refusal(header([ROOT], extra=bytes(room + 1)) + ONE) == "car-header"


def test_as_many_blocks_as_there_may_be() -> None:
    root = Cid.of_dag_cbor(BLOCKS[0])
    blocks = b"".join(entry(number.to_bytes(3)) for number in range(car.MAX_BLOCKS - 1))
    assert len(car.parse(header([root]) + ONE + blocks).blocks) == car.MAX_BLOCKS
    assert refusal(header([root]) + ONE + blocks + ONE) == "car-block-count"
    pauses: list[int] = []
    car.parse(header([root]) + ONE + blocks, lambda: pauses.append(1))
    assert len(pauses) == car.MAX_BLOCKS // car.BLOCKS_BEFORE_PAUSE


# The commit object of a file that is faulty otherwise


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\x24",
        b"\xff" * 9,
        b"\x00" * 5_000,
        entry(b"false", Cid.of_dag_cbor(b"other")),
        entry(bytes(1_000_001)),
        b"".join(entry(number.to_bytes(3)) for number in range(20_000)),
    ],
    ids=range(7),
)
def test_the_root_is_found_whatever_else_is_wrong(rest: bytes) -> None:
    assert car.root_block(file(BLOCKS) + rest) == (Cid.of_dag_cbor(BLOCKS[0]), BLOCKS[0])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "car-truncated"),
        (section(b"\x80"), "car-header"),
        (header([Cid.of_dag_cbor(b"other")]) + entry(BLOCKS[0]), "car-root-missing"),
        (header([Cid.of_dag_cbor(BLOCKS[1])]) + entry(BLOCKS[1])[:-1], "car-root-missing"),
        (header([Cid.of_dag_cbor(BLOCKS[1])]) + entry(BLOCKS[2], Cid.of_dag_cbor(BLOCKS[1])), "car-root-missing"),
        (header([Cid.of_dag_cbor(BLOCKS[1])]) + b"\xff" * 9 + entry(BLOCKS[1]), "car-varint"),
        (
            header([Cid.of_dag_cbor(BLOCKS[1])]) + entry(BLOCKS[0]) * car.MAX_BLOCKS + entry(BLOCKS[1]),
            "car-root-missing",
        ),
    ],
    ids=range(7),
)
def test_a_root_that_is_not_found(data: bytes, reason: str) -> None:
    with pytest.raises(CarError) as caught:
        car.root_block(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("size", [128, 300, 2500, 16_000])
def test_a_file_of_a_commit_alone(size: int) -> None:
    block = bytes(size)
    assert car.of_root(Cid.of_dag_cbor(block), block) == file([block])


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
        (section(drisl.encode({"roots": [ROOT], "version": 1.0})) + ONE, "car-header"),
        (section(drisl.encode({"roots": [ROOT]})) + ONE, "car-header"),
        (section(cbor2.dumps({"roots": [ROOT], "version": 1})) + ONE, "car-cid"),
        (section(cbor2.dumps({"roots": "x", "version": 1})) + ONE, "car-header"),
        (section(cbor2.dumps({"version": 1, "roots": [link(ROOT)]})) + ONE, "car-header"),
        (header([FOREIGN]) + ONE, "car-cid"),
        (header([ROOT] * 500) + ONE, "car-header"),
        (header([ROOT]), "car-root-missing"),
        (header([Cid.of_dag_cbor(b"other")]) + ONE, "car-root-missing"),
        (header([Cid.of_raw(BLOCKS[0])]) + ONE, "car-root-missing"),
        (header([ROOT]) + ONE[:-1], "car-truncated"),
        (header([ROOT]) + varint(len(ONE)) + ONE[1:], "car-truncated"),
        (header([ROOT]) + ONE + b"\x80", "car-truncated"),
        (header([ROOT]) + ONE + b"\x24", "car-truncated"),
        (header([ROOT]) + ONE + b"\x00", "car-cid"),
        (header([ROOT]) + ONE + section(ROOT[:35]), "car-cid"),
        (header([ROOT]) + ONE + section(ROOT[:35]) + ROOT, "car-cid"),
        (header([ROOT]) + ONE + section(EMPTY[:35]) + EMPTY[35:], "car-cid"),
        (header([ROOT]) + ONE + section(FOREIGN[:-1]), "car-cid"),
        (header([ROOT]) + ONE + entry(b"\xa0", b"\x02\x71\x12\x20" + bytes(32)), "car-cid"),
        (header([ROOT]) + ONE + section(b"\x01\x71\x12\x41" + bytes(65)), "car-cid"),
        (header([ROOT]) + ONE + section(b"no id at all"), "car-cid"),
        (header([ROOT]) + entry(b"a picture", Cid.of_raw(b"another")) + ONE, "car-block-hash"),
        (header([ROOT]) + entry(b"\xa1aa\x01", ROOT), "car-block-hash"),
        (header([ROOT]) + entry(BLOCKS[0], ROOT[:-1] + b"\0"), "car-block-hash"),
        (header([ROOT]) + b"\xa5\x00" + ROOT + BLOCKS[0], "car-varint"),
        (header([ROOT]) + b"\xa5\x80\x00" + ROOT + BLOCKS[0], "car-varint"),
        (b"\xba\x00" + header([ROOT])[1:] + ONE, "car-varint"),
        (b"\xff" * 9 + b"\x01", "car-varint"),
        (header([ROOT]) + ONE + b"\xff\xff\xff\xff\x01", "car-varint"),
        (header([ROOT]) + b"\xff" * 5_000_000, "car-varint"),
        (header([ROOT]) + b"\x80" * 5_000_000, "car-varint"),
        (header([ROOT]) + b"\xff\xff\xff\x7f" + bytes(1000), "car-truncated"),
        (b"\xff\xff\xff\x7f" + bytes(1000), "car-header"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


def test_the_largest_block() -> None:
    assert len(car.parse(file([bytes(1_000_000)])).blocks) == 1
    assert refusal(file([bytes(1_000_001)])) == "car-block-size"
    picture = bytes(1_000_001)
    assert len(car.parse(file(BLOCKS) + entry(picture, Cid.of_raw(picture))).blocks) == len(BLOCKS) + 1


@given(st.data())
def test_any_flipped_bit_is_noticed_or_harmless(data: st.DataObject) -> None:
    whole = bytearray(file(BLOCKS))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        parsed = car.parse(bytes(whole))
    except CarError as error:
        assert error.reason in car.REASONS
    else:
        # Only a root's or block's kind or the name of a field nobody reads can change without a hash telling.
        assert all(block in BLOCKS for block in parsed.blocks.values())
        assert len(parsed.blocks) >= len(BLOCKS) - 1


@given(st.binary())
def test_random_bytes_are_refused(data: bytes) -> None:
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

"""Nodes that come along and that no operation comes to: sound ones are put up with, all others refused by name."""

from itertools import islice
from operator import itemgetter
from typing import Any

import pytest

from relay.atproto import mst, mst_read, operations
from relay.atproto.cid import Cid
from relay.atproto.errors import MstError
from tests.support.blocks import cbor, cid_of, link
from tests.support.repo_tree import build, shared_length
from tests.support.trees import (
    HIGH,
    LAYERED,
    REASONS,
    A,
    C,
    change,
    drop,
    invert,
    node,
    put,
    refused,
    refused_node,
    tree_of,
    value,
)

NUMBERED = [f"a.b.c/{number:05}" for number in range(2, 5000)]
FIRST, SECOND, THIRD = itemgetter(0, 3, 4)([path for path in NUMBERED if mst.key_depth(path.encode()) == 1])
LEAVES = [path for path in NUMBERED if mst.key_depth(path.encode()) == 0]
BETWEEN, ALSO_BETWEEN = [path for path in LEAVES if FIRST < path < SECOND][:2]
BEFORE = LEAVES[0]
BEYOND = next(path for path in LEAVES if path > THIRD)
assert BEFORE < FIRST


def beside(below: bytes | None, link_to: bytes | None = None) -> str:
    """What becomes of a commit that creates a key beside `below`, which stands between two others."""
    child = link_to or (cid_of(below) if below is not None else None)

    def tree(*more: str) -> bytes:
        keys = [FIRST, SECOND, *more]
        entries = []
        for previous, key in zip(["", *keys], keys, strict=False):
            shared = shared_length(previous.encode(), key.encode())
            entries.append((shared, key[shared:], value(key), child if key == FIRST else None))
        return node(None, *entries)

    after = tree(THIRD)
    blocks = {cid_of(block): block for block in (after, below) if block is not None}
    try:
        before = invert(Cid.of_dag_cbor(after), [put(THIRD)], blocks)
    except MstError as error:
        assert error.reason in REASONS
        return error.reason
    assert before == Cid.of_dag_cbor(tree())
    return "sound"


def entry(prefix: int, suffix: bytes, **changes: Any) -> dict[str, Any]:
    return {"p": prefix, "k": suffix, "v": link(value("v")), "t": None} | changes


def test_sound_nodes_beside_the_way() -> None:
    assert beside(node(None, (0, BETWEEN, value("v"), None))) == "sound"
    assert beside(None, value("not there")) == "sound"
    assert beside(None) == "sound"


KEY = BETWEEN.encode()


@pytest.mark.parametrize(
    ("below", "reason"),
    [
        pytest.param(node(None, (0, BEYOND, value("v"), None)), "mst-key-order", id="beyond its gap"),
        pytest.param(node(None, (0, BEFORE, value("v"), None)), "mst-key-order", id="before its gap"),
        pytest.param(cbor({"l": None, "e": [entry(0, KEY), entry(0, KEY)]}), "mst-key-order", id="twice"),
        pytest.param(cbor({"l": None, "e": [entry(0, KEY), entry(2000, b"x")]}), "mst-node-malformed", id="long p"),
        pytest.param(cbor({"l": None, "e": [entry(-1, KEY)]}), "mst-node-malformed", id="negative p"),
        pytest.param(cbor({"l": None, "e": [entry(1, KEY)]}), "mst-node-malformed", id="p of the first"),
        pytest.param(
            cbor({"l": None, "e": [entry(0, KEY), entry(5, ALSO_BETWEEN.encode()[5:])]}), "mst-key-order", id="short p"
        ),
        pytest.param(cbor({"l": None, "e": [entry(0, KEY, t=link(value("x")))]}), "mst-key-layer", id="below layer 0"),
        pytest.param(cbor({"l": link(value("x")), "e": [entry(0, KEY)]}), "mst-key-layer", id="left below layer 0"),
        pytest.param(cbor({"l": link(value("x")), "e": []}), "mst-empty-node", id="a bridge on layer 0"),
        pytest.param(cbor({"l": None, "e": []}), "mst-empty-node", id="empty"),
        pytest.param(cbor({"l": None, "e": None}), "mst-node-malformed", id="no list"),
        pytest.param(cbor({"l": None, "e": [{"p": 0, "k": KEY}]}), "mst-node-malformed", id="no value"),
        pytest.param(cbor({"l": None, "e": [entry(0, KEY, x=1)]}), "mst-node-malformed", id="a field more"),
        pytest.param(cbor({"l": None, "e": [entry(0, KEY, k=BETWEEN)]}), "mst-node-malformed", id="key of text"),
        pytest.param(cbor({"l": None, "e": [entry(0, KEY, v=None)]}), "mst-node-malformed", id="null for a record"),
        pytest.param(cbor({"text": "a record"}), "mst-node-malformed", id="a record"),
        pytest.param(b"\xff\xff\xff", "mst-node-malformed", id="no CBOR"),
        pytest.param(b"", "mst-node-malformed", id="nothing"),
    ],
)
def test_malformed_nodes_beside_the_way_are_named(below: bytes, reason: str) -> None:
    assert beside(below) == reason


@pytest.mark.parametrize("key", ["abc", "/abc", "abc/", "a//b", "a/b/", "a/b/c", "/", "/a/b"])
@pytest.mark.parametrize("place", ["alone", "behind another", "before another"])
def test_keys_that_are_not_paths_are_refused(key: str, place: str) -> None:
    """Consumers refuse a whole tree with such a key. Where it stands tells how much of it stands in its own entry."""
    names = [f"{key[:-1]}{number}/x" for number in range(1000)] + [f"{number}/x" for number in range(1000)]
    level = [name for name in names if mst.key_depth(name.encode()) == mst.key_depth(key.encode())]
    other = next((name for name in level if place != "alone" and (name < key) == (place == "behind another")), None)
    keys = sorted([key] if other is None else [key, other])
    entries, previous = [], ""
    for one in keys:
        shared = shared_length(previous.encode(), one.encode())
        entries.append((shared, one[shared:], value("v"), None))
        previous = one
    with pytest.raises(MstError) as caught:
        open_one(node(None, *entries))
    assert caught.value.reason == "mst-node-malformed"


def open_one(block: bytes) -> None:
    root = Cid.of_dag_cbor(block)
    mst_read.open_tree(root, {root: block})


def test_a_key_has_one_slash_wherever_it_stands() -> None:
    keys = [
        name for name in (f"{one}/{two}" for one in "abc" for two in range(200)) if not mst.key_depth(name.encode())
    ]
    entries, previous = [], ""
    for key in sorted(keys):
        shared = shared_length(previous.encode(), key.encode())
        entries.append((shared, key[shared:], value("v"), None))
        previous = key
    open_one(node(None, *entries))


def test_unreachable_blocks_are_not_looked_at() -> None:
    before, _ = tree_of(A)
    after, blocks = tree_of(A, C)
    assert invert(after, [put(C)], blocks | {Cid.of_dag_cbor(b"\xff"): b"\xff"}) == before


def test_one_subtree_in_two_places() -> None:
    """A bridge has no keys by itself, so only the place tells; what is below it did not come along."""
    names = map("a.b.c/{:06}".format, range(10**6))
    high = sorted(islice((name for name in names if mst.key_depth(name.encode()) == 2), 2))
    bridge = node(value("missing"))
    shared = shared_length(high[0].encode(), high[1].encode())
    root = node(cid_of(bridge), (0, high[0], value("v"), cid_of(bridge)), (shared, high[1][shared:], value("v"), None))
    assert refused_node(root, bridge, key=high[1]) == "mst-key-order"


def test_nodes_are_bounded_together() -> None:
    paths = [f"com.example.thing/{number:05}" for number in range(14_000)]
    root, blocks = tree_of(*paths)
    size = sum(map(len, blocks.values()))
    assert size > mst_read.MAX_NODES_SIZE
    assert refused(root, [put(paths[0])], blocks) == "mst-size"
    few = {cid: block for cid, block in blocks.items() if len(block) > 200 or cid == root}
    assert len(mst_read.open_tree(root, few)) > 100


ODD_LINKS = [
    b"\x12\x20" + bytes(32),
    b"\x01\x70\x12\x20" + bytes(32),
    b"\x01\x55\x12\x20" + bytes(32),
    b"\x01\x71\x13\x40" + bytes(64),
    b"\x01\x71\x12\x14" + bytes(20),
    b"\x01\x71\xa0\xe4\x02\x20" + bytes(32),
    b"\x01\x55\x00\x00",
]


@pytest.mark.parametrize("odd", ODD_LINKS, ids=bytes.hex)
@pytest.mark.parametrize("op", ["create", "update", "delete"])
def test_links_of_entries_that_are_not_touched_may_be_of_any_kind(odd: bytes, op: str) -> None:
    paths = [path for path in map("a.b.c/{:03}".format, range(99)) if mst.key_depth(path.encode()) == 0][:4]
    for place in range(3):
        records = {path: bytes(value(path)) for path in paths}
        records[paths[place]] = odd
        with_all: dict[bytes, bytes] = {}
        without: dict[bytes, bytes] = {}
        changed: dict[bytes, bytes] = {}
        full = Cid(build(records, with_all))
        fewer = Cid(build({path: cid for path, cid in records.items() if path != paths[3]}, without))
        other = Cid(build(records | {paths[3]: bytes(value("old"))}, changed))
        before, after, ops, blocks = {
            "create": (fewer, full, [put(paths[3])], with_all),
            "update": (other, full, [change(paths[3], value(paths[3]), value("old"))], with_all),
            "delete": (full, fewer, [drop(paths[3])], without),
        }[op]
        assert invert(after, ops, {Cid(cid): block for cid, block in blocks.items()}) == before


@pytest.mark.parametrize(
    "odd",
    [b"", b"\x00", b"\x01", b"\x01\x71\x12\x20" + bytes(31), b"\x02\x71\x12\x20" + bytes(32), bytes(300), b"\x12\x20"],
    ids=bytes.hex,
)
def test_a_link_that_is_no_cid_is_malformed(odd: bytes) -> None:
    assert beside(cbor({"l": None, "e": [entry(0, KEY, v=link(odd))]})) == "mst-node-malformed"


def test_the_length_of_an_odd_link_has_one_form() -> None:
    odd = cbor({"l": None, "e": [entry(0, KEY, v=link(ODD_LINKS[-1]))]})
    assert beside(odd) == "sound"
    assert beside(odd.replace(b"\xd8\x2a\x45", b"\xd8\x2a\x58\x05")) == "mst-node-malformed"


def test_an_operation_on_an_odd_entry_does_not_invert() -> None:
    block = node(None, (0, C, ODD_LINKS[0], None))
    assert refused_node(block, key=C) == "mst-value-mismatch"


# What is looked up where there is no tree before


def test_a_record_is_checked_against_the_tree() -> None:
    root, blocks = tree_of(*LAYERED)
    opened = mst_read.open_tree(root, blocks)
    mst.check_record(root, A, value(A), opened)
    mst.check_record(root, HIGH, value(HIGH), opened)
    mst.check_record(root, "A0/999999", None, opened)

    def fault(path: str, record: Cid | None, nodes: mst_read.Opened) -> str:
        with pytest.raises(MstError) as caught:
            mst.check_record(root, path, record, nodes)
        return caught.value.reason

    assert fault(A, value("other"), opened) == "mst-value-mismatch"
    assert fault(A, None, opened) == "mst-key-present"
    assert fault("A0/999999", value("x"), opened) == "mst-key-missing"
    assert fault(A, value(A), {root: opened[root]}) == "mst-node-missing"
    assert fault(A, None, {}) == "mst-node-missing"


def test_an_entry_whose_link_is_not_a_cid_is_not_passed_over() -> None:
    """Found by fuzzing: the node was read as if it ended before that entry."""
    link = b"\xd8\x2a\x58\x25\x00"
    whole = link + b"\x01\x71\x12\x20" + bytes(32)
    broken = link + b"\x01\x71\x12\x76" + bytes(32)
    first = b"\xa4ak\x58\x18app.bsky.feed.post/3kcaaap\x00at\xf6av"
    second = b"\xa4ak\x44daaaap\x15at\xf6av"
    data = b"\xa2ae\x81" + first + whole + second + broken + b"al\xf6"
    with pytest.raises(MstError):
        mst_read.read((b"", None, mst_read.LOWEST, mst_read.HIGHEST), data, (), [])


@pytest.mark.parametrize("bound", ["MAX_NODE_SIZE", "MAX_NODES_SIZE"])
@pytest.mark.parametrize(("spare", "outcome"), [(0, "sound"), (-1, "mst-size")])
def test_a_node_is_bounded_by_itself(monkeypatch: pytest.MonkeyPatch, bound: str, spare: int, outcome: str) -> None:
    root, blocks = tree_of(*LEAVES[:50])
    monkeypatch.setattr(mst_read, bound, len(blocks[root]) + spare)
    if outcome == "sound":
        assert mst_read.open_tree(root, blocks)
    else:
        assert refused(root, [put(LEAVES[0])], blocks) == outcome


def test_a_key_of_as_many_bytes_as_it_may_have() -> None:
    key = "a/" + "b" * (mst_read.MAX_KEY - 2)
    root, blocks = tree_of(key)
    assert mst_read.open_tree(root, blocks)[root][1] == [key.encode()]


def test_each_node_and_each_change_comes_after_a_pause() -> None:
    root, blocks = tree_of(*NUMBERED[:300])
    pauses: list[int] = []
    opened = mst_read.open_tree(root, blocks, lambda: pauses.append(1))
    assert len(pauses) == len(opened) > 10
    changes = operations.changes([put(path) for path in NUMBERED[:20]])
    pauses.clear()
    mst.invert(root, changes, opened, lambda: pauses.append(1))
    assert len(pauses) == 20

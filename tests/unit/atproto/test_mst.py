"""Trees: the interop vectors, the rules of node structure, and what undoing operations finds."""

from itertools import islice, permutations
from typing import Any
from unittest.mock import Mock

import pytest

from relay.atproto import mst, mst_node, mst_read, operations
from relay.atproto.cid import DAG_CBOR_PREFIX, Cid
from relay.atproto.frames import RepoOp
from tests.support import interop
from tests.support.blocks import cbor, cid_of, link
from tests.support.budget import assert_cheap
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete
from tests.support.repo_tree import build, shared_length
from tests.support.trees import (
    HIGH,
    LAYERED,
    A,
    C,
    E,
    F,
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

LINK_BYTES = mst_read.LINK + DAG_CBOR_PREFIX + bytes(32)


@pytest.mark.parametrize("vector", interop.vectors("mst/key_heights.json"), ids=lambda vector: vector["key"])
def test_interop_key_heights(vector: dict[str, Any]) -> None:
    assert mst.key_depth(vector["key"].encode()) == vector["height"]


@pytest.mark.parametrize("vector", interop.vectors("mst/common_prefix.json"))
def test_interop_common_prefix(vector: dict[str, Any]) -> None:
    left, right = vector["left"].encode(), vector["right"].encode()
    assert mst_node._shared_length(left, right) == vector["len"]
    assert mst_node._shared_length(right[: vector["len"]], right) == vector["len"]


@pytest.mark.parametrize("key", interop.lines("mst/example_keys.txt"))
def test_interop_example_keys(key: str) -> None:
    assert mst.key_depth(key.encode()) == int(key[1])


@pytest.mark.parametrize(
    "vector", interop.vectors("firehose/commit-proof-fixtures.json"), ids=lambda vector: vector["comment"]
)
def test_interop_commit_proofs(vector: dict[str, Any]) -> None:
    """The nodes that the reference implementation sends along are enough, and lead to the tree before."""
    leaf = Cid.parse(vector["leafValue"])
    records = dict.fromkeys(vector["keys"], leaf)
    blocks: dict[bytes, bytes] = {}
    before = build(records, blocks)
    records |= dict.fromkeys(vector["adds"], leaf)
    records = {path: cid for path, cid in records.items() if path not in vector["dels"]}
    after = build(records, blocks)
    assert str(Cid(before)) == vector["rootBeforeCommit"]
    assert str(Cid(after)) == vector["rootAfterCommit"]

    ops = [put(path, leaf) for path in vector["adds"]] + [drop(path, leaf) for path in vector["dels"]]
    proof = {cid: block for cid, block in blocks.items() if str(Cid(cid)) in vector["blocksInProof"]}
    assert invert(Cid(after), ops, proof) == before
    assert invert(Cid(after), ops[::-1], proof) == before


def test_key_depth_of_long_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is known with so many zero bits, so the digest is made up."""
    for bits in (0, 1, 2, 7, 8, 9, 15, 16, 255, 256):
        digest = (2**256 - 1 >> bits).to_bytes(32)
        monkeypatch.setattr(mst_read, "sha256", lambda _key, digest=digest: Mock(digest=lambda: digest))
        assert mst.key_depth(b"any") == bits // 2


def test_the_empty_tree() -> None:
    root, blocks = tree_of()
    assert root == mst.EMPTY_TREE
    assert invert(root, [], blocks) == root
    only, with_one = tree_of("A0/374913")
    assert invert(only, [put("A0/374913")], with_one) == root
    assert invert(root, [drop("A0/374913")], blocks) == only
    high, _ = tree_of("A5/827942")
    assert invert(root, [drop("A5/827942")], blocks) == high


def test_top_falls_as_far_as_it_is_empty() -> None:
    """Without its only high key a tree loses all the bridges that led down from it."""
    paths = [path for path in LAYERED if path != HIGH]
    before, _ = tree_of(*paths)
    after, blocks = tree_of(*paths, HIGH)
    assert invert(after, [put(HIGH)], blocks) == before
    assert invert(before, [drop(HIGH)], tree_of(*paths)[1]) == after


def test_layers_of_the_keys_used_here() -> None:
    assert [mst.key_depth(path.encode()) for path in LAYERED] == [0, 0, 2, 0, 0]


def test_each_fault_of_the_operations_is_named() -> None:
    before, _ = tree_of("A0/374913", "E0/670489", "F0/697858")
    after, blocks = tree_of("A0/374913", "C0/451630", "E0/670489")
    other = value("other")
    good = [put("C0/451630"), drop("F0/697858")]
    assert invert(after, good, blocks) == before
    assert invert(after, good[::-1], blocks) == before, "the order of operations says nothing"

    omitted = invert(after, good[:1], blocks)
    assert omitted != before
    extra = invert(after, [*good, put("A0/374913")], blocks)
    assert extra != before
    assert invert(after, [good[0], drop("F0/697858", other)], blocks) != before, "wrong prev of a delete"
    assert invert(after, [*good, change("A0/374913", value("A0/374913"), other)], blocks) != before

    assert refused(after, [*good, good[0]], blocks) == "mst-duplicate-path"
    assert refused(after, [put("C0/451630", other)], blocks) == "mst-value-mismatch"
    assert refused(after, [change("C0/451630", other, other)], blocks) == "mst-value-mismatch"
    assert refused(after, [put("F0/697858")], blocks) == "mst-key-missing"
    assert refused(after, [change("F0/697858", other, other)], blocks) == "mst-key-missing"
    assert refused(after, [drop("E0/670489")], blocks) == "mst-key-present"
    assert refused(after, [RepoOp("delete", "F0/697858", None, None)], blocks) == "mst-prev-missing"
    assert refused(after, [RepoOp("update", "C0/451630", value("C0/451630"), None)], blocks) == "mst-prev-missing"
    assert refused(after, good, {}) == "mst-node-missing"


def test_a_missing_node_is_named_wherever_it_is_needed() -> None:
    repo = RepoBuilder(account_did(1), SigningKey.create())
    paths = [f"com.example.thing/{number}" for number in range(300)]
    repo.commit(*[create(path, {"n": path}) for path in paths])
    for path in paths[::20]:
        event = repo.commit(delete(path))
        op = drop(path, Cid(event.ops[0]["prev"].value[1:]))
        blocks = event.blocks
        before = Cid(event.fields["prevData"].value[1:])
        needed = event.proof
        assert invert(Cid(repo.data), [op], {cid: blocks[cid] for cid in blocks if cid in needed}) == before
        for cid in needed:
            without = {other: block for other, block in blocks.items() if other != cid}
            assert refused(Cid(repo.data), [op], without) == "mst-node-missing"


def test_bridges_come_and_go_with_the_key_that_they_lead_to() -> None:
    without, above = tree_of(HIGH)
    whole, blocks = tree_of(A, HIGH)
    assert invert(whole, [put(A)], blocks) == without
    assert invert(without, [drop(A)], above) == whole


def test_what_came_and_went_in_one_commit_changes_nothing() -> None:
    root, blocks = tree_of(A)
    assert invert(root, [put(C), drop(C)], blocks) == root
    assert refused(root, [put(A), drop(A)], blocks) == "mst-key-present"


def test_an_operation_is_on_the_key_that_it_names() -> None:
    """Not on the next one, though that has the record."""
    root, blocks = tree_of(A, C)
    assert refused(root, [put("B0/601692", value(C))], blocks) == "mst-key-missing"
    assert refused(root, [change("B0/601692", value(C), value("old"))], blocks) == "mst-key-missing"


def test_one_record_under_two_keys_is_taken_back_under_one() -> None:
    blocks: dict[bytes, bytes] = {}
    before = build({A: value("old"), C: value("new")}, blocks)
    after = build({A: value("new"), C: value("new")}, blocks)
    assert invert(Cid(after), [change(A, value("new"), value("old"))], blocks) == before


@pytest.mark.parametrize(
    ("paths", "created"),
    [((A, C), (HIGH,)), ((E, F), (HIGH,)), ((E, F), (A, HIGH)), ((A, C), (HIGH, E))],
    ids=["all before", "all behind", "one before", "one behind"],
)
def test_what_is_left_of_a_tree_under_a_new_top_need_not_come_along(
    paths: tuple[str, ...], created: tuple[str, ...]
) -> None:
    before, old = tree_of(*paths)
    after, blocks = tree_of(*paths, *created)
    sent = {cid: block for cid, block in blocks.items() if cid not in old}
    assert len(sent) < len(blocks)
    assert invert(after, [put(path) for path in created], sent) == before


@pytest.mark.parametrize("below", [True, False])
def test_an_entry_is_not_taken_for_another_that_is_written_alike(below: bool) -> None:
    """Both share as much with the key before. The one that was created may have a subtree on its right."""

    def names(group: str) -> set[str]:
        return {f"{number:04}" for number in range(10_000) if mst.key_depth(f"{group}{number:04}".encode()) == 1}

    one, two = "a.b.c/1", "a.b.c/2"
    alike = max(names(one) & names(two))
    leaf = next(path for path in map("a.b.c/3{}".format, range(100)) if mst.key_depth(path.encode()) == 0)
    created = two + alike
    records = dict.fromkeys((one + min(names(one)), one + alike, two + min(names(two))), value("v"))
    records |= {leaf: value("v")} if below else {}
    blocks: dict[bytes, bytes] = {}
    before = build(records, blocks)
    after = build(records | {created: value("v")}, blocks)
    assert invert(Cid(after), [put(created, value("v"))], blocks) == before


class Taken(dict[bytes, mst_read.Read]):
    """Nodes that note which of them are asked for."""

    def __init__(self, opened: mst_read.Opened) -> None:
        super().__init__(opened)
        self.ids: set[bytes] = set()

    def get(self, cid: bytes, default: Any = None) -> Any:
        self.ids.add(cid)
        return super().get(cid, default)


@pytest.mark.parametrize(
    ("paths", "ops"),
    [
        (["033", "870"], [put("a.b.c/368"), put("a.b.c/681")]),
        (["158", "232"], [put("a.b.c/777"), put("a.b.c/773")]),
        (["308", "938"], [put("a.b.c/899"), drop("a.b.c/938"), put("a.b.c/766")]),
    ],
    ids=["two creations", "two creations in falling order", "a deletion between two creations"],
)
def test_the_nodes_that_one_order_takes_are_enough(paths: list[str], ops: list[RepoOp]) -> None:
    """Some producers send those that are new, and those that they took themselves to undo the operations."""
    before, old = tree_of(*[f"a.b.c/{path}" for path in paths])
    created, deleted = ([op.path for op in ops if op.action == action] for action in ("create", "delete"))
    after, blocks = tree_of(*created, *[f"a.b.c/{path}" for path in paths if f"a.b.c/{path}" not in deleted])
    changes = operations.changes(ops)
    for own_order in permutations(changes):
        taken = Taken(mst_read.open_tree(after, blocks))
        assert mst._undo_in_tree(after, own_order, taken, None) == before
        sent = {cid: block for cid, block in blocks.items() if cid not in old or cid in taken.ids}
        assert invert(after, ops, sent) == before


# Two keys of one layer, of which the second one is too long, while its own part is not.
LONG_KEYS = (0, "a/" + "b" * 1018 + "0000", value(C), None), (1020, "c0000", value(C), None)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        pytest.param(b"", "mst-node-malformed", id="nothing"),
        pytest.param(b"\xa2ae", "mst-node-malformed", id="cut"),
        pytest.param(b"\xf6", "mst-node-malformed", id="null"),
        pytest.param(cbor({"l": None}), "mst-node-malformed", id="no entries field"),
        pytest.param(cbor({"l": None, "e": [], "x": 1}), "mst-node-malformed", id="unknown field"),
        pytest.param(node(None)[:-1] + b"\xf7", "mst-node-malformed", id="undefined"),
        pytest.param(node(None) + b"\0", "mst-node-malformed", id="trailing byte"),
        pytest.param(b"\xa2ae\x98\x00al\xf6", "mst-node-malformed", id="count not shortest"),
        pytest.param(b"\xa2ae\x9f\xffal\xf6", "mst-node-malformed", id="indefinite"),
        pytest.param(
            node(None, (0, C, value(C), None)).replace(b"ae\x81", b"ae\x82"), "mst-node-malformed", id="count"
        ),
        pytest.param(
            node(None, (0, C, value(C), None)).replace(b"ak\x49", b"ak\x58\x09"), "mst-node-malformed", id="long length"
        ),
        pytest.param(
            node(None, (0, C, value(C), None)).replace(b"ap\x00", b"ap\x18\x00"), "mst-node-malformed", id="long prefix"
        ),
        pytest.param(
            node(None, (0, C, value(C), None)).replace(b"ap\x00", b"ap\x20"), "mst-node-malformed", id="negative prefix"
        ),
        pytest.param(node(None, (0, C + " ", value(C), None)), "mst-node-malformed", id="key syntax"),
        pytest.param(node(None, (0, "é/a", value(C), None)), "mst-node-malformed", id="key not ASCII"),
        pytest.param(
            node(None, (0, A, value(A), None), (0, C, value(C), None)).replace(b"\xa4akIC", b"\x00\xa4akIC"),
            "mst-node-malformed",
            id="a byte between entries",
        ),
        pytest.param(
            node(None, (0, A, value(A), None), (9, "x", value(C), None)).replace(b"akAx", b"ak\x58\x01x"),
            "mst-node-malformed",
            id="long length behind the beginning of a key",
        ),
        pytest.param(node(None, (1, C, value(C), None)), "mst-node-malformed", id="prefix of nothing"),
        pytest.param(node(None, (0, A, value(A), None), (10, "x", value(C), None)), "mst-node-malformed", id="prefix"),
        pytest.param(
            cbor({"l": None, "e": [{"p": 0, "k": C.encode(), "v": None, "t": None}]}),
            "mst-node-malformed",
            id="no value",
        ),
        pytest.param(node(Cid.of_raw(b""), (0, C, value(C), None)), "mst-node-malformed", id="raw subtree"),
        pytest.param(node(None, (0, C, value(C), None), (0, A, value(A), None)), "mst-key-order", id="falling keys"),
        pytest.param(
            node(None, (0, C, value(C), None), (9, "", value(C), None)), "mst-node-malformed", id="same key twice"
        ),
        pytest.param(
            node(None, (0, A, value(A), None), (0, A[:3] + "9", value(C), None)), "mst-key-order", id="short p"
        ),
        pytest.param(node(None, (0, "", value(C), None)), "mst-node-malformed", id="empty key"),
        pytest.param(node(None, (0, "a/" + "b" * 1023, value(C), None)), "mst-node-malformed", id="key of 1025"),
        pytest.param(node(None, *LONG_KEYS), "mst-node-malformed", id="key of 1025 beside one of 1024"),
        pytest.param(node(value("x")), "mst-empty-node", id="bridge at the top"),
        pytest.param(node(value("x"), (0, E, value(E), None)), "mst-key-layer", id="below layer 0"),
    ],
)
def test_bad_roots_are_named(block: bytes, reason: str) -> None:
    assert refused_node(block) == reason


def under_high(*entries: tuple[int, str, bytes, bytes | None], left: bytes | None = None) -> tuple[bytes, bytes, bytes]:
    """A root with the key of layer 2, a bridge, and a node on layer 0 to its left."""
    leaf = node(left, *entries)
    bridge = node(cid_of(leaf))
    return node(cid_of(bridge), (0, HIGH, value(HIGH), None)), bridge, leaf


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        pytest.param(under_high((0, C, value("x"), None)), "mst-value-mismatch", id="sound so far"),
        pytest.param(under_high((0, E, value(E), None)), "mst-key-order", id="keys beyond the bound"),
        pytest.param(under_high((0, "B1/986427", value(E), None)), "mst-key-layer", id="a key of layer 1 on layer 0"),
        pytest.param(under_high(), "mst-empty-node", id="nothing under a bridge"),
        pytest.param(under_high((0, A, value(A), None), left=value("x")), "mst-node-missing", id="missing"),
        pytest.param(under_high((0, E, value(E), None), left=value("x")), "mst-key-order", id="bound, then layer"),
    ],
)
def test_bad_subtrees_are_named(blocks: tuple[bytes, ...], reason: str) -> None:
    if reason == "mst-node-missing":
        blocks = blocks[:2]
    assert refused_node(*blocks) == reason


@pytest.mark.parametrize("key", [E, F])
def test_each_key_of_a_node_has_its_layer(key: str) -> None:
    """The first key of the node is in its place, and the operation may be on another one."""
    block = node(None, (0, HIGH, value(HIGH), None), (0, E, value(E), None))
    assert refused_node(block, key=key) == "mst-key-layer"


@pytest.mark.parametrize("came_along", [True, False])
def test_a_subtree_below_layer_0(came_along: bool) -> None:
    leaf = node(None, (0, A, value(A), None))
    root, bridge, upper = under_high((0, C, value(C), None), left=cid_of(leaf))
    assert refused_node(root, bridge, upper, *[leaf] * came_along, key=A) == "mst-key-layer"
    root, bridge, upper = under_high((0, A, value(A), cid_of(leaf)))
    assert refused_node(root, bridge, upper, *[leaf] * came_along, key=A) == "mst-key-layer"


def test_one_link_in_two_places_hides_no_change() -> None:
    """A value that equals the link to a changed subtree is not taken back along with it."""
    high, new = "B1/986427", "B0/601692"
    low_before = node(None, (0, A, value(A), None))
    low_after = node(None, (0, A, value(A), None), (0, new, value(new), None))
    after = node(cid_of(low_after), (0, high, cid_of(low_after), None))
    blocks = {cid_of(block): block for block in (low_after, after)}
    expected = node(cid_of(low_before), (0, high, cid_of(low_after), None))
    assert invert(Cid.of_dag_cbor(after), [put(new)], blocks) == Cid.of_dag_cbor(expected)


def test_each_changed_node_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a link stands in two places, in each node of a way down, so that all are put together anew."""

    def key(group: int, after: str, depth: int) -> str:
        names = (f"a.b.c/{group}{number:06}" for number in range(10**6))
        return next(name for name in names if name > after and mst.key_depth(name.encode()) == depth)

    bottom = key(0, "", 0)
    below = node(None, (0, bottom, value(bottom), None))
    ops = [change(bottom, value(bottom), value("old"))]
    blocks = {cid_of(below): below}
    for depth in range(1, 6):
        middle = key(depth, "", depth)
        right = key(depth, middle, depth - 1)
        ops.append(change(right, value(right), value("old")))
        beside = node(None, (0, right, value(right), None))
        below = node(cid_of(below), (0, middle, cid_of(beside), cid_of(beside)))
        blocks |= {cid_of(block): block for block in (beside, below)}
    encoded: list[bytes] = []

    def id_of(data: bytes) -> bytes:
        encoded.append(data)
        return cid_of(data)

    monkeypatch.setattr(mst_node, "id_of", id_of)
    invert(Cid(cid_of(below)), ops, blocks)
    assert len(encoded) == len(blocks) == 11


def wide_node(stem: int, keys: list[bytes]) -> bytes:
    """One node with all these keys of layer 0, which have their first `stem` bytes in common."""
    entries, previous = [], b""
    for key in sorted(keys):
        shared = stem + shared_length(previous[stem:], key[stem:]) if previous else 0
        entries.append({"p": shared, "k": key[shared:], "v": link(value("v")), "t": None})
        previous = key
    return cbor({"l": None, "e": entries})


@pytest.mark.parametrize("stem", ["com.example.thing/", "a/" + "b" * 1000], ids=["many keys", "many long keys"])
def test_the_widest_nodes_are_cheap(stem: str) -> None:
    """A node of nearly a megabyte and as many operations as an event has, all within it."""
    numbers = (f"{stem}{number:06}".encode() for number in range(100_000))
    keys = list(islice((key for key in numbers if mst.key_depth(key) == 0), 16_000))
    block = wide_node(len(stem), keys)
    assert 850_000 < len(block) < 1_000_000
    root = Cid.of_dag_cbor(block)
    ops = [put(key.decode(), value("v")) for key in keys[::82]]
    assert len(ops) > 190
    assert_cheap(lambda data: invert(root, ops, {root: data}), block)


@pytest.mark.parametrize(
    "block",
    [
        b"\xa2ae\x81\xa4ak\x59\xff\xff" + b"a" * 990_000,
        b"\xa2ae\x81\xa4ak\x59\xff\xff" + b"ap" * 495_000,
        b"\xa2ae\x81" + b"\xa4ak\x59aa" * 165_000,
        b"\xa2ae\x81" + b"\xa4ak\x59aaaaap\x00at" * 76_000,
        b"\xa2ae\x81" + (b"\xa4akAaap\x00at\xf6av" + LINK_BYTES) * 18_000,
        b"\xa2ae\x81" + b"\xa4" * 990_000,
        bytes(990_000),
    ],
    ids=range(7),
)
def test_a_megabyte_that_is_no_node_is_cheap(block: bytes) -> None:
    root = Cid.of_dag_cbor(block)
    assert_cheap(lambda data: invert(root, [put(C)], {root: data}), block)
    assert refused_node(block).startswith("mst-")


def test_the_deepest_bridges_end() -> None:
    """A chain of bridges as long as layers go: no recursion error, and it ends below layer 0."""
    blocks: dict[bytes, bytes] = {}
    below = value("end")
    for _ in range(5000):
        block = node(below)
        below = Cid.of_dag_cbor(block)
        blocks[below] = block
    block = node(below, (0, HIGH, value(HIGH), None))
    root = Cid.of_dag_cbor(block)
    blocks[root] = block
    assert refused(root, [put(C)], blocks) == "mst-empty-node"

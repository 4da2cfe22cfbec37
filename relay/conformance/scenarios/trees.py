"""What a commit's blocks have to prove: its operations, its records, its tree."""

from __future__ import annotations

from typing import Any

from relay.atproto import drisl
from relay.atproto.cid import Cid
from relay.conformance.repository import POSTS, Write, car_of
from relay.conformance.scenario import must, must_not
from relay.conformance.stage import Account, Stage
from relay.conformance.tree import add_node, layer_of
from relay.conformance.verdict import Broken


@must("inversion")
def operations_that_undo_each_of_several_changes_pass(stage: Stage) -> None:
    account = stage.account()
    writes = [account.repo.create() for _ in range(30)]
    stage.sends(account, account.repo.commit(*writes))
    changes = [Write("update", write.path, {"$type": POSTS, "text": "new"}) for write in writes[:10]]
    deletes = [Write("delete", write.path, None) for write in writes[10:20]]
    creates = [account.repo.create() for _ in range(10)]
    stage.sends(account, account.repo.commit(*changes, *deletes, *creates))


@must_not("inversion")
def a_commit_that_hides_an_operation_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create(), account.repo.create())
    del event.ops[0]
    stage.refuses(account, event, "a commit that hides one of its operations")


@must_not("inversion")
def a_commit_that_makes_up_a_deletion_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    made_up = Cid.of_dag_cbor(b"never there")
    event.ops.append({"action": "delete", "path": f"{POSTS}/never-there", "cid": None, "prev": made_up})
    stage.refuses(account, event, "a commit with a deletion that did not happen")


@must_not("inversion")
def an_update_with_a_false_prev_is_passed(stage: Stage) -> None:
    account = stage.account()
    first = account.repo.create()
    stage.sends(account, account.repo.commit(first))
    event = account.repo.commit(Write("update", first.path, {"$type": POSTS, "text": "new"}))
    event.ops[0]["prev"] = Cid.of_dag_cbor(b"something else")
    stage.refuses(account, event, "an update with a false prev")


@must("records-come-along")
def a_record_that_is_there_twice_under_two_paths_passes(stage: Stage) -> None:
    account = stage.account()
    same = {"$type": POSTS, "text": "the same"}
    stage.sends(account, account.repo.commit(account.repo.create(same), account.repo.create(same)))


@must_not("records-come-along")
def a_commit_without_its_record_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    del event.blocks[event.ops[0]["cid"]]
    stage.refuses(account, event, "a commit without its record")


@must_not("records-come-along")
def an_operation_with_another_cid_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    other = drisl.encode({"$type": POSTS, "text": "another record"})
    event.ops[0]["cid"] = Cid.of_dag_cbor(other)
    event.blocks[Cid.of_dag_cbor(other)] = other
    stage.refuses(account, event, "an operation with a CID that the tree does not have")


@must("tree")
def a_tree_of_several_layers_passes(stage: Stage) -> None:
    account = stage.account()
    writes = [account.repo.create() for _ in range(100)]
    if not any(layer_of(write.path) >= 2 for write in writes):
        raise AssertionError("no path of a higher layer among a hundred")
    stage.sends(account, account.repo.commit(*writes))


@must_not("tree")
def a_tree_with_a_key_on_a_wrong_layer_is_passed(stage: Stage) -> None:
    account = stage.account()
    write = next(w for w in iter(account.repo.create, None) if layer_of(w.path) == 1)
    _refuses_tree(stage, account, write, "a tree with keys of two layers in one node", ordered=True)


@must_not("tree")
def a_tree_with_keys_out_of_order_is_passed(stage: Stage) -> None:
    account = stage.account()
    write = next(w for w in iter(account.repo.create, None) if layer_of(w.path) == 0)
    _refuses_tree(stage, account, write, "a tree with keys out of order", ordered=False)


@must_not("tree")
def a_tree_with_an_empty_node_at_its_end_is_passed(stage: Stage) -> None:
    account = stage.account()
    write = account.repo.create()
    records = {**account.repo.records, write.path: Cid.of_dag_cbor(drisl.encode(write.record))}
    nodes: dict[Cid, bytes] = {}
    empty = add_node([], None, nodes)
    top = max(map(layer_of, records))
    keys = sorted(path for path in records if layer_of(path) == top)
    root = add_node([(path, records[path], empty) for path in keys], None, nodes)
    event = account.repo.commit(write, tree=(root, nodes))
    stage.refuses(account, event, "a tree with an empty node as a leaf")


def _refuses_tree(stage: Stage, account: Account, write: Write, what: str, *, ordered: bool) -> None:
    """One node holds the new record beside the old ones, which is wrong."""
    records = {**account.repo.records, write.path: Cid.of_dag_cbor(drisl.encode(write.record))}
    nodes: dict[Cid, bytes] = {}
    paths = sorted(records, reverse=not ordered)
    root = add_node([(path, records[path], None) for path in paths], None, nodes)
    stage.refuses(account, account.repo.commit(write, tree=(root, nodes)), what)


@must("records-opaque")
def a_record_that_breaks_its_lexicon_passes(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create({"$type": POSTS, "text": 5, "createdAt": False})))


@must("records-opaque")
def a_record_with_a_float_and_no_type_passes(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(account.repo.create({"temperature": 21.5})))


@must_not("records-opaque")
def a_record_that_is_a_list_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create(drisl.encode([1, 2, 3])))
    stage.refuses(account, event, "a record that is not a map")


@must("car")
def a_car_in_reverse_order_passes(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.blocks = dict(reversed(event.blocks.items()))
    stage.sends(account, event)


@must("car")
def a_car_with_an_unrelated_block_passes(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.blocks[Cid.of_raw(b"unrelated")] = b"unrelated"
    stage.sends(account, event)


@must("car")
def a_car_with_a_block_twice_passes(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    twice = car_of([event.root], [*event.blocks.items(), (event.root, event.blocks[event.root])])
    event.fields["blocks"] = twice
    account.send(event)
    stage.settled(account)
    if not any(commit.rev == event.rev and commit.blocks == twice for commit in stage.commits(account.did)):
        raise Broken("a commit whose CAR has a block twice does not pass")


@must_not("car")
def a_block_that_is_not_what_its_cid_says_is_passed(stage: Stage) -> None:
    account = stage.account()
    event = account.repo.commit(account.repo.create())
    event.blocks[event.ops[0]["cid"]] = drisl.encode({"$type": POSTS, "text": "exchanged"})
    stage.refuses(account, event, "a record that is not what its CID says")


@must("paths")
def a_path_with_every_character_that_is_allowed_passes(stage: Stage) -> None:
    account = stage.account()
    stage.sends(account, account.repo.commit(_at("com.example.some-thing.aB/AZaz09._:~-")))


@must_not("paths")
def a_path_whose_key_is_two_dots_is_passed(stage: Stage) -> None:
    _refuses_path(stage, f"{POSTS}/..")


@must_not("paths")
def a_path_of_three_parts_is_passed(stage: Stage) -> None:
    _refuses_path(stage, f"{POSTS}/a/b")


@must_not("paths")
def a_path_whose_collection_is_not_an_nsid_is_passed(stage: Stage) -> None:
    _refuses_path(stage, "posts/a")


def _refuses_path(stage: Stage, path: str) -> None:
    account = stage.account()
    stage.refuses(account, account.repo.commit(_at(path)), f"a record at {path}")


def _at(path: str) -> Write:
    return Write("create", path, {"text": "somewhere"})


@must("cids")
def a_record_that_links_to_a_blob_passes(stage: Stage) -> None:
    account = stage.account()
    blob: dict[str, Any] = {"$type": "blob", "ref": Cid.of_raw(b"blob"), "mimeType": "image/png", "size": 4}
    stage.sends(account, account.repo.commit(account.repo.create({"$type": POSTS, "image": blob})))


@must_not("cids", own_host=True)
def an_operation_whose_cid_is_of_another_hash_is_passed(stage: Stage) -> None:
    account = stage.account(stage.own_host())
    event = account.repo.commit(account.repo.create())
    sha512 = drisl.UnknownCid(b"\x01\x71\x13\x40" + bytes(64))
    event.ops[0]["cid"] = sha512
    stage.refuses(account, event, "an operation whose CID is sha-512")

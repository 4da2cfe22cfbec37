"""What operations say of a tree: without the tree before, and several of them on one path."""

from itertools import permutations
from typing import Any

import pytest

from tests.support.blocks import cbor, cid_of, link
from tests.support.commits import (
    OTHER,
    PATHS,
    Spoil,
    batch,
    repository,
    spoil_op,
    unproven,
    verified,
    without_record,
    without_tree,
)
from tests.support.repo import CommitEvent, RepoBuilder, create, delete, update
from tests.support.repo_tree import build

# Without the tree before


def as_of_old(event: CommitEvent) -> CommitEvent:
    """As a PDS sent it before operations could be inverted."""
    del event.fields["prevData"]
    for op in event.ops:
        op.pop("prev", None)
    return event


def test_without_prev_data_the_tree_must_hold_the_results() -> None:
    repo = repository()
    assert verified(as_of_old(batch(repo)), repo.key)[:4] == (repo.head, repo.data, False, None)


OF_OLD = [
    (spoil_op(0, cid=OTHER), "record-missing"),
    (without_record, "record-missing"),
    (spoil_op(0, path=PATHS[35]), "mst-key-missing"),
    (spoil_op(2, path=PATHS[35]), "mst-key-missing"),
    (spoil_op(4, path=PATHS[1]), "mst-key-present"),
    (without_tree, "mst-node-missing"),
]


@pytest.mark.parametrize(("spoil", "reason"), OF_OLD, ids=range(len(OF_OLD)))
def test_results_that_the_tree_does_not_hold(spoil: Spoil, reason: str) -> None:
    repo = repository()
    event = batch(repo)
    spoil(event)
    assert unproven(as_of_old(event), repo) == reason


def test_another_value_than_the_operation_says() -> None:
    repo = repository()
    event = as_of_old(batch(repo))
    event.ops[0]["cid"], event.ops[1]["cid"] = event.ops[1]["cid"], event.ops[0]["cid"]
    assert unproven(event, repo) == "mst-value-mismatch"


def test_what_the_blocks_do_not_tell_of_a_deletion_is_not_asked_for() -> None:
    repo = repository()
    event = as_of_old(repo.commit(delete(PATHS[8])))
    without_tree(event)
    assert verified(event, repo.key)[:4] == (repo.head, repo.data, False, None)


# Several operations on one path


def one_path(*steps: tuple[str, int | None, int | None], changed: bool = True) -> tuple[RepoBuilder, CommitEvent]:
    """A commit that takes the record of one path from state 1 to 2, or leaves it; and operations that say so or not."""
    repo = repository()
    states = {number: {"state": number} for number in range(1, 5)}
    first, last = steps[0][1], steps[-1][2]
    if first:
        repo.commit(create("a.b.c/x", states[first]))
    write = update("a.b.c/x", states[last]) if first and last else create("a.b.c/x", states[last]) if last else None
    write = write or (delete("a.b.c/x") if first else None)
    event = repo.commit(*([write] if write is not None and first != last else []))
    if not event.ops:
        blocks: dict[bytes, bytes] = {}
        build(repo.records, blocks)
        event.blocks |= blocks

    def cid(number: int | None) -> Any:
        return None if number is None else link(cid_of(cbor(states[number])))

    event.ops = [
        {"action": action, "path": "a.b.c/x", "cid": cid(after), **({"prev": cid(before)} if before else {})}
        for action, before, after in steps
    ]
    return repo, event


IN_ONE_COMMIT = [
    [("create", None, 1), ("delete", 1, None)],
    [("delete", 1, None), ("create", None, 2)],
    [("delete", 1, None), ("create", None, 1)],
    [("update", 1, 3), ("update", 3, 2)],
    [("update", 1, 3), ("update", 3, 1)],
    [("create", None, 3), ("update", 3, 2)],
    [("update", 1, 3), ("delete", 3, None)],
    [("update", 1, 3), ("delete", 3, None), ("create", None, 4), ("update", 4, 2)],
]


@pytest.mark.parametrize("steps", IN_ONE_COMMIT, ids=str)
def test_operations_on_one_path_that_follow_on_one_another(steps: list[tuple[str, int | None, int | None]]) -> None:
    repo, event = one_path(*steps)
    assert verified(event, repo.key).inverted
    event.fields["prevData"] = OTHER
    assert unproven(event, repo) == "prev-data-mismatch"


def test_operations_on_one_path_in_another_order() -> None:
    repo, event = one_path(("update", 1, 3), ("delete", 3, None), ("create", None, 4), ("update", 4, 2))
    for ops in permutations(event.ops):
        event.ops = list(ops)
        assert verified(event, repo.key).inverted


def test_what_operations_leave_as_it_was_need_not_come_along() -> None:
    """Whatever the others do: one on that path names no record, and one on another path writes what was there."""
    repo, event = one_path(("update", 1, 3), ("delete", 3, None), ("create", None, 1))
    del event.ops[1]["prev"]
    written = cbor({"n": 3})
    event.ops.append(
        {"action": "update", "path": PATHS[3], "cid": link(cid_of(written)), "prev": link(cid_of(written))}
    )
    assert unproven(event, repo) == "record-missing"
    event.blocks[cid_of(written)] = written
    assert verified(event, repo.key).inverted


AS_BEFORE_ALL = [
    [("delete", 1, None), ("create", None, 2)],
    [("delete", 1, None), ("create", None, 1)],
    [("update", 1, 3), ("update", 3, 2)],
    [("update", 1, 3), ("update", 3, 1)],
    [("update", 1, 3), ("delete", 3, None)],
    [("update", 1, 3), ("delete", 3, None), ("create", None, 4), ("update", 4, 2)],
    [("delete", 1, None), ("create", None, 3), ("delete", 3, None)],
    [("update", 1, 2), ("update", 2, 2)],
]


def before_all(*steps: tuple[str, int | None, int | None]) -> tuple[RepoBuilder, CommitEvent]:
    """As the reference PDS writes them: `prev` is what was there before the commit, also of a creation."""
    repo, event = one_path(*steps)
    before = cbor({"state": 1})
    for op in event.ops:
        op["prev"] = link(cid_of(before))
    if steps[-1][2] == 1:
        event.blocks[cid_of(before)] = before
    return repo, event


@pytest.mark.parametrize("steps", AS_BEFORE_ALL, ids=str)
def test_operations_on_one_path_that_name_what_was_there_before_them_all(
    steps: list[tuple[str, int | None, int | None]],
) -> None:
    repo, event = before_all(*steps)
    assert verified(event, repo.key).inverted
    event.ops.append({"action": "create", "path": "a.b.c/y", "cid": event.ops[0]["prev"]})
    assert unproven(event, repo) in ("mst-node-missing", "mst-key-missing", "record-missing")
    repo, event = before_all(*steps)
    for op in event.ops:
        op["prev"] = OTHER
    assert unproven(event, repo) in ("prev-data-mismatch", "mst-value-mismatch", "mst-key-missing")
    for odd in range(len(event.ops)):
        repo, event = before_all(*steps)
        event.ops[odd]["prev"] = OTHER
        assert unproven(event, repo)
    repo, event = before_all(*steps)
    event.fields["prevData"] = OTHER
    assert unproven(event, repo) == "prev-data-mismatch"


@pytest.mark.parametrize(
    "steps",
    [
        [("create", None, 2), ("delete", 1, None)],
        [("create", None, 2), ("update", 1, 2)],
        [("delete", 1, None), ("update", 3, 2)],
        [("delete", 1, None), ("delete", 1, None), ("create", None, 2)],
        [("delete", 1, None), ("create", None, 2), ("create", None, 2)],
    ],
    ids=str,
)
def test_operations_that_cannot_be_done_in_turn(steps: list[tuple[str, int | None, int | None]]) -> None:
    repo, event = before_all(("delete", 1, None), ("create", None, 2))
    states = {number: link(cid_of(cbor({"state": number}))) for number in range(1, 4)}
    event.ops = [
        {"action": action, "path": "a.b.c/x", "cid": states.get(after or 0), "prev": states[1]}
        for action, _, after in steps
    ]
    assert unproven(event, repo) in ("op-fields", "mst-duplicate-path")


def test_every_operation_on_a_path_follows_from_another() -> None:
    repo, event = one_path(("update", 1, 2))
    other = cbor({"state": 3})
    event.blocks[cid_of(other)] = other
    event.ops.append(event.ops[0] | {"cid": link(cid_of(other)), "prev": link(cid_of(other))})
    assert unproven(event, repo) == "mst-duplicate-path"


def test_the_path_must_be_as_the_operations_leave_it() -> None:
    """A record that was there all the time was not created and deleted."""
    repo, event = one_path(("create", None, 1), ("delete", 1, None))
    for op in event.ops:
        op["path"] = PATHS[3]
    assert unproven(event, repo) == "mst-key-present"
    repo, event = one_path(("create", None, 1), ("delete", 1, None))
    for cid in event.blocks.keys() - {event.root}:
        del event.blocks[cid]
    assert unproven(event, repo) == "mst-node-missing"

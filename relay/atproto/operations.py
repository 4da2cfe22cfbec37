"""The operations of a commit: whether each is well-formed, and what all of them together did to each path.

Called by `commit`. Two operations on one path are against the rules, yet the reference PDS sends them, and they prove
as much as any others when one follows from the other. Must not know of trees or blocks.
https://atproto.com/specs/sync and `com.atproto.sync.subscribeRepos`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from relay.atproto.cid import Cid
from relay.atproto.errors import CommitError
from relay.atproto.events import RepoOp
from relay.atproto.syntax import is_record_path

REASONS = frozenset({"mst-duplicate-path", "mst-prev-missing", "op-fields", "op-path"})


class Change(NamedTuple):
    """What a commit did to one path. None stands for no record: before a create, after a delete."""

    path: str
    before: Cid | None
    after: Cid | None


def check(ops: Sequence[RepoOp]) -> None:
    """Raise CommitError `op-path` or `op-fields` for what is not an operation; `prev` may be left out."""
    for op in ops:
        if not is_record_path(op.path):
            raise CommitError("op-path", repr(op.path[:80]))
        match op.action:
            case "create":
                fits = op.cid is not None and op.prev is None
            case "update":
                # Also to the record that was there, which is no change to the tree.
                fits = op.cid is not None
            case "delete":
                fits = op.cid is None
            case _:
                fits = False
        if not fits:
            raise CommitError("op-fields", f"{op.action[:20]} {op.path}")


def changes(ops: Sequence[RepoOp]) -> list[Change]:
    """What sound operations come to, one change for each path, in any order.

    Several operations on a path may be listed in any order in which they can be undone. CommitError `mst-prev-missing`
    when that takes a `prev` which is not given, `mst-duplicate-path` when there is no such order.
    """
    if len(ops) == 1:
        op = ops[0]
        return [Change(op.path, *_step(op, None))]
    steps: dict[str, list[_Step]] = {}
    for op in ops:
        taken = steps.setdefault(op.path, [])
        taken.append(_step(op, taken[-1][1] if taken else None))
    return [Change(path, *(taken[0] if len(taken) == 1 else _sum(path, taken))) for path, taken in steps.items()]


def results(ops: Sequence[RepoOp]) -> dict[str, Cid | None]:
    """Path -> its record after sound operations, in the order in which they are listed."""
    return {op.path: op.cid for op in ops}


_Step: TypeAlias = tuple[Cid | None, Cid | None]


def _step(op: RepoOp, last: Cid | None) -> _Step:
    """The record before and after one operation; `last` is what the one before it on the path left there."""
    if op.action == "create":
        return None, op.cid
    before = op.prev or last
    if before is None:
        raise CommitError("mst-prev-missing", op.path)
    return before, op.cid


def _sum(path: str, steps: list[_Step]) -> _Step:
    """The first state and the last one of the way that takes every step once."""
    left, reached = Counter(before for before, _ in steps), Counter(after for _, after in steps)
    first, last = list((left - reached).elements()), list((reached - left).elements())
    # A way that ends where it began begins where the list does.
    way = (first[0], last[0]) if len(first) == 1 else (steps[0][0], steps[0][0])
    if len(first) > 1 or not _connected(way[0], steps):
        raise CommitError("mst-duplicate-path", path)
    return way


def _connected(start: Cid | None, steps: list[_Step]) -> bool:
    """Whether every step can be come to from `start`."""
    seen = {start}
    left = steps
    while left:
        further = [step for step in left if step[0] not in seen]
        if len(further) == len(left):
            return False
        seen.update(after for before, after in left if before in seen)
        left = further
    return True

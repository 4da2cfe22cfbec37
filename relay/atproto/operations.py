"""The operations of a commit: whether each is well-formed, and what all of them together did to each path.

Called by `commit`. Two operations on one path are against the rules, yet the reference PDS sends them, and they prove
as much as any others when one follows from the other. As `prev` of each it names what was there before the commit.
Must not know of trees or blocks.
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
    created_anew = False
    for op in ops:
        if not is_record_path(op.path):
            raise CommitError("op-path", repr(op.path[:80]))
        match op.action:
            case "create":
                fits = op.cid is not None
                created_anew = created_anew or op.prev is not None
            case "update":
                # Also to the record that was there, which is no change to the tree.
                fits = op.cid is not None
            case "delete":
                fits = op.cid is None
            case _:
                fits = False
        if not fits:
            raise CommitError("op-fields", f"{op.action[:20]} {op.path}")
    if created_anew:
        # What is created where there was a record must have been deleted before.
        for path, taken in _by_path(ops).items():
            if any(op.action == "create" and op.prev is not None for op in taken) and _in_turn(taken) is None:
                raise CommitError("op-fields", f"create {path}")


def changes(ops: Sequence[RepoOp]) -> list[Change]:
    """What sound operations come to, one change for each path, in any order.

    Several operations on a path may be listed in any order in which they can be undone; or all name as `prev` what was
    there before them, in the order in which they were done. CommitError `mst-prev-missing` when that takes a `prev`
    which is not given, `mst-duplicate-path` when there is no such order.
    """
    if len(ops) == 1:
        op = ops[0]
        return [Change(op.path, *_step(op, None))]
    return [
        Change(path, *(_step(taken[0], None) if len(taken) == 1 else _way(path, taken)))
        for path, taken in _by_path(ops).items()
    ]


def results(ops: Sequence[RepoOp]) -> dict[str, Cid | None]:
    """Path -> its record after sound operations, in the order in which they are listed."""
    return {op.path: op.cid for op in ops}


def _by_path(ops: Sequence[RepoOp]) -> dict[str, list[RepoOp]]:
    by_path: dict[str, list[RepoOp]] = {}
    for op in ops:
        by_path.setdefault(op.path, []).append(op)
    return by_path


_Step: TypeAlias = tuple[Cid | None, Cid | None]


def _step(op: RepoOp, last: Cid | None) -> _Step:
    """The record before and after one operation; `last` is what the one before it on the path left there."""
    if op.action == "create":
        return None, op.cid
    before = op.prev or last
    if before is None:
        raise CommitError("mst-prev-missing", op.path)
    return before, op.cid


def _way(path: str, ops: list[RepoOp]) -> _Step:
    """The record before and after several operations."""
    whole = _in_turn(ops)
    if whole is not None:
        return whole
    steps: list[_Step] = []
    for op in ops:
        steps.append(_step(op, steps[-1][1] if steps else None))
    return _sum(path, steps)


def _in_turn(ops: Sequence[RepoOp]) -> _Step | None:
    """The record before and after operations that all name the one before as `prev`, done as they are listed.

    None when they do not, or when they cannot be.
    """
    before = now = ops[0].prev
    for op in ops:
        if op.prev != before or (op.action == "create") != (now is None):
            return None
        now = op.cid
    return before, now


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
    """Whether every step can be reached from `start`."""
    seen = {start}
    left = steps
    while left:
        further = [step for step in left if step[0] not in seen]
        if len(further) == len(left):
            return False
        seen.update(after for before, after in left if before in seen)
        left = further
    return True

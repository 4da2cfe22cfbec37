"""The signed commit object of a repository, and the verification of a `#commit` or `#sync` event against a key.

Called by `ingest` once an event has passed the gate: pure functions over bytes, so they run in-line or in a worker
process. Must not know of stored state: whether a commit follows the last one is for the caller to compare.
Specification: https://atproto.com/specs/repository and https://atproto.com/specs/sync

A verification ends in one of three ways. `Verified`: the event is what it says, and may be passed on as it came.
`Unproven`: the account has signed a commit, but the event does not prove what led there or contradicts it; it may be
passed on as a `#sync` of that commit (`frames.sync_frame`). An error: the commit object itself is not sound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from relay.atproto import car, drisl, mst, operations
from relay.atproto.cid import DAG_CBOR, Cid
from relay.atproto.crypto import PublicKey
from relay.atproto.errors import (
    CarError,
    CommitError,
    FrameError,
    MstError,
    ProtocolError,
    SignatureInvalid,
    SyntaxInvalid,
)
from relay.atproto.frames import Commit, RepoOp, Sync
from relay.atproto.mst_read import Opened, open_tree
from relay.atproto.syntax import tid_micros

REASONS = frozenset(
    {
        "commit-did",
        "commit-malformed",
        "commit-rev",
        "commit-root",
        "commit-version",
        "prev-data-mismatch",
        "record-malformed",
        "record-missing",
        "rev-future",
        "rev-syntax",
        "signature-invalid",
    }
)

VERSION = 3

# How far a rev may be ahead of the clock (sync specification: "a few minutes"), microseconds.
MAX_REV_AHEAD = 5 * 60 * 1_000_000

# The first byte of a map, up to the longest form of its length.
_MAP_HEADS = range(0xA0, 0xBC)


class CommitObject(NamedTuple):
    """A commit as it stands in a repository. `unsigned` is its encoding without `sig`: what the signature is over."""

    did: str
    rev: str
    data: Cid
    prev: Cid | None
    sig: bytes
    unsigned: bytes


class Verified(NamedTuple):
    """What an event has proven. `inverted`: that its operations led here from its `prevData`."""

    commit: Cid
    data: Cid
    inverted: bool
    lenient: str | None
    """The reason for which the operations would have been refused, had the caller not asked for leniency."""
    opened: Opened
    """The nodes of the tree that came along; none when one of them breaks a rule, which only leniency puts up with."""


class Unproven(NamedTuple):
    """A commit that the account has signed, in an event that cannot be passed on as it came, for a stable reason.

    `rev` is the commit's own, which a `#sync` event may contradict; `blocks` is a CAR file of the commit object alone.
    """

    reason: str
    detail: str
    commit: Cid
    data: Cid
    rev: str
    blocks: bytes


def verify_commit(
    event: Commit, key: PublicKey, now_us: int, *, lenient: bool = False, pause: Callable[[], None] | None = None
) -> Verified | Unproven:
    """Verify everything about a `#commit` that the event and the account's key can tell.

    `now_us` is the time in microseconds since 1970. Without `prevData` there is nothing to invert against: then the
    tree only has to hold what the operations say they wrote, and the caller decides whether that is enough. `lenient`
    lets operations pass that the blocks do not prove, as the reference relay does. `pause` is called between pieces of
    the work, each of some milliseconds at most. Raises CommitError or CarError when the commit object is not sound or
    contradicts the event; SignatureInvalid when another key might do.
    """
    _check_rev(event.rev, now_us)
    content, fault = _content(event, pause)
    if event.commit != content.root:
        raise CommitError("commit-root", "the CAR has another root than the event says")
    commit = _signed_commit(content, event.did, key)
    if commit.rev != event.rev:
        raise CommitError("commit-rev", f"{commit.rev} in an event of {event.rev}")
    if fault is not None:
        return _unproven(fault, content, commit)
    opened: Opened = {}
    try:
        operations.check(event.ops)
        _check_records(event, content)
    except CommitError as error:
        return _unproven(error, content, commit)
    try:
        opened = open_tree(commit.data, content.blocks, pause)
        _prove(event, commit.data, content, opened, pause)
    except (CommitError, MstError) as error:
        if lenient:
            return Verified(content.root, commit.data, False, error.reason, opened)
        return _unproven(error, content, commit)
    return Verified(content.root, commit.data, event.prev_data is not None, None, opened)


def verify_sync(event: Sync, key: PublicKey, now_us: int) -> Verified | Unproven:
    """Verify the commit that a `#sync` states.

    It is Unproven when the event says another `rev`, or has more than it may: then the signed commit is what counts.
    Raises as `verify_commit`.
    """
    content, fault = _content(event)
    commit = _signed_commit(content, event.did, key)
    _check_rev(commit.rev, now_us)
    if fault is None and commit.rev != event.rev:
        fault = CommitError("commit-rev", f"{commit.rev} in an event of {event.rev[:40]}")
    if fault is not None:
        return _unproven(fault, content, commit)
    return Verified(content.root, commit.data, False, None, {})


def commit_alone(event: Commit, data: Cid, reason: str) -> Unproven:
    """What is left of a verified `#commit` that is not passed on as it came, for a reason of the caller's."""
    root, block = car.root_block(event.blocks)
    return Unproven(reason, "", root, data, event.rev, car.of_root(root, block))


def touched(ops: Sequence[RepoOp], root: Cid, opened: Opened) -> dict[str, bool | None]:
    """Collection -> whether the tree at `root` has a record of it after `ops`; None when the nodes do not tell.

    The keys of a collection stand next to each other in the tree, so the neighbours of a deleted key tell whether it
    was the last one, and they come along as part of the proof.
    """
    found: dict[str, bool | None] = {}
    doubtful = {op.path for op in ops if op.cid is None}
    for op in ops:
        if op.path not in doubtful:
            found[op.path.partition("/")[0]] = True
    for path in doubtful:
        collection = path.partition("/")[0]
        if collection not in found:
            found[collection] = mst.has_records(root, collection, opened)
    return found


def parse_commit(block: bytes) -> CommitObject:
    """Read a commit object, version 3. Raises CommitError `commit-malformed` or `commit-version`."""
    match = _read_commit(block)
    if match is None:
        raise CommitError("commit-malformed")
    before, did_head, did, rev, sig, after, data, prev, version = match.groups()
    if did_head != drisl.head(0x60, len(did)):
        raise CommitError("commit-malformed", "length of did")
    if version != b"\x03":
        raise CommitError("commit-version", version.hex())
    unsigned = b"\xa5" + before + after
    return CommitObject(did.decode(), rev.decode(), Cid(data), Cid(prev) if prev else None, sig, unsigned)


# A commit has one shape, and its canonical order puts `sig` third: without it, the rest is what was signed. What nearly
# all DIDs are comes first, as any longer text of a DID's letters is gone back over.
_LINK = rb"\xd8\x2a\x58\x25\x00(\x01\x71\x12\x20.{32})"
_read_commit = re.compile(
    rb"\xa6(cdid([\x60-\x77]|\x78.|\x79..)(did:plc:[a-z2-7]{24}|[a-zA-Z0-9._:%%-]+)crev\x6d([2-7a-z]{13}))csig\x58\x40(.{64})"
    rb"(ddata%bdprev(?:\xf6|%b)gversion([\x00-\x17]))" % (_LINK, _LINK),
    re.DOTALL,
).fullmatch


def _content(event: Commit | Sync, pause: Callable[[], None] | None = None) -> tuple[car.Car, ProtocolError | None]:
    """The blocks of the event. With a fault, of the event or of the CAR, they are the commit object alone."""
    if event.fault is not None:
        return _root_alone(event), FrameError(event.fault)
    try:
        return car.parse(event.blocks, pause), None
    except CarError as error:
        try:
            alone = _root_alone(event)
        except CarError:
            raise error from None
        # Without the traceback, which holds the blocks.
        return alone, CarError(error.reason, error.detail)


def _root_alone(event: Commit | Sync) -> car.Car:
    """The root with nothing else; where the header does not tell it, the commit that the event names, if it is one."""
    try:
        root, block = car.root_block(event.blocks)
    except CarError:
        named = None if isinstance(event, Sync) else car.block_of(event.commit, event.blocks)
        if isinstance(event, Sync) or named is None:
            raise
        root, block = event.commit, named
    return car.Car(root, {root: block})


def _signed_commit(content: car.Car, did: str, key: PublicKey) -> CommitObject:
    """The commit at the root of the CAR, once it is one of `did` that `key` has signed."""
    if content.root.codec != DAG_CBOR:
        raise CommitError("commit-root", "not an object")
    commit = parse_commit(content.blocks[content.root])
    if commit.did != did:
        raise CommitError("commit-did", f"{commit.did[:80]} in the repository of {did}")
    if not key.verify(commit.unsigned, commit.sig):
        raise SignatureInvalid("signature-invalid", f"{key.curve} key")
    return commit


def _unproven(fault: ProtocolError, content: car.Car, commit: CommitObject) -> Unproven:
    root = content.root
    return Unproven(fault.reason, fault.detail, root, commit.data, commit.rev, car.of_root(root, content.blocks[root]))


def _check_rev(rev: str, now_us: int) -> None:
    try:
        ahead = tid_micros(rev) - now_us
    except SyntaxInvalid as error:
        raise CommitError("rev-syntax", rev[:40]) from error
    if ahead > MAX_REV_AHEAD:
        raise CommitError("rev-future", rev)


def _check_records(event: Commit, content: car.Car) -> None:
    """Every record that came along is an object by its id, and begins as a map does.

    More is not for a relay to judge (repository draft, 3.3 and 4.5).
    """
    for op in event.ops:
        if op.cid is None:
            continue
        record = content.blocks.get(op.cid)
        if record is not None and (op.cid.codec != DAG_CBOR or not record or record[0] not in _MAP_HEADS):
            raise CommitError("record-malformed", op.path)


def _prove(event: Commit, root: Cid, content: car.Car, opened: Opened, pause: Callable[[], None] | None) -> None:
    """Every written record came along, and taking the operations back gives the tree before.

    Where the tree before is not known, the one after must at least hold what the operations left.
    """
    if event.prev_data is None:
        _check_results(event, root, content, opened)
        return
    changes = operations.changes(event.ops)
    for path, before, after in changes:
        # What several operations leave as it was need not come along; what one of them writes anew is written.
        if after is not None and after not in content.blocks and (after != before or _is_written(path, event.ops)):
            raise CommitError("record-missing", path)
    inverted = mst.invert(root, changes, opened, pause)
    if inverted != event.prev_data:
        raise CommitError("prev-data-mismatch", f"{inverted}, not {event.prev_data}")


def _is_written(path: str, ops: Sequence[RepoOp]) -> bool:
    return any(op.path == path and op.cid is not None and op.cid == op.prev for op in ops)


def _check_results(event: Commit, root: Cid, content: car.Car, opened: Opened) -> None:
    for path, record in operations.results(event.ops).items():
        if record is not None and record not in content.blocks:
            raise CommitError("record-missing", path)
        try:
            mst.check_record(root, path, record, opened)
        except MstError as error:
            # Nodes on the way to a record that is gone did not change, so they may be left out.
            if record is not None or error.reason != "mst-node-missing":
                raise

"""The signed commit object of a repository, and the verification of a `#commit` or `#sync` event against a key.

Called by `ingest` once an event has passed the gate: pure functions over bytes, so they run in-line or in a worker
process. Must not know of stored state: whether a commit follows on the last one is the caller's to compare.
Specification: https://atproto.com/specs/repository and https://atproto.com/specs/sync
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from relay.atproto import car, drisl, mst
from relay.atproto.cid import Cid
from relay.atproto.crypto import PublicKey
from relay.atproto.errors import CommitError, DrislError, MstError, SignatureInvalid, SyntaxInvalid
from relay.atproto.frames import Commit, RepoOp, Sync
from relay.atproto.syntax import is_record_path, tid_micros

REASONS = frozenset(
    {
        "commit-did",
        "commit-malformed",
        "commit-rev",
        "commit-root",
        "commit-version",
        "op-fields",
        "op-path",
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
    blocks: Mapping[bytes, bytes]
    """What came along, every hash verified."""


def verify_commit(event: Commit, key: PublicKey, now_us: int, *, lenient: bool = False) -> Verified:
    """Verify everything about a `#commit` that the event and the account's key can tell.

    `now_us` is the time in microseconds since 1970. Without `prevData` there is nothing to invert against: the caller
    decides whether that may be. `lenient` lets operations pass that the blocks do not prove, as the reference relay
    does. Raises CommitError, CarError, DrislError, MstError; SignatureInvalid when another key might do.
    """
    _check_rev(event.rev, now_us)
    for op in event.ops:
        _check_op(op)
    content = car.parse(event.blocks)
    if event.commit != content.roots[0]:
        raise CommitError("commit-root", "the CAR has another root than the event says")
    commit = _signed_commit(content, event, key)
    _check_records(event, content)
    passed_over = None
    try:
        _prove_ops(event, commit, content)
    except (CommitError, MstError) as error:
        if not lenient:
            raise
        passed_over = error.reason
    inverted = event.prev_data is not None and passed_over is None
    return Verified(event.commit, commit.data, inverted, passed_over, content.blocks)


def verify_sync(event: Sync, key: PublicKey, now_us: int) -> Verified:
    """Verify the commit that a `#sync` states. Raises as `verify_commit`, but for operations, which it has none of."""
    _check_rev(event.rev, now_us)
    content = car.parse(event.blocks)
    commit = _signed_commit(content, event, key)
    return Verified(content.roots[0], commit.data, False, None, content.blocks)


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


# A commit has one shape, and its canonical order puts `sig` third: without it, the rest is what was signed.
_LINK = rb"\xd8\x2a\x58\x25\x00(\x01\x71\x12\x20.{32})"
_read_commit = re.compile(
    rb"\xa6(cdid([\x60-\x77]|\x78.|\x79..)([a-zA-Z0-9._:%%-]+)crev\x6d([2-7a-z]{13}))csig\x58\x40(.{64})"
    rb"(ddata%bdprev(?:\xf6|%b)gversion([\x00-\x17]))" % (_LINK, _LINK),
    re.DOTALL,
).fullmatch


def _signed_commit(content: car.Car, event: Commit | Sync, key: PublicKey) -> CommitObject:
    """The commit at the root of the CAR, once it agrees with the event and `key` has signed it."""
    commit = parse_commit(content.blocks[content.roots[0]])
    if commit.did != event.did:
        raise CommitError("commit-did", f"{commit.did[:80]} in the repository of {event.did}")
    if commit.rev != event.rev:
        raise CommitError("commit-rev", f"{commit.rev[:80]} in an event of {event.rev}")
    if not key.verify(commit.unsigned, commit.sig):
        raise SignatureInvalid("signature-invalid", f"{key.curve} key")
    return commit


def _check_rev(rev: str, now_us: int) -> None:
    try:
        ahead = tid_micros(rev) - now_us
    except SyntaxInvalid as error:
        raise CommitError("rev-syntax", rev[:40]) from error
    if ahead > MAX_REV_AHEAD:
        raise CommitError("rev-future", rev)


def _check_op(op: RepoOp) -> None:
    """Path, and which of `cid` and `prev` an action has. That a `prev` is missing is left for inversion to find."""
    if not is_record_path(op.path):
        raise CommitError("op-path", repr(op.path[:80]))
    match op.action:
        case "create":
            fits = op.cid is not None and op.prev is None
        case "update":
            fits = op.cid is not None
        case "delete":
            fits = op.cid is None
        case _:
            fits = False
    if not fits:
        raise CommitError("op-fields", f"{op.action[:20]} {op.path}")


def _check_records(event: Commit, content: car.Car) -> None:
    """Every record that came along is one map in its canonical encoding. What the map says is for lexicons to judge."""
    # One block may be the record at every path of a commit.
    for cid, path in {op.cid: op.path for op in event.ops if op.cid is not None}.items():
        record = content.blocks.get(cid)
        if record is None:
            continue
        try:
            value = drisl.decode(record)
        except DrislError as error:
            raise CommitError("record-malformed", f"{path}: {error}") from error
        if not isinstance(value, dict):
            raise CommitError("record-malformed", f"{path}: no map")


def _prove_ops(event: Commit, commit: CommitObject, content: car.Car) -> None:
    """Every written record came along, and the operations taken back give the tree before."""
    for op in event.ops:
        if op.cid is not None and op.cid not in content.blocks:
            raise CommitError("record-missing", op.path)
    if event.prev_data is None:
        return
    before = mst.invert(commit.data, event.ops, content.blocks)
    if before != event.prev_data:
        raise CommitError("prev-data-mismatch", f"{before}, not {event.prev_data}")

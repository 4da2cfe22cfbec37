"""The payload of each kind of event: from decoded fields to those that go out, and to the event.

Called by `frames` with the map behind a frame's header. Must not know how it was encoded, or of CARs, keys and state.
`com.atproto.sync.subscribeRepos`
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from relay.atproto.cid import Cid
from relay.atproto.errors import FrameError
from relay.atproto.events import Account, Commit, Event, Identity, Kind, RepoOp, Sync
from relay.atproto.fields import (
    Fields,
    Shape,
    is_seq,
    read_blocks,
    read_flag,
    read_link,
    read_link_or_none,
    read_seq,
    read_text,
    read_text_or_none,
    read_time,
)
from relay.atproto.syntax import is_datetime, is_did, is_tid

REASONS = frozenset({"frame-blocks-size", "frame-field", "frame-ops-count", "frame-seq", "frame-time"})

# Limits of the sync specification, bytes and counts.
MAX_BLOCKS = 2_000_000
MAX_SYNC_BLOCKS = 10_000
MAX_OPS = 200

_SHAPES = {
    Kind.COMMIT: Shape(
        "ops rev seq repo time blobs since blocks commit rebase tooBig",
        "prevData",
        since=None,
        blobs=[],
        rebase=False,
        tooBig=False,
    ),
    Kind.SYNC: Shape("did rev seq time blocks"),
    Kind.IDENTITY: Shape("did seq time", "handle"),
    Kind.ACCOUNT: Shape("did seq time active", "status"),
}
_OP_SHAPE = Shape("action path cid", "prev", cid=None)


def trim(kind: Kind, payload: Fields) -> Fields:
    """`payload` as it may go out: known fields alone, and those that some hosts leave out or misuse put right.

    It is `payload` itself when there was nothing to change. Raises FrameError.
    """
    fields = _SHAPES[kind].trim(payload)
    if kind is not Kind.COMMIT:
        return fields
    since = fields.get("since")
    if type(since) is str and not is_tid(since):
        # Nobody needs it: `prevData` says what a commit follows on. But consumers check how it is written.
        fields = fields | {"since": None}
    if not (type(fields["rebase"]) is type(fields["tooBig"]) is bool and _is_links(fields["blobs"])):
        # Nobody looks at these any more, whatever they say (synchronization draft, 4.4.2).
        fields = fields | _put_right(fields)
    ops = _ops(fields)
    trimmed = [_OP_SHAPE.trim(op) for op in ops]
    if all(map(operator.is_, ops, trimmed)):
        return fields
    return fields | {"ops": trimmed}


def _is_links(value: object) -> bool:
    return type(value) is list and all(type(link) is Cid for link in value)


def _put_right(fields: Fields) -> Fields:
    """The deprecated fields, with what stands in for those that are not of the lexicon's types."""
    flags: Fields = {name: fields[name] is True for name in ("rebase", "tooBig")}
    return flags | {"blobs": fields["blobs"] if _is_links(fields["blobs"]) else []}


def _ops(fields: Fields) -> list[Fields]:
    ops = fields.get("ops")
    if type(ops) is not list or not all(type(op) is dict for op in ops):
        raise FrameError("frame-field", "ops")
    if len(ops) > MAX_OPS:
        raise FrameError("frame-ops-count", f"{len(ops)} ops")
    return ops


def _read_commit(fields: Fields, frame: bytes) -> Commit:
    return Commit(
        did=read_text(fields, "repo"),
        seq=read_seq(fields),
        time=read_time(fields),
        rev=read_text(fields, "rev"),
        since=read_text_or_none(fields, "since"),
        commit=read_link(fields, "commit"),
        prev_data=read_link_or_none(fields, "prevData"),
        blocks=read_blocks(fields, MAX_BLOCKS),
        ops=tuple(map(_read_op, fields["ops"])),
        too_big=read_flag(fields, "tooBig"),
        rebase=read_flag(fields, "rebase"),
        frame=frame,
    )


def _read_op(op: Fields) -> RepoOp:
    return RepoOp(
        read_text(op, "action"), read_text(op, "path"), read_link_or_none(op, "cid"), read_link_or_none(op, "prev")
    )


def _read_sync(fields: Fields, frame: bytes) -> Sync:
    return Sync(
        did=read_text(fields, "did"),
        seq=read_seq(fields),
        time=read_time(fields),
        rev=read_text(fields, "rev"),
        blocks=read_blocks(fields, MAX_SYNC_BLOCKS),
        frame=frame,
    )


def _read_identity(fields: Fields, frame: bytes) -> Identity:
    return Identity(
        did=read_text(fields, "did"),
        seq=read_seq(fields),
        time=_time_or_empty(fields),
        handle=read_text_or_none(fields, "handle"),
        frame=frame,
    )


def _read_account(fields: Fields, frame: bytes) -> Account:
    return Account(
        did=read_text(fields, "did"),
        seq=read_seq(fields),
        time=_time_or_empty(fields),
        active=read_flag(fields, "active"),
        status=read_text_or_none(fields, "status"),
        frame=frame,
    )


def read(kind: Kind, fields: Fields, frame: bytes) -> Event:
    """The event that trimmed `fields` say, and that goes out as `frame`. Raises FrameError."""
    return _READERS[kind](fields, frame)


def read_commit_alone(kind: Kind, fields: Fields, frame: bytes, fault: str) -> Event | None:
    """The event of a frame that must not go out for `fault`, if enough can be read to find its signed commit."""
    did, seq, blocks = fields.get("repo" if kind is Kind.COMMIT else "did"), fields.get("seq"), fields.get("blocks")
    rev, commit = fields.get("rev"), fields.get("commit")
    if not (type(did) is str and is_did(did) and is_seq(seq) and type(blocks) is bytes):
        return None
    time = _time_or_empty(fields)
    if kind is Kind.SYNC:
        return Sync(did, seq, time, rev if type(rev) is str else "", blocks, frame, fault)
    if kind is not Kind.COMMIT or type(rev) is not str or type(commit) is not Cid:
        return None
    return Commit(did, seq, time, rev, None, commit, None, blocks, (), False, False, frame, fault=fault)


def _time_or_empty(fields: Fields) -> str:
    time = fields.get("time")
    return time if type(time) is str and is_datetime(time) else ""


_READERS: dict[Kind, Callable[[Fields, bytes], Event]] = {
    Kind.COMMIT: _read_commit,
    Kind.SYNC: _read_sync,
    Kind.IDENTITY: _read_identity,
    Kind.ACCOUNT: _read_account,
}

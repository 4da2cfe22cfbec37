"""Event stream frames: a header and a payload, both DRISL, in one WebSocket message.

Subscribers decode what hosts send; the gate has the relay's `seq` put in; the firehose encodes errors and notices.
`Event.frame` is what goes out but for `seq`: canonical, known fields only. Must not know of CARs, keys or state.
https://atproto.com/specs/event-stream and `com.atproto.sync.subscribeRepos`
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import cbor2

from relay.atproto import commit_frame, drisl
from relay.atproto.cid import Cid
from relay.atproto.errors import DrislError, FrameError
from relay.atproto.events import Account, Commit, Event, Identity, Info, Kind, RepoOp, StreamError, Sync
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
from relay.atproto.syntax import is_did, is_tid

__all__ = [
    "MAX_BLOCKS",
    "MAX_FRAME",
    "MAX_OPS",
    "MAX_SYNC_BLOCKS",
    "REASONS",
    "Account",
    "Commit",
    "Event",
    "Identity",
    "Info",
    "Kind",
    "RepoOp",
    "StreamError",
    "Sync",
    "account_frame",
    "decode",
    "error_frame",
    "identity_frame",
    "info_frame",
    "split_at_seq",
    "sync_frame",
    "uint",
]

REASONS = frozenset(
    {
        "frame-blocks-size",
        "frame-encoding",
        "frame-field",
        "frame-header",
        "frame-not-canonical",
        "frame-ops-count",
        "frame-payload",
        "frame-seq",
        "frame-size",
        "frame-time",
    }
)

# Limits of the sync specification, bytes and counts.
MAX_FRAME = 5_000_000
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

_NAMES = {Kind.COMMIT: "#commit", Kind.SYNC: "#sync", Kind.IDENTITY: "#identity", Kind.ACCOUNT: "#account"}
_HEADERS = {kind: drisl.encode({"op": 1, "t": name}) for kind, name in _NAMES.items()}
_INFO_HEADER = drisl.encode({"op": 1, "t": "#info"})
_ERROR_HEADER = drisl.encode({"op": -1})
_SEQ_KEY = drisl.encode("seq")

# No header that means anything is near this long.
_MAX_HEADER = 256

KINDS = {name: kind for kind, name in _NAMES.items()}
_KINDS_BY_HEADER = {header: kind for kind, header in _HEADERS.items()}


def decode(frame: bytes) -> Event | Info | StreamError | None:
    """Read one frame. None when its `op` or `t` is unknown: such a frame is to be ignored.

    FrameError with `fatal` when the framing or encoding is broken; without it when only this event is bad.
    """
    if len(frame) > MAX_FRAME:
        raise FrameError("frame-size", f"{len(frame)} bytes", fatal=True)
    usual = commit_frame.read(frame)
    if usual is not None and len(usual.blocks) <= MAX_BLOCKS:
        return usual
    op, name, start = read_header(frame)
    kind = KINDS.get(name) if op == 1 else None
    if kind is not None:
        return _read_event(kind, frame, start)
    if op == -1:
        payload = load_payload(frame[start:])
        return StreamError(read_text(payload, "error"), read_text_or_none(payload, "message"))
    if (op, name) == (1, "#info"):
        payload = load_payload(frame[start:])
        return Info(read_text(payload, "name"), read_text_or_none(payload, "message"))
    return None


def split_at_seq(event: Event) -> tuple[bytes, bytes]:
    """The frame before and after the value of `seq`: any other number may be put between the two."""
    frame = event.frame
    if type(event) is Commit and event.seq_at:
        return frame[: event.seq_at], frame[event.seq_at + drisl.head_size(event.seq) :]
    needle = _SEQ_KEY + uint(event.seq)
    at = frame.find(needle)
    # The key and its value may stand in a path or a record as well. Then only the structure tells which is which.
    if frame.rfind(needle) != at:
        header = _HEADERS[event.kind]
        return _around_seq(header, load_payload(frame[len(header) :]))
    return frame[: at + len(_SEQ_KEY)], frame[at + len(needle) :]


def uint(value: int) -> bytes:
    """The shortest encoding of a number >= 0."""
    return cbor2.dumps(value)


def account_frame(did: str, time: str, active: bool, status: str | None) -> tuple[bytes, bytes]:
    """An #account event of the relay's own, as `split_at_seq` would give it."""
    fields = {"did": did, "time": time, "active": active}
    return _around_seq(_HEADERS[Kind.ACCOUNT], fields if status is None else fields | {"status": status})


def identity_frame(did: str, time: str, handle: str | None) -> tuple[bytes, bytes]:
    """An #identity event of the relay's own, as `split_at_seq` would give it."""
    fields: Fields = {"did": did, "time": time}
    return _around_seq(_HEADERS[Kind.IDENTITY], fields if handle is None else fields | {"handle": handle})


def sync_frame(did: str, rev: str, time: str, blocks: bytes) -> tuple[bytes, bytes]:
    """A #sync event of the relay's own, as `split_at_seq` would give it; `blocks` is a CAR file of the commit."""
    return _around_seq(_HEADERS[Kind.SYNC], {"did": did, "rev": rev, "time": time, "blocks": blocks})


def error_frame(error: str, message: str) -> bytes:
    """The last frame of a stream that is closed for cause."""
    return _ERROR_HEADER + drisl.encode({"error": error, "message": message})


def info_frame(name: str, message: str) -> bytes:
    """A notice to the consumer. It has no `seq`."""
    return _INFO_HEADER + drisl.encode({"name": name, "message": message})


def read_header(frame: bytes) -> tuple[int, str, int]:
    """`op`, `t` (empty for an error frame) and where the payload starts. Raises FrameError."""
    # Nearly every frame has one of four headers: {t, op: 1}, whose length follows from its fourth byte.
    if len(frame) > 3:
        kind = _KINDS_BY_HEADER.get(frame[: frame[3] - 0x58])
        if kind is not None:
            return 1, _NAMES[kind], len(_HEADERS[kind])
    try:
        header, size = drisl.decode_prefix(frame[:_MAX_HEADER])
    except DrislError as error:
        raise FrameError("frame-header", str(error), fatal=True) from error
    op = header.get("op") if isinstance(header, dict) else None
    name = header.get("t", "") if isinstance(header, dict) else None
    if type(op) is not int or not isinstance(name, str) or (op == 1 and not name):
        raise FrameError("frame-header", repr(header)[:80], fatal=True)
    return op, name, size


def load_payload(body: bytes) -> Fields:
    """The fields of a payload, unchecked. Raises FrameError."""
    try:
        payload = drisl.load(body)
    except DrislError as error:
        raise FrameError("frame-encoding", str(error), fatal=True) from error
    if not isinstance(payload, dict):
        raise FrameError("frame-payload", type(payload).__name__, fatal=True)
    return payload


def _read_event(kind: Kind, frame: bytes, start: int) -> Event:
    body = frame[start:]
    payload = load_payload(body)
    try:
        _check_canonical(payload, body)
        fields = _trim(kind, payload)
        if fields is not payload or start != len(_HEADERS[kind]):
            frame = _HEADERS[kind] + drisl.encode(fields)
        return _READERS[kind](fields, frame)
    except FrameError as error:
        did = payload.get("repo" if kind is Kind.COMMIT else "did")
        seq = payload.get("seq")
        error.did = did if isinstance(did, str) and is_did(did) else None
        error.seq = seq if is_seq(seq) else None
        raise


def _check_canonical(payload: Fields, body: bytes) -> None:
    try:
        drisl.check_canonical(payload, body)
    except DrislError as error:
        raise FrameError("frame-not-canonical", str(error)) from error


def _trim(kind: Kind, payload: Fields) -> Fields:
    fields = _SHAPES[kind].trim(payload)
    if kind is not Kind.COMMIT:
        return fields
    ops = _ops(fields)
    trimmed = [_OP_SHAPE.trim(op) for op in ops]
    if all(map(operator.is_, ops, trimmed)):
        return fields
    return fields | {"ops": trimmed}


def _ops(fields: Fields) -> list[Fields]:
    ops = fields.get("ops")
    if type(ops) is not list or not all(type(op) is dict for op in ops):
        raise FrameError("frame-field", "ops")
    if len(ops) > MAX_OPS:
        raise FrameError("frame-ops-count", f"{len(ops)} ops")
    return ops


def _read_commit(fields: Fields, frame: bytes) -> Commit:
    since = read_text_or_none(fields, "since")
    if since is not None and not is_tid(since):
        raise FrameError("frame-field", "since")
    blobs = fields["blobs"]
    if type(blobs) is not list or not all(type(blob) is Cid for blob in blobs):
        raise FrameError("frame-field", "blobs")
    return Commit(
        did=read_text(fields, "repo"),
        seq=read_seq(fields),
        time=read_time(fields),
        rev=read_text(fields, "rev"),
        since=since,
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
        time=read_time(fields),
        handle=read_text_or_none(fields, "handle"),
        frame=frame,
    )


def _read_account(fields: Fields, frame: bytes) -> Account:
    return Account(
        did=read_text(fields, "did"),
        seq=read_seq(fields),
        time=read_time(fields),
        active=read_flag(fields, "active"),
        status=read_text_or_none(fields, "status"),
        frame=frame,
    )


_READERS: dict[Kind, Callable[[Fields, bytes], Event]] = {
    Kind.COMMIT: _read_commit,
    Kind.SYNC: _read_sync,
    Kind.IDENTITY: _read_identity,
    Kind.ACCOUNT: _read_account,
}


def _around_seq(header: bytes, fields: Fields) -> tuple[bytes, bytes]:
    """The two halves of a frame with these fields, around the value of `seq`."""
    names = sorted({*fields, "seq"}, key=lambda name: (len(name), name))
    middle = names.index("seq")
    return (
        header + bytes([0xA0 + len(names)]) + _pairs(fields, names[:middle]) + _SEQ_KEY,
        _pairs(fields, names[middle + 1 :]),
    )


def _pairs(fields: Fields, names: list[str]) -> bytes:
    return b"".join(drisl.encode(name) + drisl.encode(fields[name]) for name in names)

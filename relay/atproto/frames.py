"""Event stream frames: a header and a payload, both DRISL, in one WebSocket message.

Subscribers decode what hosts send; the gate has the relay's `seq` put in; the firehose encodes errors and notices.
`Event.frame` is what goes out but for `seq`: canonical, known fields only. Must not know of CARs, keys or state.
https://atproto.com/specs/event-stream and `com.atproto.sync.subscribeRepos`
"""

from __future__ import annotations

import cbor2

from relay.atproto import commit_frame, drisl, payloads
from relay.atproto.errors import DrislError, FrameError
from relay.atproto.events import (
    Account,
    Commit,
    Event,
    Identity,
    Info,
    Kind,
    Peeked,
    RepoOp,
    StreamError,
    Sync,
)
from relay.atproto.fields import Fields, is_seq, read_flag, read_seq, read_text, read_text_or_none
from relay.atproto.payloads import MAX_BLOCKS, MAX_OPS, MAX_SYNC_BLOCKS
from relay.atproto.skim import skim
from relay.atproto.syntax import is_did

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
    "Peeked",
    "RepoOp",
    "StreamError",
    "Sync",
    "account_frame",
    "decode",
    "error_frame",
    "identity_frame",
    "info_frame",
    "op_count",
    "peek",
    "split_at_seq",
    "sync_frame",
    "uint",
]

REASONS = payloads.REASONS | {"frame-encoding", "frame-header", "frame-not-canonical", "frame-payload", "frame-size"}

# Bytes: the sync specification's limit; and what no event without blocks, and no notice, comes near.
MAX_FRAME = 5_000_000
MAX_NOTICE = 16_384
# Items of one payload that are looked at: 200 operations have 2,200, other events and notices a dozen. In search of
# single fields more are passed over, so that a commit with too many operations is not lost.
MAX_ITEMS = 4_000
MAX_ITEMS_IN_NOTICE = 1_000
MAX_SKIMMED = 20_000

_NAMES = {Kind.COMMIT: "#commit", Kind.SYNC: "#sync", Kind.IDENTITY: "#identity", Kind.ACCOUNT: "#account"}
_HEADERS = {kind: drisl.encode({"op": 1, "t": name}) for kind, name in _NAMES.items()}
_INFO_HEADER = drisl.encode({"op": 1, "t": "#info"})
_ERROR_HEADER = drisl.encode({"op": -1})
_SEQ_KEY = drisl.encode("seq")
_COMMIT_HEADER = _HEADERS[Kind.COMMIT]
_OPS_KEY = drisl.encode("ops")
_OPS_AT = len(_COMMIT_HEADER) + 1 + len(_OPS_KEY)

_SMALL = (Kind.IDENTITY, Kind.ACCOUNT)
_PEEKED = {
    Kind.COMMIT: ("repo", "seq"),
    Kind.SYNC: ("did", "seq"),
    Kind.IDENTITY: ("did", "seq"),
    Kind.ACCOUNT: ("did", "seq", "active", "status"),
}
_REMAINS = {
    Kind.COMMIT: ("repo", "seq", "time", "rev", "commit", "blocks"),
    Kind.SYNC: ("did", "seq", "time", "rev", "blocks"),
    Kind.IDENTITY: ("did", "seq"),
    Kind.ACCOUNT: ("did", "seq"),
}

# No header that means anything is near this long.
_MAX_HEADER = 256

KINDS = {name: kind for kind, name in _NAMES.items()}
_KINDS_BY_HEADER = {header: kind for kind, header in _HEADERS.items()}


def decode(frame: bytes) -> Event | Info | StreamError | None:
    """Read one frame. None when its `op` or `t` is unknown: such a frame is to be ignored.

    A #commit or #sync that cannot be passed on, but of which the signed commit can still be found, is an event with a
    `fault`. FrameError for all else that cannot be read, with `fatal` when the framing or encoding is broken.
    """
    if len(frame) > MAX_FRAME:
        raise FrameError("frame-size", f"{len(frame)} bytes", fatal=True)
    usual = commit_frame.read(frame)
    if usual is not None and len(usual.blocks) <= MAX_BLOCKS:
        return usual
    try:
        op, name, start = read_header(frame)
        kind = KINDS.get(name) if op == 1 else None
        return _read_notice(op, name, frame[start:]) if kind is None else _read_event(kind, frame, start)
    except FrameError as error:
        return _read_remains(frame, error)


def peek(frame: bytes) -> Peeked | Info | StreamError | None:
    """Whose event a frame holds, and its number there: cheap, whatever else is in the frame.

    None when `op` or `t` is unknown. FrameError when what is asked for cannot be read.
    """
    usual = commit_frame.peek(frame)
    if usual is not None:
        return Peeked(Kind.COMMIT, *usual, None)
    op, name, start = read_header(frame)
    kind = KINDS.get(name) if op == 1 else None
    if kind is None:
        return _read_notice(op, name, frame[start:])
    if len(frame) <= MAX_NOTICE:
        fields = load_payload(frame[start:], MAX_NOTICE)
    else:
        fields, _ = skim(frame, start, _PEEKED[kind], MAX_SKIMMED if kind is Kind.COMMIT else MAX_ITEMS_IN_NOTICE)
    did, seq = read_text(fields, _did_field(kind)), read_seq(fields)
    inactive = kind is Kind.ACCOUNT and not read_flag(fields, "active")
    return Peeked(kind, did, seq, read_text_or_none(fields, "status") if inactive else None)


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


def op_count(frame: bytes) -> int:
    """How many operations an event has, 1 for one without any, from the beginning of its frame as it goes out."""
    # The shortest field name comes first: "ops", behind the head of a map of eleven or twelve fields.
    if not frame.startswith(_COMMIT_HEADER) or frame[_OPS_AT - 4 : _OPS_AT] != _OPS_KEY:
        return 1
    head = frame[_OPS_AT]
    return max(head & 0x1F, 1) if head < 0x98 else frame[_OPS_AT + 1]


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
    # Some encoders write what is left out as null: `t`, in the header of an error.
    name = (header.get("t") or "") if isinstance(header, dict) else None
    if type(op) is not int or not isinstance(name, str) or (op == 1 and not name):
        raise FrameError("frame-header", repr(header)[:80], fatal=True)
    return op, name, size


def load_payload(body: bytes, max_items: int = MAX_ITEMS) -> Fields:
    """The fields of a payload, unchecked. Raises FrameError."""
    try:
        payload = drisl.load(body, max_items=max_items)
    except DrislError as error:
        raise FrameError("frame-encoding", str(error), fatal=True) from error
    if not isinstance(payload, dict):
        raise FrameError("frame-payload", type(payload).__name__, fatal=True)
    return payload


def _read_notice(op: int, name: str, body: bytes) -> Info | StreamError | None:
    if len(body) > MAX_NOTICE and (op == -1 or name == "#info"):
        raise FrameError("frame-size", f"{len(body)} bytes")
    if op == -1:
        payload = load_payload(body, MAX_ITEMS_IN_NOTICE)
        return StreamError(read_text(payload, "error"), read_text_or_none(payload, "message"))
    if (op, name) == (1, "#info"):
        payload = load_payload(body, MAX_ITEMS_IN_NOTICE)
        return Info(read_text(payload, "name"), read_text_or_none(payload, "message"))
    return None


def _read_event(kind: Kind, frame: bytes, start: int) -> Event:
    if kind in _SMALL and len(frame) > MAX_NOTICE:
        raise FrameError("frame-size", f"{len(frame)} bytes")
    body = frame[start:]
    payload = load_payload(body, MAX_ITEMS if kind is Kind.COMMIT else MAX_ITEMS_IN_NOTICE)
    _check_canonical(payload, body)
    fields = payloads.trim(kind, payload)
    if fields is not payload or start != len(_HEADERS[kind]):
        frame = _HEADERS[kind] + drisl.encode(fields)
    return payloads.read(kind, fields, frame)


def _read_remains(frame: bytes, error: FrameError) -> Event:
    """What is left of a frame that was refused with `error`; or `error`, which then tells whose event it was."""
    header, start = skim(frame[:_MAX_HEADER], 0, ("op", "t"), _MAX_HEADER, to_end=True)
    op, name = header.get("op"), header.get("t")
    kind = KINDS.get(name) if type(op) is int and op == 1 and type(name) is str and start else None
    if kind is not None:
        fields, _ = skim(frame, start, _REMAINS[kind], MAX_SKIMMED if kind is Kind.COMMIT else MAX_ITEMS_IN_NOTICE)
        event = payloads.read_commit_alone(kind, fields, frame, error.reason)
        if event is not None:
            return event
        did, seq = fields.get(_did_field(kind)), fields.get("seq")
        error.did = did if type(did) is str and is_did(did) else None
        error.seq = seq if is_seq(seq) else None
    try:
        raise error
    finally:
        # Its traceback holds this frame: without this the two would keep each other alive, and the message.
        del error


def _did_field(kind: Kind) -> str:
    return "repo" if kind is Kind.COMMIT else "did"


def _check_canonical(payload: Fields, body: bytes) -> None:
    try:
        drisl.check_canonical(payload, body)
    except DrislError as error:
        raise FrameError("frame-not-canonical", str(error)) from error


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

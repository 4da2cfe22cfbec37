"""What an event says as JSON: one message for each operation of a commit, one for every other event.

Pure: bytes of the log in, texts out. `batches` makes the messages of a chunk, which costs little; a record is decoded
and written when a text is asked for, and only once. Must not know of consumers, filters or how a frame is made.

1. The keys and their order are Jetstream's: `did`, `time_us`, `kind`, and one object that is named like the kind.
2. `time_us` is the event's time in the log, in microseconds, one more for each further operation: it rises strictly.
3. `seq` is ours, and the firehose's: a place that is exact where microseconds of another server are not.
4. Records are in the JSON of the data model: links are `{"$link"}`, bytes are `{"$bytes"}` in base64 without padding.
5. `kind: sync` is ours, for those who ask for it.
6. A record that stands in many operations of one commit is written for each of them, as far as its bytes, counted each
   time, are within REPEATED_BYTES and the size of the commit's blocks: otherwise 1 MB could become 1 GB for every
   consumer.
7. A record may have so many links and byte strings: each is written by a call, and takes as long as dozens of others.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import orjson

from relay.atproto import car, drisl, frames
from relay.atproto.cid import Cid
from relay.atproto.errors import ProtocolError
from relay.atproto.frames import Account, Commit, Identity, RepoOp, Sync
from relay.jsonstream.encodings import Encoding
from relay.kit.errors import RelayError

# Two hundred operations with one and the same record of 300 bytes.
REPEATED_BYTES = 64 << 10
# How many links and byte strings a commit of one record may have; of several, each may have its part, or this many.
CONVERTED_OF_COMMIT, CONVERTED_OF_RECORD = 2_000, 100
# What a link begins with, in whatever length its tag's number is written.
_LINKS = (b"\xd8\x2a", b"\xd9\x00\x2a", b"\x00\x00\x2a")


class RecordUnreadable(RelayError):
    """A record that cannot be written as JSON.

    Reasons `record-missing`, `record-encoding`, `record-repeated`, `record-links`.
    """


class Message:
    """One message. `kind` is its name, `collection` that of a commit's record, else empty."""

    __slots__ = ("_content", "_frames", "_text", "collection", "did", "kind", "seq", "time_us")

    def __init__(self, did: str, seq: int, time_us: int, kind: str, content: _Content, collection: str = "") -> None:
        self.did = did
        self.seq = seq
        self.time_us = time_us
        self.kind = kind
        self.collection = collection
        self._content = content
        self._text: bytes | None = None
        self._frames: dict[str, bytes] = {}

    @property
    def is_written(self) -> bool:
        """True once the text is there."""
        return self._text is not None

    def framed(self, encoding: Encoding) -> bytes:
        """The message as a WebSocket frame. Raises RecordUnreadable."""
        frame = self._frames.get(encoding.name)
        if frame is None:
            frame = self._frames[encoding.name] = encoding.frame(self.text())
        return frame

    def text(self) -> bytes:
        """The message as JSON in UTF-8. Raises RecordUnreadable."""
        if self._text is None:
            # What it was made from is no longer needed.
            content, self._content = self._content, _NOTHING
            try:
                message = {
                    "did": self.did,
                    "time_us": self.time_us,
                    "kind": self.kind,
                    self.kind: content.value(),
                    "seq": self.seq,
                }
                self._text = _dumps(message, content.converted)
            except RecordUnreadable as error:
                self._content = _Unreadable(error.reason, error.detail)
                raise
        return self._text


def of_frame(frame: bytes, time_us: int) -> list[Message]:
    """The messages of an event as it goes out on the firehose; none for what is not an event.

    Raises FrameError.
    """
    event = frames.decode(frame)
    match event:
        case Commit():
            blocks = _Blocks(event.blocks, event.ops)
            return [
                Message(
                    event.did,
                    event.seq,
                    time_us + index,
                    "commit",
                    _Operation(event.rev, index, op, blocks),
                    op.path.partition("/")[0],
                )
                for index, op in enumerate(event.ops)
            ]
        case Identity():
            return [Message(event.did, event.seq, time_us, "identity", _Plain(_identity(event)))]
        case Account():
            return [Message(event.did, event.seq, time_us, "account", _Plain(_account(event)))]
        case Sync():
            content = {"did": event.did, "rev": event.rev, "seq": event.seq, "time": event.time}
            return [Message(event.did, event.seq, time_us, "sync", _Plain(content))]
    return []


class _Content:
    """What stands under the name of a message's kind, once it is asked for. `converted`: how many links and byte
    strings it may have.
    """

    __slots__ = ()

    @property
    def converted(self) -> int:
        return 0

    def value(self) -> dict[str, Any]:
        raise NotImplementedError


_NOTHING = _Content()


class _Unreadable(_Content):
    """What has no form in JSON, and is not looked at again."""

    __slots__ = ("_detail", "_reason")

    def __init__(self, reason: str, detail: str) -> None:
        self._reason = reason
        self._detail = detail

    def value(self) -> dict[str, Any]:
        raise RecordUnreadable(self._reason, self._detail)


class _Plain(_Content):
    __slots__ = ("_value",)

    def __init__(self, value: dict[str, Any]) -> None:
        self._value = value

    def value(self) -> dict[str, Any]:
        return self._value


class _Blocks:
    """The blocks of a commit with these operations, read when the first of its records is wanted."""

    __slots__ = ("_blocks", "_data", "_end", "_ops", "converted")

    def __init__(self, data: bytes, ops: Sequence[RepoOp]) -> None:
        self.converted = max(CONVERTED_OF_COMMIT // max(len(ops), 1), CONVERTED_OF_RECORD)
        self._data = data
        self._ops = ops
        self._blocks: dict[bytes, bytes] | None = None
        # The first operation whose record is one too many.
        self._end = 0

    def record(self, index: int, cid: Cid) -> Any:
        """The decoded record of an operation. Raises RecordUnreadable."""
        try:
            if self._blocks is None:
                blocks = car.known_blocks(self._data)
                self._end = _first_repeated(blocks, self._ops, REPEATED_BYTES + len(self._data))
                self._data, self._ops, self._blocks = b"", (), blocks
            if index >= self._end:
                raise RecordUnreadable("record-repeated", f"operation {index} of a commit with many equal records")
            block = self._blocks[cid]
            # Before a link is read, which takes as long as writing it. Nearly no record is large enough for so many.
            if len(block) > self.converted and sum(map(block.count, _LINKS)) > self.converted:
                raise _too_many(self.converted)
            return drisl.load(block)
        except KeyError:
            raise RecordUnreadable("record-missing", str(cid)) from None
        except ProtocolError as error:
            raise RecordUnreadable("record-encoding", str(error)) from None


def _first_repeated(blocks: dict[bytes, bytes], ops: Sequence[RepoOp], room: int) -> int:
    """The first of `ops` whose record does not fit into `room` bytes with those before; how many there are if all do.

    Different records always fit, since all of them are in the commit.
    """
    if len(ops) == 1:
        return 1
    for index, op in enumerate(ops):
        room -= len(blocks.get(op.cid, b"")) if op.cid is not None else 0
        if room < 0:
            return index
    return len(ops)


class _Operation(_Content):
    __slots__ = ("_blocks", "_index", "_op", "_rev")

    def __init__(self, rev: str, index: int, op: RepoOp, blocks: _Blocks) -> None:
        self._rev = rev
        self._index = index
        self._op = op
        self._blocks = blocks

    @property
    def converted(self) -> int:
        return self._blocks.converted

    def value(self) -> dict[str, Any]:
        op = self._op
        collection, _, rkey = op.path.partition("/")
        content: dict[str, Any] = {
            "rev": self._rev,
            "operation": op.action,
            "collection": collection,
            "rkey": rkey,
        }
        if op.cid is not None:
            content["record"] = self._blocks.record(self._index, op.cid)
            content["cid"] = str(op.cid)
        return content


def _identity(event: Identity) -> dict[str, Any]:
    handle = {} if event.handle is None else {"handle": event.handle}
    return {"did": event.did, **handle, "seq": event.seq, "time": event.time}


def _account(event: Account) -> dict[str, Any]:
    status = {} if event.status is None else {"status": event.status}
    return {"active": event.active, "did": event.did, "seq": event.seq, **status, "time": event.time}


def _dumps(value: dict[str, Any], converted: int) -> bytes:
    converter = _Converter(converted)
    try:
        text = orjson.dumps(value, converter)
        # NaN and the infinities are written so, too.
        if b"null" not in text:
            return text
    except TypeError:
        pass
    if converter.left < 0:
        raise _too_many(converted)
    converter = _Converter(converted)
    try:
        # Integers of more than 64 bits, which no other reader of JSON here may refuse either.
        return json.dumps(value, default=converter, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordUnreadable("record-encoding", str(error)) from None


def _too_many(converted: int) -> RecordUnreadable:
    return RecordUnreadable("record-links", f"over {converted} links and byte strings")


class _Converter:
    """JSON of what JSON has no form for (data model, JSON), `maximum` times at most."""

    __slots__ = ("_maximum", "left")

    def __init__(self, maximum: int) -> None:
        self._maximum = self.left = maximum

    def __call__(self, value: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _too_many(self._maximum)
        if isinstance(value, Cid):
            return {"$link": str(value)}
        if isinstance(value, drisl.UnknownCid):
            # In base32, whatever kind it is; one of the oldest kind is written in base58, but a `b` tells every reader.
            return {"$link": "b" + base64.b32encode(value).decode("ascii").rstrip("=").lower()}
        if isinstance(value, bytes):
            return {"$bytes": base64.b64encode(value).decode("ascii").rstrip("=")}
        raise TypeError(type(value).__name__)

"""Replay of what the kernel has in memory, straight from the log's blocks to the wire.

Nearly all that consumers ask for again is in the page cache. Handing a read to a native thread and waiting for it
would take as long as all the rest, so the hub reads by itself, in a way that never waits for the disk. Every record is
checked as `record.decode` does. What is unusual is left to `LogReader.read`: damage, the end of a segment, a disk that
has to be asked. Used by `firehose`. Must not know of sockets.
"""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import NamedTuple

from google_crc32c import value as crc32c

from relay.atproto.frames import Kind
from relay.eventlog.reader import LogReader
from relay.eventlog.record import HEADER_SIZE, MAX_FRAME, REPLAYED_FIELDS, SPLIT_HEADER
from relay.eventlog.segment import BLOCK
from relay.net.websocket import MEDIUM, WHOLE, frame_header
from relay.stream.suppressions import Suppressions

# The hub is held up for less than half a millisecond, however small the events are.
RECORDS = 512
# In the place of the uid of an #account event, which is never hidden.
NOBODY = -1


class Passage(NamedTuple):
    """Records that follow one another in the log and take `length` bytes there.

    Each has two entries in `parts`: its WebSocket header and its frame.
    """

    parts: list[bytes]
    seqs: list[int]
    uids: list[int]
    length: int


def passage(block: mmap, size: int, after_seq: int, limit: int) -> Passage:
    """The sound records at the start of the first `size` bytes of `block`, up to RECORDS of them: their seqs rise from
    `after_seq` on and are below `limit`.
    """
    parts: list[bytes] = []
    seqs: list[int] = []
    uids: list[int] = []
    split, unpack, pack, account = SPLIT_HEADER.unpack_from, REPLAYED_FIELDS.unpack, MEDIUM.pack, Kind.ACCOUNT
    offset = 0
    for _ in range(RECORDS):
        start = offset + HEADER_SIZE
        if start > size:
            break
        header_crc, rest = split(block, offset)
        if crc32c(rest) != header_crc:
            break
        frame_crc, length, seq, uid, kind = unpack(rest)
        end = start + length
        if end > size or length > MAX_FRAME or not after_seq < seq < limit:
            break
        # A slice of an mmap is bytes, and the checksum takes nothing else.
        frame = block[start:end]
        if crc32c(frame) != frame_crc:
            break
        # What `frame_header` gives for nearly every event, without the call.
        parts += (pack(WHOLE, 126, length) if 126 <= length < 65536 else frame_header(length), frame)
        seqs.append(seq)
        uids.append(uid if kind != account else NOBODY)
        after_seq = seq
        offset = end
    return Passage(parts, seqs, uids, offset)


def shown(found: Passage, suppressions: Suppressions) -> bytes:
    """What of a passage may be handed out, joined for the wire."""
    # As `Suppressions.hides` says, without a call for each event.
    before = suppressions.before
    if before.keys().isdisjoint(found.uids):
        return b"".join(found.parts)
    events = zip(found.seqs, found.uids, found.parts[::2], found.parts[1::2], strict=True)
    return b"".join(header + frame for seq, uid, header, frame in events if seq >= before.get(uid, 0))


class AtHand:
    """Reads for all feeds, one after the other, into one buffer, which stays in the processor's cache."""

    def __init__(self, suppressions: Suppressions) -> None:
        self._suppressions = suppressions
        self._buffer = mmap(-1, BLOCK, flags=MAP_PRIVATE | MAP_ANONYMOUS)

    def after(self, position: int, head: int, reader: LogReader) -> tuple[bytes, int] | None:
        """The next events after `position` up to `head` without the hidden ones, and the seq they end with; None when
        `reader` has to read. Never waits.
        """
        size, limit = reader.fill(self._buffer, position)
        found = passage(self._buffer, size, position, min(limit, head + 1))
        if not found.seqs:
            return None
        reader.advance(found.length, found.seqs[-1])
        return shown(found, self._suppressions), found.seqs[-1]

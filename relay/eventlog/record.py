"""One record of the log: the event as it goes on the wire, behind a fixed header of the relay's own.

Pure functions over bytes, used by everything that writes or reads segments. The layout is `docs/log-format.md`.
Must not know of files, nor what is in a frame.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from google_crc32c import value as crc32c

# An #account record after which the account's earlier events must not be replayed, and one that undoes this.
FLAG_HIDES = 1
FLAG_REVEALS = 2
# The record gives the account a status of the relay's own: its code is the high byte of the flags (`own_flags`).
FLAG_OWN = 4
_OWN_SHIFT = 8

# The largest frame that a segment holds: the protocol's 5 MB and room for the relay's longer `seq`.
MAX_FRAME = 5_000_000 + 64

# header CRC | frame CRC, frame length, seq, time, uid, host id, upstream seq, kind, status, flags
_HEADER = struct.Struct("<IIIQQQQQBBH")
_HEADER_CRC = struct.Struct("<I")
_HEADER_REST = struct.Struct("<IIQQQQQBBH")
# Past the keyword arguments of a NamedTuple, which cost as much as all else of a small record.
_new = tuple.__new__
HEADER_SIZE = _HEADER.size
# What replay needs of a header: its checksum and what that is of; then, of the latter, the frame's CRC and length, seq,
# uid and kind.
SPLIT_HEADER = struct.Struct(f"<I{_HEADER_REST.size}s")
REPLAYED_FIELDS = struct.Struct("<IIQ8xQ16xB3x")


class Record(NamedTuple):
    """An event in the log.

    `time_us` is microseconds since the epoch and never falls within a log. `host_id` and `upstream_seq` are 0 for
    events of the relay's own. `kind` is a `frames.Kind`; `status` the index in `events.STATUSES` of what the host
    says of the account.
    """

    seq: int
    time_us: int
    uid: int
    host_id: int
    upstream_seq: int
    kind: int
    status: int
    flags: int
    frame: bytes

    @property
    def size(self) -> int:
        """Bytes in the segment."""
        return HEADER_SIZE + len(self.frame)


def own_flags(code: int) -> int:
    """The flags that say the relay's own status of an account, an index in `events.STATUSES`."""
    return FLAG_OWN | code << _OWN_SHIFT


def own_code(flags: int) -> int | None:
    """What `own_flags` was given; None when the record says nothing of the relay's own status."""
    return flags >> _OWN_SHIFT if flags & FLAG_OWN else None


class Header(NamedTuple):
    """A record's header whose checksum was right, so `length`, the frame's, can be trusted."""

    frame_crc: int
    length: int
    seq: int
    time_us: int
    uid: int
    host_id: int
    upstream_seq: int
    kind: int
    status: int
    flags: int


def encode_header(record: Record) -> bytes:
    """What stands before the frame of `record`."""
    seq, time_us, uid, host_id, upstream_seq, kind, status, flags, frame = record
    rest = _HEADER_REST.pack(crc32c(frame), len(frame), seq, time_us, uid, host_id, upstream_seq, kind, status, flags)
    return _HEADER_CRC.pack(crc32c(rest)) + rest


def decode_header(data: bytes, offset: int) -> Header | None:
    """The header at `offset`; None when `data` ends before it does or its checksum is wrong."""
    if len(data) - offset < HEADER_SIZE:
        return None
    header_crc, *fields = _HEADER.unpack_from(data, offset)
    if crc32c(data[offset + 4 : offset + HEADER_SIZE]) != header_crc or fields[1] > MAX_FRAME:
        return None
    return Header(*fields)


def decode(data: bytes, offset: int) -> Record | None:
    """The record at `offset`; None when it is not whole in `data` or a checksum is wrong."""
    header = decode_header(data, offset)
    if header is None:
        return None
    start = offset + HEADER_SIZE
    frame = data[start : start + header.length]
    if len(frame) != header.length or crc32c(frame) != header.frame_crc:
        return None
    return Record(*header[2:], frame)


def records_in(data: bytes, after_seq: int = -1) -> tuple[list[Record], int]:
    """The records that stand one after the other from the start of `data`, and where the last of them ends.

    Their seqs rise from `after_seq` on; one that does not is not a further record. What `decode` says of each, in one
    loop; for replay `stream.at_hand` does without the records.
    """
    records: list[Record] = []
    offset, size = 0, len(data)
    while size - offset >= HEADER_SIZE:
        header_crc, frame_crc, length, seq, time_us, uid, host_id, upstream_seq, kind, status, flags = (
            _HEADER.unpack_from(data, offset)
        )
        start = offset + HEADER_SIZE
        if length > MAX_FRAME or start + length > size or crc32c(data[offset + 4 : start]) != header_crc:
            break
        if seq <= after_seq:
            break
        frame = data[start : start + length]
        if crc32c(frame) != frame_crc:
            break
        records.append(_new(Record, (seq, time_us, uid, host_id, upstream_seq, kind, status, flags, frame)))
        after_seq = seq
        offset = start + length
    return records, offset

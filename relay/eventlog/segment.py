"""One segment file of the log: its header, its records in seq order, and how to read around damage in them.

Written by `log`, read by `reader`, recovery and `inspect`, each with its own handle. A segment ends where the next one
begins, so records it may hold from there on (a write that failed and was made again) do not count. Must not know of
other segments, threads or retention.

Beside a segment lies its sparse index: every so many bytes, which seq and time stand at which offset. It is a hint and
nothing more, written without sync. It may be missing or cut off, and every point is checked against the segment before
it is used; a log reads the same without it, only slower.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from google_crc32c import value as crc32c

from relay.eventlog.disk import read, start_of_file
from relay.eventlog.record import HEADER_SIZE, Record, decode_header, records_in
from relay.kit.errors import LogError

MAGIC = b"ATRELAYL"
VERSION = 1
SUFFIX = ".seg"
INDEX_SUFFIX = ".idx"
INDEX_EVERY = 256 << 10
BLOCK = 512 << 10

# magic, version, first seq, creation time, first seq of the segment before; then the CRC of these
_HEADER = struct.Struct("<8sIQQQ")
_CRC = struct.Struct("<I")
START = _HEADER.size + _CRC.size

# seq, time, offset; then the CRC of these
_POINT = struct.Struct("<QQQ")
_POINT_SIZE = _POINT.size + _CRC.size


class Segment(NamedTuple):
    """A segment file.

    `created_us` is microseconds since the epoch; every record of an earlier segment is older. `previous` is the first
    seq of the segment before it, 0 for the first ever, None when the header is damaged.
    """

    path: Path
    first_seq: int
    created_us: int
    previous: int | None


class Point(NamedTuple):
    """The record `seq`, of `time_us` (microseconds since the epoch), starts at `offset` of the segment."""

    seq: int
    time_us: int
    offset: int


class Damage(NamedTuple):
    """Bytes of a segment that hold no readable record, or a whole one that is `out_of_order`."""

    offset: int
    size: int
    out_of_order: bool = False


def name_of(first_seq: int) -> str:
    """The file name of the segment that starts at `first_seq`; names sort as seqs do."""
    return f"{first_seq:016d}{SUFFIX}"


def encode_header(segment: Segment) -> bytes:
    """The first START bytes of the segment's file."""
    header = _HEADER.pack(MAGIC, VERSION, segment.first_seq, segment.created_us, segment.previous or 0)
    return header + _CRC.pack(crc32c(header))


def load(path: Path) -> Segment:
    """The segment at `path`. A damaged header costs no event: the name and the file's time stand in for it.

    Raises LogError `log-format` for a segment of a newer relay, whose records would look like damage.
    """
    first_seq = int(path.name.removesuffix(SUFFIX))
    header = start_of_file(path, START)
    if len(header) == START and _CRC.unpack(header[-4:])[0] == crc32c(header[:-4]):
        magic, version, named_seq, created_us, previous = _HEADER.unpack(header[:-4])
        if (magic, version, named_seq) == (MAGIC, VERSION, first_seq):
            return Segment(path, first_seq, created_us, previous)
        if magic == MAGIC and version > VERSION:
            raise LogError("log-format", f"{path.name} has format {version} and this relay reads {VERSION}")
    return Segment(path, first_seq, path.stat().st_mtime_ns // 1000, None)


def paths(directory: Path) -> list[Path]:
    """The segment files of a log, oldest first."""
    return sorted(path for path in directory.glob(f"*{SUFFIX}") if path.name.removesuffix(SUFFIX).isdigit())


def index_path(segment: Path) -> Path:
    """The index file of the segment at that path."""
    return segment.with_suffix(INDEX_SUFFIX)


def encode_points(points: Iterable[Point]) -> bytes:
    """Points as they stand in an index file."""
    packed = (_POINT.pack(*point) for point in points)
    return b"".join(point + _CRC.pack(crc32c(point)) for point in packed)


def load_index(segment: Path) -> list[Point]:
    """The points of a segment's index up to the first that is damaged or does not rise; none without the file."""
    try:
        data = index_path(segment).read_bytes()
    except OSError:
        return []
    points: list[Point] = []
    for start in range(0, len(data) - _POINT_SIZE + 1, _POINT_SIZE):
        packed = data[start : start + _POINT.size]
        point = Point(*_POINT.unpack(packed))
        rises = not points or (point.seq > points[-1].seq and point.offset > points[-1].offset)
        if _CRC.unpack_from(data, start + _POINT.size)[0] != crc32c(packed) or not rises:
            break
        points.append(point)
    return points


def replace_index(segment: Path, points: Iterable[Point]) -> None:
    """Write a segment's whole index anew. Raises OSError."""
    target = index_path(segment)
    scratch = target.with_suffix(".tmp")
    scratch.write_bytes(encode_points(points))
    os.replace(scratch, target)


class Handle:
    """An open segment file; closed when the last reader lets go of it, also after the file is deleted.

    Raises FileNotFoundError when the file is gone.
    """

    __slots__ = ("fd", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.fd = -1
        self.fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self.fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; none where the disk cannot read."""
        return read(self.fd, size, offset)


def read_block(handle: Handle, offset: int, end: int, size: int = BLOCK) -> bytes:
    """About `size` bytes from `offset`, but one whole record at least where there is one; never past `end`."""
    data = handle.read(offset, min(max(size, HEADER_SIZE), end - offset))
    header = decode_header(data, 0)
    if header is not None and HEADER_SIZE + header.length > len(data):
        data = handle.read(offset, min(HEADER_SIZE + header.length, end - offset))
    return data


def after_damage(handle: Handle, offset: int, end: int, points: Sequence[Point]) -> int:
    """Where reading continues when the bytes at `offset` are not a whole record.

    A header whose checksum is right says where the next record starts. Otherwise only the index is trusted: what looks
    like a record may be inside a frame, and frames are other people's bytes.
    """
    header = decode_header(handle.read(offset, HEADER_SIZE), 0)
    if header is not None:
        return min(offset + HEADER_SIZE + header.length, end)
    return next((point.offset for point in points if offset < point.offset < end and _holds(handle, point)), end)


def start_of(handle: Handle, seq: int, points: Sequence[Point]) -> int:
    """An offset at or before the record `seq` from which to read: the index's last point before it, if it is true."""
    for point in reversed(points):
        if point.seq <= seq:
            return point.offset if _holds(handle, point) else START
    return START


def _holds(handle: Handle, point: Point) -> bool:
    header = decode_header(handle.read(point.offset, HEADER_SIZE), 0)
    return header is not None and header.seq == point.seq


def scan(handle: Handle, end: int, offset: int = START, *, after_seq: int = 0) -> Iterator[tuple[int, Record] | Damage]:
    """Every record from `offset` to `end` with its offset, and every damaged stretch; blocks on the disk.

    `after_seq` is the seq before the first that may come: records that do not rise are damage, too.
    """
    points: Sequence[Point] | None = None
    while offset < end:
        data = read_block(handle, offset, end)
        records, length = records_in(data)
        at = offset
        for record in records:
            if record.seq > after_seq:
                yield at, record
                after_seq = record.seq
            else:
                yield Damage(at, record.size, out_of_order=True)
            at += record.size
        offset += length
        if length:
            continue
        points = load_index(handle.segment.path) if points is None else points
        resume = after_damage(handle, offset, end, points)
        yield Damage(offset, resume - offset)
        offset = resume

"""The sparse index beside a segment: every so many bytes, which seq and time stand at which offset.

A hint and nothing more. It is written without sync, may be missing or cut off, and every point is checked against
the segment before it is used; a log reads the same without it, only slower. Written by `log`, read by `segment`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from google_crc32c import value as crc32c

SUFFIX = ".idx"
EVERY = 256 << 10

# seq, time, offset; then the CRC of these
_POINT = struct.Struct("<QQQ")
_CRC = struct.Struct("<I")
_SIZE = _POINT.size + _CRC.size


class Point(NamedTuple):
    """The record `seq`, of `time_us` (microseconds since the epoch), starts at `offset` of the segment."""

    seq: int
    time_us: int
    offset: int


def path_of(segment: Path) -> Path:
    """The index file of the segment at that path."""
    return segment.with_suffix(SUFFIX)


def encode(points: Iterable[Point]) -> bytes:
    """Points as they stand in the file."""
    packed = (_POINT.pack(*point) for point in points)
    return b"".join(point + _CRC.pack(crc32c(point)) for point in packed)


def load(segment: Path) -> list[Point]:
    """The points of a segment's index up to the first that is damaged or does not rise; none without the file."""
    try:
        data = path_of(segment).read_bytes()
    except OSError:
        return []
    points: list[Point] = []
    for start in range(0, len(data) - _SIZE + 1, _SIZE):
        packed = data[start : start + _POINT.size]
        point = Point(*_POINT.unpack(packed))
        rises = not points or (point.seq > points[-1].seq and point.offset > points[-1].offset)
        if _CRC.unpack_from(data, start + _POINT.size)[0] != crc32c(packed) or not rises:
            break
        points.append(point)
    return points


def replace(segment: Path, points: Iterable[Point]) -> None:
    """Write the whole index anew. Raises OSError."""
    target = path_of(segment)
    scratch = target.with_suffix(".tmp")
    scratch.write_bytes(encode(points))
    os.replace(scratch, target)

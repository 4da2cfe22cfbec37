"""Figures over time in rings of fixed size, one ring for each resolution, and the bytes that they are kept as.

Filled by `past`, drawn by `charts`. A ring's place follows from the time, so that a gap stays a gap. The size in
memory and on disk is the same however long the relay runs. Pure: must not know a clock, a file, or what a figure means.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Sequence
from math import isnan, nan
from typing import NamedTuple

from google_crc32c import value as crc32c

MAGIC = b"ATRELAYR"

_HEADER_SIZE = struct.Struct("<H")
_RING = struct.Struct("<qI")
_CRC = struct.Struct("<I")


class Shape(NamedTuple):
    """A ring has `slots` places of `step` seconds each."""

    step: int
    slots: int


class Series(NamedTuple):
    """A figure. A place holds its mean, or the highest with `peak`."""

    name: str
    peak: bool = False


class Course(NamedTuple):
    """Values at `start`, `start + step`, …, in Unix seconds; NaN where nothing was recorded."""

    start: int
    step: int
    values: list[float]


class _Ring:
    """`newest` counts places since 1970; `samples` is how many the newest place has taken."""

    def __init__(self, shape: Shape, columns: int) -> None:
        self.shape = shape
        self.newest = -1
        self.samples = 0
        self.columns = [array("f", [nan]) * shape.slots for _ in range(columns)]

    def move_to(self, place: int) -> None:
        """Make `place` the newest one: what it passes over is a gap. Going back forgets what is now in the future."""
        if place == self.newest:
            return
        first, last = sorted((place, self.newest)) if self.newest >= 0 else (place - 1, place)
        for passed in range(max(first + 1, last - self.shape.slots + 1), last + 1):
            for column in self.columns:
                column[passed % self.shape.slots] = nan
        # A clock that went back comes to a place that is begun anew.
        if place < self.newest:
            for column in self.columns:
                column[place % self.shape.slots] = nan
        self.newest, self.samples = place, 0


class Rings:
    """One ring for each of `shapes`, each with all `series`."""

    def __init__(self, shapes: Sequence[Shape], series: Sequence[Series]) -> None:
        self._series = tuple(series)
        self._rings = [_Ring(shape, len(series)) for shape in shapes]

    @property
    def capacity(self) -> int:
        """The values that fit in."""
        return sum(ring.shape.slots for ring in self._rings) * len(self._series)

    @property
    def version(self) -> int:
        """Changes when the finest ring begins a new place."""
        return self._rings[0].newest

    def add(self, at: float, values: Sequence[float]) -> None:
        """Take one value for each series, NaN for none, at a time in Unix seconds."""
        for ring in self._rings:
            ring.move_to(int(at) // ring.shape.step)
            place = ring.newest % ring.shape.slots
            for series, column, value in zip(self._series, ring.columns, values, strict=True):
                former = column[place]
                if isnan(former):
                    column[place] = value
                elif isnan(value):
                    continue
                elif series.peak:
                    column[place] = max(former, value)
                else:
                    column[place] = former + (value - former) / (ring.samples + 1)
            ring.samples += 1

    def course(self, step: int, name: str, now: float) -> Course:
        """A series in the ring of that step, up to `now`. Raises KeyError for a step or a name that there is not."""
        ring = {one.shape.step: one for one in self._rings}[step]
        column = ring.columns[[series.name for series in self._series].index(name)]
        slots = ring.shape.slots
        last = int(now) // step
        values = [
            column[place % slots] if ring.newest - slots < place <= ring.newest else nan
            for place in range(last - slots + 1, last + 1)
        ]
        return Course((last - slots + 1) * step, step, values)

    def to_bytes(self) -> bytes:
        """All of it, with a checksum; always the same number of bytes."""
        shapes = [list(ring.shape) for ring in self._rings]
        header = json.dumps([shapes, [series.name for series in self._series]]).encode()
        parts = [MAGIC, _HEADER_SIZE.pack(len(header)), header]
        for ring in self._rings:
            parts.append(_RING.pack(ring.newest, ring.samples))
            parts += [struct.pack(f"<{ring.shape.slots}f", *column) for column in ring.columns]
        data = b"".join(parts)
        return data + _CRC.pack(crc32c(data))

    def load(self, data: bytes) -> None:
        """Take over what `to_bytes` gave, also of a release with other series. Raises ValueError when it is damaged,
        and then changes nothing.
        """
        body, crc = data[: -_CRC.size], data[-_CRC.size :]
        if not body.startswith(MAGIC) or crc != _CRC.pack(crc32c(body)):
            raise ValueError("it is cut short or was changed")
        try:
            self._rings = self._read(body)
        except (struct.error, TypeError) as error:
            raise ValueError(f"it is not what it should be: {error}") from None

    def _read(self, body: bytes) -> list[_Ring]:
        (size,) = _HEADER_SIZE.unpack_from(body, len(MAGIC))
        at = len(MAGIC) + _HEADER_SIZE.size
        shapes, names = json.loads(body[at : at + size])
        if shapes != [list(ring.shape) for ring in self._rings]:
            raise ValueError("it has other resolutions")
        at += size
        found: list[_Ring] = []
        for ring in self._rings:
            fresh = _Ring(ring.shape, len(self._series))
            fresh.newest, fresh.samples = _RING.unpack_from(body, at)
            at += _RING.size
            stored = {}
            for name in names:
                stored[name] = array("f", struct.unpack_from(f"<{ring.shape.slots}f", body, at))
                at += 4 * ring.shape.slots
            columns = zip(self._series, fresh.columns, strict=True)
            fresh.columns = [stored.get(series.name, column) for series, column in columns]
            found.append(fresh)
        return found

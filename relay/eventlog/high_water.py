"""The high-water mark: what must be known about the log even when its newest segment is gone.

A small file beside the segments, replaced atomically and synced. Written by `log` about once in a million events,
when a segment begins, and at the start and the end of a run; read when the log is opened.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

from google_crc32c import value as crc32c

NAME = "high-water"

# How far ahead seqs are reserved, and so the gap that is left when it is in doubt which were given out.
RESERVE = 1_000_000

_LAYOUT = struct.Struct("<8sQQBB")
_CRC = struct.Struct("<I")
_MAGIC = b"ATRELAYM"


class HighWater(NamedTuple):
    """No seq from `reserved` on was ever given out.

    `segment` is the first seq of the newest segment that was begun. `clean`: the run ended in order, with everything
    synced. `synced`: events were published only after they were synced, as they are now;
    older relays could do without.
    """

    reserved: int
    segment: int
    clean: bool
    synced: bool


def load(directory: Path) -> HighWater | None:
    """The mark in `directory`; None when there is none or it is damaged."""
    try:
        data = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return None
    packed, crc = data[: _LAYOUT.size], data[_LAYOUT.size :]
    if len(packed) != _LAYOUT.size or crc != _CRC.pack(crc32c(packed)):
        return None
    magic, reserved, segment, clean, synced = _LAYOUT.unpack(packed)
    return HighWater(reserved, segment, bool(clean), bool(synced)) if magic == _MAGIC else None


def store(directory: Path, mark: HighWater) -> None:
    """Replace the mark in `directory`, durable on return. Raises OSError."""
    packed = _LAYOUT.pack(_MAGIC, *mark)
    scratch = directory / f"{NAME}.tmp"
    with scratch.open("wb") as file:
        file.write(packed + _CRC.pack(crc32c(packed)))
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, directory / NAME)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Make the creation and renaming of files in `directory` durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""What must be known about the log even when its newest segment is gone, or cut short: which seqs were given out.

Two small files beside the segments. The high-water mark is replaced about once in a million events, when a segment
begins, and at the start and the end of a run. `given-out` says the next seq: it is written in place at the start, at
the first event after it, and then twice a second. Both are read when the log is opened, and written by `log` alone.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

from google_crc32c import value as crc32c

from relay.eventlog import disk

NAME = "high-water"
GIVEN_OUT = "given-out"

# How far ahead seqs are reserved, and so the gap that is left when it is in doubt which were given out.
RESERVE = 1_000_000

_LAYOUT = struct.Struct("<8sQQBB")
_CRC = struct.Struct("<I")
_MAGIC = b"ATRELAYM"

# magic, next seq, whether it was given out by events of a run; then the CRC of these
_GIVEN_LAYOUT = struct.Struct("<8sQB")
_GIVEN_MAGIC = b"ATRELAYG"


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


class GivenOut(NamedTuple):
    """No seq below `next_seq` may be given out again.

    `running`: the log had all of them. Otherwise a start decided so, and nothing was written since.
    """

    next_seq: int
    running: bool


def load(directory: Path) -> HighWater | None:
    """The mark in `directory`; None when there is none or it is damaged."""
    try:
        data = disk.start_of_file(directory / NAME, _LAYOUT.size + _CRC.size + 1)
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
    disk.replace(directory / NAME, packed + _CRC.pack(crc32c(packed)))


def load_given_out(directory: Path) -> GivenOut | None:
    """What `write_given_out` wrote last; None when it never did. Raises ValueError when the file is damaged."""
    try:
        data = disk.start_of_file(directory / GIVEN_OUT, _GIVEN_LAYOUT.size + _CRC.size + 1)
    except FileNotFoundError:
        return None
    packed, crc = data[: _GIVEN_LAYOUT.size], data[_GIVEN_LAYOUT.size :]
    if len(packed) != _GIVEN_LAYOUT.size or crc != _CRC.pack(crc32c(packed)) or not packed.startswith(_GIVEN_MAGIC):
        raise ValueError(f"{GIVEN_OUT} is damaged")
    _, next_seq, running = _GIVEN_LAYOUT.unpack(packed)
    return GivenOut(next_seq, bool(running))


def open_given_out(directory: Path) -> int:
    """The file descriptor for what is given out, of a file that is made when it is not there. Raises OSError."""
    return os.open(directory / GIVEN_OUT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)


def write_given_out(fd: int, given: GivenOut, *, durable: bool) -> None:
    """Say what was given out: for a process that is killed, and `durable` for a machine that stops. Raises OSError."""
    packed = _GIVEN_LAYOUT.pack(_GIVEN_MAGIC, *given)
    # Far less than a sector, and no new room: it is there as a whole or not at all, and its checksum says so.
    os.pwrite(fd, packed + _CRC.pack(crc32c(packed)), 0)
    if durable:
        os.fsync(fd)

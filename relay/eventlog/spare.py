"""Room on the log's disk that is set aside, so that a relay starts although the disk is full, and can then delete.

Given back by `app` before anything is opened, and set aside again by retention when there is plenty. Must not know
what else needs room.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NAME = "spare"
SIZE = 4 << 20
# With less than this left the room is needed; with this much more it is set aside again.
SCARCE = 2 << 20
PLENTY = 16 << 20


def free_bytes(directory: Path) -> int:
    """What the relay may still write on the disk of `directory`. Raises OSError."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def give_back(directory: Path) -> None:
    """Free the room when the disk is full. It is fine if there is none, or no directory yet."""
    with suppress(OSError):
        if free_bytes(directory) < SCARCE:
            (directory / NAME).unlink()


def set_aside(directory: Path) -> None:
    """Take the room when there is plenty. Raises OSError."""
    path = directory / NAME
    if path.exists() or free_bytes(directory) < PLENTY:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        os.posix_fallocate(fd, 0, SIZE)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(fd)

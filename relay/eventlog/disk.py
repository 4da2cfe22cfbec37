"""Reading and replacing files on the log's disk: a sector that cannot be read counts as one with wrong bytes, and a
name in a folder is durable only once the folder is synced.

Used by whatever reads the files of the log or replaces small ones. Must not know what is in them.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

# The sector, or what the file system knows of it, is broken: trying again would not help.
_BROKEN = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})

# Linux alone has it, and not for every file system: there it is an OSError.
_AT_ONCE: int | None = getattr(os, "RWF_NOWAIT", None)


def read(fd: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes from `offset`: none at the end of the file, and where the disk cannot read. Raises OSError
    when that is for another reason.
    """
    try:
        return os.pread(fd, size, offset)
    except OSError as error:
        if error.errno not in _BROKEN:
            raise
        return b""


def read_cached(fd: int, into: memoryview, offset: int) -> int:
    """Fill `into` from `offset` on as far as that is in the kernel's memory, and say how many bytes that is: none where
    the system cannot tell. Raises OSError.
    """
    if not into or _AT_ONCE is None:
        return 0
    try:
        return os.preadv(fd, [into], offset, _AT_ONCE)
    except BlockingIOError:
        return 0


def start_of_file(path: Path, size: int) -> bytes:
    """The first `size` bytes of a file, as `read` gives them. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read(fd, size, 0)
    finally:
        os.close(fd)


def replace(path: Path, data: bytes) -> None:
    """Put a file with `data` in the place of `path`, durable on return: it is the old one or the new one, as a whole.

    Raises OSError.
    """
    scratch = path.with_name(f"{path.name}.tmp")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the creation and renaming of files in `directory` durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""Every step by which a process makes something durable, one after the other, and what a crash there would leave.

with Steps(folder) as steps:
    steps.before = look                # called before each step, with the step; it may raise OSError, or kill
    ...
    steps.state(step)                  # the files of `folder` as a crash just now leaves them, in several ways

A step is a write, sync, creation, renaming, cutting or deletion of a file in `folder`, or a COMMIT of SQL anywhere. The
functions of `os` are replaced for as long as the block lasts, so whatever must be seen has to look them up when it is
called. Writes through Python's files are not seen; their syncs and renamings are.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from unittest.mock import patch

import psycopg2
from psycopg2.extensions import connection as PostgresConnection  # noqa: N812

from relay.store import sqlite
from relay.store.database import Transaction

Files = dict[str, bytes]


class Step(NamedTuple):
    """What is about to be done: `name`, to the file called `file`; of a write also what and where."""

    name: str
    file: str
    data: bytes = b""
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.file}".strip()


class Steps:
    """Watches the steps in `folder`, and knows what of it is on the disk for certain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.before: Callable[[Step], None] = _nothing
        # What is synced: the bytes of files, and which names they have. Files are held open: their numbers come again.
        self._bytes: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        self._held: list[int] = []
        self._patches = [
            patch.multiple(
                os,
                open=self._open,
                write=self._write,
                pwrite=self._pwrite,
                fsync=self._sync_by(os.fsync),
                fdatasync=self._sync_by(os.fdatasync),
                replace=self._replace,
                unlink=self._on_path("unlink", os.unlink),
                truncate=self._on_path("truncate", os.truncate),
                posix_fallocate=self._on_fd("fallocate", os.posix_fallocate),
            ),
            patch.object(sqlite, "_transact", self._sqlite),
            patch.object(psycopg2, "connect", self._postgres(psycopg2.connect)),
        ]

    def __enter__(self) -> Steps:
        self.names_on_disk()
        for each in self._patches:
            each.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each in reversed(self._patches):
            each.stop()
        for fd in self._held:
            os.close(fd)
        self._held.clear()

    def names_on_disk(self) -> None:
        """Take everything that is in the folder now for durable."""
        for path in self.folder.iterdir() if self.folder.exists() else ():
            self._keep(os.open(path, os.O_RDONLY), path.name)

    def states(self, step: Step) -> dict[str, Files]:
        """What a crash before `step` may leave of the folder's files, by what kind of crash it is.

        `killed`: the kernel has all that was done. `torn`: and half of what would have been written. `lost`: after a
        power loss, what was synced alone; `unsynced`: and names of files are as they were given, whatever is in them.
        """
        now = {path.name: path.read_bytes() for path in self.folder.iterdir()} if self.folder.exists() else {}
        found = {"killed": now}
        if len(step.data) > 1:
            before = now.get(step.file, b"")
            half = before.ljust(step.offset, b"\0")[: step.offset] + step.data[: len(step.data) // 2]
            found["torn"] = now | {step.file: half + before[len(half) :]}
        found["lost"] = {name: self._bytes.get(number, b"") for name, number in self._names.items()}
        found["unsynced"] = {name: self._bytes.get((self.folder / name).stat().st_ino, b"") for name in now}
        return found

    def _step(self, name: str, path: str | os.PathLike[str], data: bytes = b"", offset: int = 0) -> None:
        self.count += 1
        self.before(Step(name, Path(path).name, data, offset))

    def _mine(self, path: str | os.PathLike[str]) -> bool:
        return Path(path).parent == self.folder

    def _keep(self, fd: int, name: str) -> None:
        self._held.append(fd)
        number = os.fstat(fd).st_ino
        self._bytes[number] = Path(f"/proc/self/fd/{fd}").read_bytes()
        self._names[name] = number

    def _open(self, path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_CREAT and self._mine(path) and not Path(path).exists():
            self._step("create", path)
        return _os_open(path, flags, *args, **options)

    def _write(self, fd: int, data: bytes) -> int:
        path = _path_of(fd)
        if self._mine(path):
            self._step("write", path, bytes(data), os.fstat(fd).st_size)
        return _os_write(fd, data)

    def _pwrite(self, fd: int, data: bytes, offset: int) -> int:
        path = _path_of(fd)
        if self._mine(path):
            self._step("write", path, bytes(data), offset)
        return _os_pwrite(fd, data, offset)

    def _sync_by(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def synced(fd: int) -> None:
            path = Path(_path_of(fd))
            if path == self.folder:
                self._step("sync", ".")
                sync(fd)
                self._names = {entry.name: entry.inode() for entry in os.scandir(path)}
            elif self._mine(path):
                self._step("sync", path)
                sync(fd)
                self._held.append(os.dup(fd))
                self._bytes[os.fstat(fd).st_ino] = path.read_bytes()
            else:
                sync(fd)

        return synced

    def _replace(self, source: Any, target: Any) -> None:
        if self._mine(target):
            self._step("rename", target)
        _os_replace(source, target)

    def _on_path(self, name: str, work: Callable[..., None]) -> Callable[..., None]:
        def done(path: Any, *args: Any, **options: Any) -> None:
            if self._mine(path) and Path(path).exists():
                self._step(name, path)
            work(path, *args, **options)

        return done

    def _on_fd(self, name: str, work: Callable[..., None]) -> Callable[..., None]:
        def done(fd: int, *args: Any) -> None:
            if self._mine(_path_of(fd)):
                self._step(name, _path_of(fd))
            work(fd, *args)

        return done

    def _sqlite(self, connection: sqlite3.Connection, work: Callable[[Transaction], Any]) -> Any:
        # As `sqlite._transact` does it, with a stop where the step is.
        connection.execute("BEGIN IMMEDIATE")
        result = work(sqlite.SqliteTransaction(connection))
        self._step("COMMIT", "")
        connection.execute("COMMIT")
        return result

    def _postgres(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        steps = self

        class Connection(PostgresConnection):
            def commit(self) -> None:
                steps._step("COMMIT", "")
                super().commit()

        return lambda *args, **options: connect(*args, connection_factory=Connection, **options)


_os_open, _os_write, _os_pwrite, _os_replace = os.open, os.write, os.pwrite, os.replace


def _path_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def _nothing(_: Step) -> None:
    pass

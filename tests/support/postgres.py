"""A private PostgreSQL cluster for tests: its own folder, user, socket and loopback port, gone when it is closed.

It sorts text as Danish does (`aa` after `z`): whatever relies on the order of bytes shows.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

import psycopg2

from tests.support.databases import wipe
from tests.support.http import free_ports

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
START_SECONDS = 30
CONNECTIONS = 60


class Databases:
    """The databases of a server on a loopback port, which other processes may use as well. `url(name)` addresses one of
    them, `create()` makes an empty one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._names = (f"test{os.getpid()}_{number}" for number in count(1))
        self._given_back: list[str] = []

    def url(self, name: str = "postgres") -> str:
        """The address of the database `name`."""
        return f"postgres://relay@127.0.0.1:{self.port}/{name}"

    def create(self) -> str:
        """The address of an empty database."""
        if self._given_back:
            return self._given_back.pop()
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def give_back(self, url: str) -> None:
        """Empty a database for the next who needs one: making one takes thirty times as long."""
        name = url.rpartition("/")[2]
        # A killed relay's sessions end by themselves, but not at once.
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        wipe(url)
        self._given_back.append(url)

    def execute(self, sql: str) -> None:
        """Run one statement as the superuser, outside a transaction."""
        connection = psycopg2.connect(self.url())
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
        finally:
            connection.close()


class Cluster(Databases):
    """A running server of its own, for `users` processes."""

    def __init__(self, users: int = 1) -> None:
        assert BINARIES, "PostgreSQL is not installed"
        super().__init__(free_ports(1)[0])
        self._connections = users * CONNECTIONS
        self._binaries = BINARIES[-1]
        self._server: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._user = other_user() if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="relay-postgres-"))
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        try:
            self._init()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._server
        return self._server.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._server = self._popen("postgres", "-D", self.folder / "data", output=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg2.OperationalError:
                assert self._server.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, f"no answer in {START_SECONDS} s"
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends its sessions, SIGQUIT is a crash."""
        if self._server:
            self._server.send_signal(how)
            self._server.wait(START_SECONDS)
            self._server = None

    def freeze(self) -> None:
        """Stop every process of the server in its tracks: connections stay, new ones are taken, nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on where it was."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._server
        pid = self._server.pid
        # The postmaster first: it must not start what would be missed here.
        for process in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def close(self) -> None:
        """Stop the server and remove all it had."""
        if self._server:
            self.thaw()
        # In order it would first write all that goes with the folder.
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _init(self) -> None:
        with (self.folder / "initdb.log").open("ab") as log:
            made = self._popen(
                *("initdb", "-D", self.folder / "data", "-U", "relay", "--auth=trust", "--no-sync", "--encoding=UTF8"),
                *("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=da"),
                output=log,
            ).wait(120)
        assert made == 0, (self.folder / "initdb.log").read_text()
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "port": self.port,
            "unix_socket_directories": f"'{self.folder}'",
            "max_connections": self._connections,
            "shared_buffers": "'64MB'",
            "fsync": "off",
            "full_page_writes": "off",
        }
        with (self.folder / "data" / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def _popen(self, program: str, *arguments: str | Path, output: BinaryIO | int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._binaries / program, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
        )


def other_user() -> pwd.struct_passwd:
    """Whom a server runs as that refuses to run as root."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")

"""A PgBouncer before a PostgreSQL server, on a loopback port, for tests; gone when it is closed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg2

from tests.support.http import free_ports
from tests.support.postgres import Databases, other_user
from tests.support.tools import tool

START_SECONDS = 30


def _program() -> str | None:
    """PgBouncer; None when it is not there, or was unpacked where its libraries are not."""
    found = tool("pgbouncer")
    if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode:
        return None
    return found


PROGRAM = _program()


class Pooler:
    """Passes statements on to `server`, as the mode says: `session`, `transaction` or `statement`."""

    def __init__(self, server: Databases, mode: str) -> None:
        assert PROGRAM, "PgBouncer is not installed"
        self._port = free_ports(1)[0]
        self._folder = Path(tempfile.mkdtemp(prefix="relay-pooler-"))
        user = other_user() if os.geteuid() == 0 else None
        file = self._folder / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port} user=relay\n[pgbouncer]\npool_mode = {mode}\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self._port}\nunix_socket_dir =\nauth_type = any\n"
        )
        if user:
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        self._process = subprocess.Popen(
            [PROGRAM, "-q", file],
            stdin=subprocess.DEVNULL,
            stdout=(self._folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def url(self, url: str) -> str:
        """The address through the pooler of the server's database at `url`."""
        return f"postgres://relay@127.0.0.1:{self._port}/{url.rpartition('/')[2]}"

    def close(self) -> None:
        """End the pooler and its connections."""
        self._process.kill()
        self._process.wait(START_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return psycopg2.connect(self.url("/postgres")).close()
            except psycopg2.OperationalError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < deadline, f"no answer in {START_SECONDS} s"
                time.sleep(0.05)

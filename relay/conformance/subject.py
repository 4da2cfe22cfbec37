"""The relay that is tested: one that runs, or one that is started for it; asked over HTTP, as anybody and as its admin.

Starting it takes what relays of this family read from the environment. Anything else that a relay needs is given with
`--env`.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

START_SECONDS = 60.0
STOP_SECONDS = 40.0
REQUEST_SECONDS = 20.0
PASSWORD = "conformance"
SYNC = "/xrpc/com.atproto.sync."

_ADD_HOST = """
    INSERT INTO host (created_at, updated_at, hostname, no_ssl, account_limit, trusted, status, last_seq, account_count)
    VALUES (CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, ?, 1, 1000000, 0, 'active', -1, 0)
"""


class SubjectError(Exception):
    """The relay cannot be tested: it does not start, does not answer, or takes no hosts."""


class Answer(NamedTuple):
    """What came back. `value` is the JSON, None when there is none; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    value: Any


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class Subject:
    """A relay at an address. Without a password, what needs an admin is not tested."""

    def __init__(self, url: str, password: str | None) -> None:
        self.url = url.rstrip("/")
        self.password = password
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

    @property
    def firehose(self) -> str:
        """Where its WebSockets are."""
        return "ws" + self.url.removeprefix("http")

    def get(self, method: str, **query: object) -> Answer:
        """A query of `com.atproto.sync`."""
        return self.request("GET", f"{SYNC}{method}?{urllib.parse.urlencode(query)}")

    def post(self, method: str, body: Mapping[str, Any]) -> Answer:
        """A procedure of `com.atproto.sync`."""
        return self.request("POST", SYNC + method, body)

    def admin(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """A route of the admin API that the reference relay has, as an admin."""
        token = base64.b64encode(f"admin:{self.password}".encode()).decode()
        return self.request("POST" if body is not None else "GET", f"/admin/{path}", body, f"Basic {token}")

    def request(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        authorization: str | None = None,
        origin: str | None = None,
    ) -> Answer:
        """Any request. OSError when the relay is not there."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if authorization:
            headers["Authorization"] = authorization
        if origin:
            headers["Origin"] = origin
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + target, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as response:
                return _answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read())

    def connect_to(self, hosts: Sequence[str]) -> None:
        """Have it subscribe to the hosts. Raises SubjectError when it refuses them."""
        for host in hosts:
            if self.password:
                answer = self.admin("pds/requestCrawl", {"hostname": f"http://{host}"})
            else:
                answer = self.post("requestCrawl", {"hostname": f"http://{host}"})
            if answer.status != 200:
                raise SubjectError(f"it does not crawl {host}: HTTP {answer.status} {answer.value}")

    def close(self) -> None:
        """Nothing of it is ours."""


class StartedSubject(Subject):
    """A relay that is started by a command, in a folder that it makes, on ports of its own."""

    def __init__(self, command: str, folder: Path, directory: str, settings: Mapping[str, str]) -> None:
        folder.mkdir()
        api, metrics = _free_ports(2)
        super().__init__(f"http://127.0.0.1:{api}", PASSWORD)
        self._command = shlex.split(command)
        self._folder = folder
        self._environment = {
            **os.environ,
            **environment(folder, directory),
            "RELAY_API_BIND": f"127.0.0.1:{api}",
            "RELAY_METRICS_LISTEN": f"127.0.0.1:{metrics}",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers. Raises SubjectError."""
        with (self._folder / "relay.log").open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log
                )
            except OSError as error:
                raise SubjectError(f"{self._command[0]} does not start: {error}") from None
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.request("GET", "/xrpc/_health").status == 200:
                    return
            except OSError:
                pass
            if self._process.poll() is not None:
                raise SubjectError(f"it ended with {self._process.returncode}:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise SubjectError(f"it does not answer at {self.url}/xrpc/_health:\n{self._last_lines()}")
            time.sleep(0.1)

    def connect_to(self, hosts: Sequence[str]) -> None:
        """Ask it to crawl the hosts; one that refuses loopback finds them in its table of hosts after a new start."""
        try:
            super().connect_to(hosts)
        except SubjectError as refused:
            database = self._folder / "relay.sqlite"
            if not database.exists():
                raise
            self._stop()
            try:
                with closing(sqlite3.connect(database)) as connection, connection:
                    connection.executemany(_ADD_HOST, [(host,) for host in hosts])
            except sqlite3.Error:
                raise refused from None
            self.start()

    def close(self) -> None:
        """End it at once: nothing of it is used again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(5)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._process = None

    def _last_lines(self) -> str:
        text = (self._folder / "relay.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-10:])


def environment(folder: Path, directory: str) -> dict[str, str]:
    """The settings with which a relay can be tested."""
    return {
        "RELAY_PLC_HOST": directory,
        "RELAY_ALLOW_INSECURE_HOSTS": "true",
        "RELAY_ADMIN_PASSWORD": PASSWORD,
        "RELAY_DEFAULT_ACCOUNT_LIMIT": "1000000",
        "RELAY_NEW_HOSTS_PER_DAY_LIMIT": "1000",
        "RELAY_MAX_CONSUMERS_PER_ADDRESS": "100",
        "DATABASE_URL": f"sqlite://{folder}/relay.sqlite",
        "RELAY_PERSIST_DIR": f"{folder}/persist",
    }


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    try:
        value = json.loads(body) if body else None
    except ValueError:
        value = None
    return Answer(status, {name.lower(): text for name, text in headers.items()}, value)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports

"""rsky's relay: patched in a copy of the checkout that `RSKY_DIR` names, and built there with cargo.

Its directory, its port and TLS to hosts are fixed in its source, so a few lines are replaced before the build: `PATCH`
has all of them. With them it knows hosts without TLS only: it trusts no certificate but those of public authorities.
The relay keeps its data in the folder that it is started in, and learns its hosts by `requestCrawl` alone. Used by
`tests.bench.peers`.
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.network.measure import Fleet
from tests.bench.peers.contestant import Contestant
from tests.bench.peers.patching import replace_lines
from tests.support.postgres import Cluster

BUILD_SECONDS = 3600

# Below rsky-relay/src.
PATCH = (
    (
        "server/server.rs",
        'TcpListener::bind(format!("127.0.0.1:{PORT}"))?',
        'TcpListener::bind(std::env::var("RELAY_API_BIND").unwrap_or_else(|_| format!("127.0.0.1:{PORT}")))?',
    ),
    ("crawler/connection.rs", 'format!("wss://{hostname}/xrpc/{path}")', 'format!("ws://{hostname}/xrpc/{path}")'),
    (
        "validator/resolver.rs",
        'format!("{PLC_URL}/did:plc:{plc}")',
        'format!("{}/did:plc:{plc}", std::env::var("RELAY_PLC_HOST").unwrap_or_else(|_| PLC_URL.to_owned()))',
    ),
    ("validator/resolver.rs", ".https_only(true)", ""),
    # SQLite takes the two flags together for a mistake, and the mirror is there.
    ("validator/resolver.rs", "flag | OpenFlags::SQLITE_OPEN_CREATE", "flag"),
    ("validator/resolver.rs", 'endpoint.strip_prefix("https://")?', 'endpoint.strip_prefix("http://")?'),
)

# What it reads of a mirror of the directory, which is empty here but for the one operation that it wants to find.
MIRROR = """
    CREATE TABLE plc_operations (cid TEXT, did TEXT, created_at TEXT, nullified BOOLEAN, operation BLOB);
    INSERT INTO plc_operations VALUES ('', '', '2020-01-01T00:00:00.000Z', false, '{}');
    CREATE TABLE plc_keys (did TEXT PRIMARY KEY, pds_endpoint TEXT, pds_key TEXT);
    PRAGMA journal_mode = WAL;
"""


def missing() -> str | None:
    """Why rsky cannot take part, None when it can."""
    if not os.environ.get("RSKY_DIR"):
        return "RSKY_DIR names no checkout"
    if not Path(os.environ["RSKY_DIR"], "rsky-relay").is_dir():
        return f"there is no rsky-relay in {os.environ['RSKY_DIR']}"
    if not shutil.which("cargo"):
        return "cargo is not installed"
    return None


def built(cache: Path) -> Path:
    """The binary from a patched copy of the checkout. Raises ValueError when `PATCH` does not fit or cargo fails."""
    copy = cache / "rsky"
    checkout = Path(os.environ["RSKY_DIR"])
    # The sources are written anew, with their times, and the objects stay: cargo builds what has changed.
    shutil.copytree(checkout, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("target", ".git", "node_modules"))
    replace_lines(copy / "rsky-relay" / "src", PATCH, "rsky", Path(__file__))
    target = Path(os.environ.get("CARGO_TARGET_DIR", copy / "target"))
    command = ["cargo", "build", "--release", "--locked", "--package", "rsky-relay"]
    try:
        subprocess.run(command, cwd=copy, check=True, timeout=BUILD_SECONDS)
    except subprocess.SubprocessError as error:
        raise ValueError(f"rsky could not be built: {error}") from None
    return target / "release" / "rsky-relay"


def build_of() -> str:
    """The commit of the checkout and the version of the compiler."""
    checkout = os.environ["RSKY_DIR"]
    commit = _printed("git", "-C", checkout, "rev-parse", "--short=12", "HEAD")
    return f"rsky {commit}, {_printed('rustc', '--version')}"


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


class Rsky(Contestant):
    """rsky's relay as it is when it drops what it cannot verify; it has no server database."""

    def __init__(
        self, binary: Path, settings: Mapping[str, str], folder: Path, plc: str, cluster: Cluster | None = None
    ) -> None:
        assert cluster is None
        strict = {"RELAY_LENIENT_VALIDATION": "0", "RELAY_DISCOVERY_UPSTREAMS": "", "RUST_LOG": "warn"}
        command = ["env", f"--chdir={folder}", str(binary), "--no-plc-export"]
        super().__init__(command, {**strict, **settings}, folder, plc)
        with closing(sqlite3.connect(folder / "plc_directory.db")) as mirror:
            mirror.executescript(MIRROR)

    def start_with(self, fleet: Fleet) -> None:
        self.restart(fleet)

    def restart(self, fleet: Fleet) -> None:
        self.process.start()
        for host in fleet.hosts:
            self._request_crawl(host.removeprefix("http://"))
        fleet.wait_subscribed()

    def _request_crawl(self, hostname: str) -> None:
        """Head and body as one: it reads a request once."""
        body = f'{{"hostname":"{hostname}"}}'
        head = f"POST /xrpc/com.atproto.sync.requestCrawl HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            connection.sendall((head + body).encode())
            answer = connection.recv(4096)
        assert b" 200 " in answer, answer

"""The reverse proxies' example files, run by the proxies themselves before a relay; only ports and names differ."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from relay.atproto import frames
from tests.support.certificate import make_certificate
from tests.support.child import Child
from tests.support.http import free_ports
from tests.support.pds import FakePds, identity_frame
from tests.support.plc import FakePlc
from tests.support.relay_process import PASSWORD, ROOT, RelayProcess
from tests.support.repo import RepoBuilder, SigningKey, account_did, did_document
from tests.support.tools import tool

# A client that the proxies know from themselves, on any Linux: all of 127.0.0.0/8 is loopback.
STRANGER = ("127.0.0.2", 0)
NOBODY = {"X-Forwarded-For": "203.0.113.9"}


class Proxy:
    """A running proxy."""

    def __init__(self, port: int, child: Child, pem: Path) -> None:
        self.port, self.child = port, child
        self.tls = ssl.create_default_context(cafile=str(pem))

    def request(self, method: str, path: str, body: bytes | None = None, *, source: tuple[str, int] = STRANGER) -> int:
        """The status of an answer."""
        client = http.client.HTTPSConnection(
            "localhost", self.port, source_address=source, context=self.tls, timeout=10
        )
        token = b64encode(f"admin:{PASSWORD}".encode()).decode()
        client.request(method, path, body, {"Authorization": f"Basic {token}", **NOBODY})
        status = client.getresponse().status
        client.close()
        return status

    def wait(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            assert self.child.running and time.monotonic() < deadline, self.child.lines
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    with FakePlc() as plc, FakePds() as pds:
        repo = RepoBuilder(account_did(1), SigningKey.create())
        plc.documents[repo.did] = did_document(repo.did, repo.key, pds.url)
        process = RelayProcess(tmp_path / "relay", {"RELAY_PLC_HOST": plc.url})
        process.start()
        process.crawl(pds.url)
        pds.publish(1, identity_frame(1, repo.did))
        process.wait_metric("relay_log_last_seq", 1)
        yield process
        process.close()


@pytest.fixture(params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path, relay: RelayProcess) -> Iterator[Proxy]:
    program = tool(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed: `make test-setup` does that")
    pem = make_certificate(tmp_path, "localhost")
    plain, tls = free_ports(2)
    upstream = relay.url.removeprefix("http://")
    command = (nginx if request.param == "nginx" else caddy)(program, tmp_path, plain, tls, upstream, pem)
    child = Child(command, env={"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)})
    running = Proxy(tls, child, pem)
    running.wait()
    yield running
    # Killed, nginx would leave its workers behind.
    child.stop()
    child.close()


def nginx(program: str, folder: Path, plain: int, tls: int, upstream: str, pem: Path) -> list[str]:
    site = (ROOT / "conf" / "nginx.conf").read_text()
    for said, here in {
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ssl;": f"listen 127.0.0.1:{tls} ssl;",
        "relay.example.com;": "localhost;",
        "127.0.0.1:2470": upstream,
    }.items():
        assert said in site
        site = site.replace(said, here)
    site = re.sub(r"listen \[::\].*;", "", site)
    site = re.sub(r"(ssl_certificate(?:_key)?)\s.*;", rf"\1 {pem};", site)
    (folder / "site").write_text(site)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} pid {folder}/pid; error_log stderr; events {{ worker_connections 64; }}"
        f" http {{ access_log off; {paths} include {folder}/site; }}"
    )
    return [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(program: str, folder: Path, plain: int, tls: int, upstream: str, pem: Path) -> list[str]:
    site = (ROOT / "conf" / "Caddyfile").read_text()
    for said, here in {
        "\n{\n": f"\n{{\n\tadmin off\n\thttp_port {plain}\n\tauto_https disable_redirects\n",
        "\nrelay.example.com {": f"\nhttps://localhost:{tls} {{\n\tbind 127.0.0.1\n\ttls {pem} {pem}",
        "127.0.0.1:2470": upstream,
    }.items():
        assert said in site
        site = site.replace(said, here)
    (folder / "Caddyfile").write_text(site)
    return [program, "run", "--config", str(folder / "Caddyfile")]


def test_the_firehose_is_passed_on_with_the_clients_address(proxy: Proxy, relay: RelayProcess) -> None:
    url = f"wss://localhost:{proxy.port}/xrpc/com.atproto.sync.subscribeRepos?cursor=0"
    with connect(url, ssl=proxy.tls, source_address=STRANGER, additional_headers=NOBODY) as stream:
        event = frames.decode(stream.recv(timeout=10, decode=False))
        assert isinstance(event, frames.Identity) and event.seq == 1
        (consumer,) = relay.admin("consumers/list")
        assert consumer["remote_addr"] == STRANGER[0]


def test_requests_are_passed_on_but_for_the_admins(proxy: Proxy) -> None:
    assert proxy.request("GET", "/xrpc/_health") == 200
    assert proxy.request("GET", "/xrpc/com.atproto.sync.listHosts") == 200
    assert proxy.request("GET", "/xrpc/com.atproto.sync.subscribeRepos") == 426
    for path in (
        "/admin/pds/list",
        "/admin/../admin/pds/list",
        "//admin/pds/list",
        "/%61dmin/pds/list",
        "/dash/",
        "/dash",
    ):
        assert proxy.request("GET", path) in (403, 404), path
    assert proxy.request("GET", "/admin/pds/list", source=("127.0.0.1", 0)) == 200
    large = b'{"hostname":"' + b"x" * 100_000 + b'"}'
    assert proxy.request("POST", "/xrpc/com.atproto.sync.requestCrawl", large) in (413, 502)

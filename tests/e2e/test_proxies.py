"""The reverse proxies' example files, run by the proxies themselves before a relay; only ports and names differ."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import statistics
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import Greenlet
from websockets.exceptions import InvalidStatus

from relay.atproto import frames
from tests.support.certificate import make_certificate
from tests.support.child import Child
from tests.support.http import call, free_ports
from tests.support.pds import FakePds, identity_frame
from tests.support.plc import FakePlc
from tests.support.present import present
from tests.support.relay_process import PASSWORD, ROOT, RelayProcess
from tests.support.repo import RepoBuilder, SigningKey, account_did, did_document
from tests.support.tools import tool
from tests.support.wait import PATIENCE
from tests.support.websocket import Connection, connect

# A client that the proxies know from themselves, on any Linux: all of 127.0.0.0/8 is loopback.
STRANGER = ("127.0.0.2", 0)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
NOBODY = {"X-Forwarded-For": "203.0.113.9"}


class Proxy:
    """A running proxy."""

    def __init__(self, port: int, child: Child, pem: Path) -> None:
        self.port, self.child = port, child
        self.tls = ssl.create_default_context(cafile=str(pem))

    def request(self, method: str, path: str, body: bytes | None = None, *, source: tuple[str, int] = STRANGER) -> int:
        """The status of an answer."""
        return self.answer(method, path, body, {}, source=source)[0]

    def answer(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], *, source: tuple[str, int]
    ) -> tuple[int, Message]:
        """The status and the fields of an answer."""
        client = http.client.HTTPSConnection(
            "localhost", self.port, source_address=source, context=self.tls, timeout=60
        )
        token = b64encode(f"admin:{PASSWORD}".encode()).decode()
        client.request(method, path, body, {"Authorization": f"Basic {token}", **NOBODY, **headers})
        response = client.getresponse()
        client.close()
        return response.status, response.headers

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            assert self.child.running and time.monotonic() < deadline, self.child.lines
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """One for all tests: none of them asks more of it than that it is there, and that others' requests have ended."""
    with FakePlc() as plc, FakePds() as pds:
        repo = RepoBuilder(account_did(1), SigningKey.create())
        plc.documents[repo.did] = did_document(repo.did, repo.key, pds.url)
        process = RelayProcess(tmp_path_factory.mktemp("relay"), {"RELAY_PLC_HOST": plc.url})
        process.start()
        process.crawl(pds.url)
        pds.publish(1, identity_frame(1, repo.did))
        process.wait_metric("relay_log_last_seq", 1)
        yield process
        process.close()


@pytest.fixture(params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path, relay: RelayProcess) -> Iterator[Proxy]:
    """A new one each time: it counts the requests of an address."""
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
    # The relay's address comes first: another port may begin with the same digits.
    for said, here in {
        "127.0.0.1:2470": upstream,
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ssl;": f"listen 127.0.0.1:{tls} ssl;",
        "relay.example.com;": "localhost;",
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
        "127.0.0.1:2470": upstream,
        "\n{\n": f"\n{{\n\tadmin off\n\thttp_port {plain}\n\tauto_https disable_redirects\n",
        "\nrelay.example.com {": f"\nhttps://localhost:{tls} {{\n\tbind 127.0.0.1\n\ttls {pem} {pem}",
    }.items():
        assert said in site
        site = site.replace(said, here)
    (folder / "Caddyfile").write_text(site)
    return [program, "run", "--config", str(folder / "Caddyfile")]


def subscribed(proxy: Proxy, url: str, **options: Any) -> Connection:
    """A stranger's connection to the firehose."""
    made = connect(url, ssl=proxy.tls, source_address=STRANGER, open_timeout=60, **options)
    assert isinstance(made, Connection)
    return made


def test_the_firehose_is_passed_on_with_the_clients_address(proxy: Proxy, relay: RelayProcess) -> None:
    url = f"wss://localhost:{proxy.port}/xrpc/com.atproto.sync.subscribeRepos?cursor=0"
    relay.wait_until(lambda: relay.admin("consumers/list") == [])
    with subscribed(proxy, url, additional_headers=NOBODY) as stream:
        event = frames.decode(stream.recv(timeout=60, decode=False))
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
        "///admin/pds/list",
        "/%61dmin/pds/list",
        "/dash/",
        "/dash",
    ):
        assert proxy.request("GET", path) in (403, 404), path
    assert proxy.request("GET", "/admin/pds/list", source=("127.0.0.1", 0)) == 200
    large = b'{"hostname":"' + b"x" * 100_000 + b'"}'
    assert proxy.request("POST", "/xrpc/com.atproto.sync.requestCrawl", large) in (413, 502)


EVIL = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}


def test_what_another_sites_page_sent_is_refused(proxy: Proxy, relay: RelayProcess) -> None:
    admin = ("127.0.0.1", 0)
    relay.admin("subs/setPerDayLimit?limit=50", method="POST")
    change = ("POST", "/admin/subs/setPerDayLimit?limit=7", b"")
    assert proxy.answer(*change, EVIL, source=admin)[0] == 403
    assert proxy.answer(*change, {"Sec-Fetch-Site": "same-site"}, source=admin)[0] == 403
    assert relay.admin("subs/perDayLimit")["limit"] != 7
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization", **EVIL}
    _, fields = proxy.answer("OPTIONS", "/admin/pds/list", None, asked, source=admin)
    assert not [name for name in fields if name.lower().startswith("access-control")]
    assert proxy.answer(*change, {}, source=admin)[0] == 200
    assert relay.admin("subs/perDayLimit")["limit"] == 7
    form = f"password={PASSWORD}".encode()
    assert proxy.answer("POST", "/dash/login", form, {**FORM, **EVIL}, source=admin)[0] == 403
    # A browser that says no more than where its page is from, at another port than 443.
    for origin, status in ((f"https://localhost:{proxy.port}", 303), ("https://localhost:1", 403)):
        assert proxy.answer("POST", "/dash/login", form, {**FORM, "Origin": origin}, source=admin)[0] == status


def test_the_dashboards_cookie_stays_on_https_and_its_pages_run_no_foreign_script(proxy: Proxy) -> None:
    form = f"password={PASSWORD}".encode()
    status, fields = proxy.answer(
        "POST", "/dash/login", form, {**FORM, "Sec-Fetch-Site": "same-origin"}, source=("127.0.0.1", 0)
    )
    assert status == 303
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/dash"} <= set(fields["Set-Cookie"].split("; "))
    for path in ("/dash/login", "/dash/", "/dash/hosts", "/dash/static/dash.js"):
        _, fields = proxy.answer("GET", path, None, {}, source=("127.0.0.1", 0))
        policy = fields["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, path


SUBSCRIBE = "/xrpc/com.atproto.sync.subscribeRepos"
UPGRADE = (
    f"GET {SUBSCRIBE} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()
CRAWL = b"POST /xrpc/com.atproto.sync.requestCrawl HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
ASK = b"GET /_healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def stranger(proxy: Proxy, *sent: bytes) -> Iterator[ssl.SSLSocket]:
    plain = socket.create_connection(("127.0.0.1", proxy.port), timeout=60, source_address=STRANGER)
    with proxy.tls.wrap_socket(plain, server_hostname="localhost") as sock:
        for data in sent:
            sock.sendall(data)
        yield sock


def read_all(sock: ssl.SSLSocket) -> bytes:
    received = b""
    with suppress(OSError):
        while data := sock.recv(1 << 16):
            received += data
    return received


def flood(proxy: Proxy, head: bytes, block: bytes) -> bytes:
    """Send `head`, then `block` again and again until the connection is closed; all that came."""
    with stranger(proxy, head) as sock:
        if head is UPGRADE:
            assert b" 101 " in sock.recv(4096)

        def send() -> None:
            with suppress(OSError):
                while True:
                    sock.sendall(block)
                    time.sleep(0)

        sending = gevent.spawn(send)
        received = read_all(sock)
        sending.kill()
        return received


def others_are_answered(relay: RelayProcess, during: list[Greenlet[..., Any]], times: int) -> None:
    """The relay's own port answers somebody else so often, or until all of `during` have ended, as if they were not
    there: seconds are what no busy machine makes of some milliseconds. Figures are for `tests.bench.strangers`.
    """
    waits = []
    for _ in range(times):
        if all(greenlet.ready() for greenlet in during):
            break
        began = time.monotonic()
        assert call(f"{relay.url}/_healthz", timeout=60).status == 200
        waits.append(time.monotonic() - began)
        time.sleep(0.02)
    assert not waits or statistics.median(waits) < PATIENCE, waits


@pytest.mark.parametrize("frame", [b"\x89\x80\0\0\0\0", b"\x82\x80\0\0\0\0"], ids=["pings", "messages"])
def test_consumers_that_flood_are_closed(proxy: Proxy, relay: RelayProcess, frame: bytes) -> None:
    before = relay.metric("relay_consumers_ended_total", reason="websocket-flood")
    flooding = [gevent.spawn(flood, proxy, UPGRADE, frame * 500) for _ in range(10)]
    others_are_answered(relay, flooding, 500)
    gevent.joinall(flooding, timeout=120)
    assert all(greenlet.ready() for greenlet in flooding)
    # The relay counts one that has gone when it is done with it.
    relay.wait_until(
        lambda: relay.metric("relay_consumers_ended_total", reason="websocket-flood") == before + len(flooding)
    )


@pytest.mark.parametrize(
    ("head", "block"),
    [
        (ASK, ASK * 100),
        (CRAWL + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 500),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n", b"x" * 65536),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: " + b"x" * 7000 + b"\r\n"),
    ],
    ids=["requests", "chunks", "a body", "a head"],
)
def test_clients_without_end_slow_nobody(proxy: Proxy, relay: RelayProcess, head: bytes, block: bytes) -> None:
    flooding = [gevent.spawn(flood, proxy, head, block) for _ in range(5)]
    others_are_answered(relay, flooding, 40)
    gevent.killall(flooding)
    assert call(f"{relay.url}/_healthz", timeout=60).status == 200


def slowly_sent(proxy: Proxy) -> bytes:
    """What a request is answered whose body comes a byte now and then; nothing if it is only cut off."""
    with stranger(proxy, CRAWL + b"Content-Length: 60000\r\n\r\n") as sock:

        def send() -> None:
            with suppress(OSError):
                while True:
                    sock.sendall(b"{")
                    time.sleep(0.5)

        sending = gevent.spawn(send)
        try:
            return sock.recv(4096)
        except ConnectionError:
            return b""
        finally:
            sending.kill()


def test_slow_bodies_take_no_places_of_others(proxy: Proxy, relay: RelayProcess) -> None:
    """nginx keeps a body until it is whole; Caddy passes it on as it comes, and waits for it no longer than the relay.

    A consumer stays for longer than that.
    """
    with subscribed(proxy, f"wss://localhost:{proxy.port}{SUBSCRIBE}") as consumer:
        slow = [gevent.spawn(slowly_sent, proxy) for _ in range(30)]
        others_are_answered(relay, slow, 40)
        assert proxy.request("GET", "/_healthz") == 200
        if "caddy" in str(proxy.child.process.args[0]):  # type: ignore[index]
            gevent.joinall(slow, timeout=120, raise_error=True)
            assert {present(greenlet.value)[9:12] for greenlet in slow} <= {b"408", b"502", b"504", b""}
        gevent.killall(slow)
        assert consumer.ping().wait(60)


@pytest.mark.parametrize("upgrade", [b"foo", b"h2c", b"websocket"])
@pytest.mark.parametrize("coding", ["a length", "chunks", "chunks and more"])
def test_a_body_on_a_request_to_upgrade_is_not_the_next_clients_request(
    proxy: Proxy, upgrade: bytes, coding: str
) -> None:
    body = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 20
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    if coding != "a length":
        length = b"Transfer-Encoding: chunked\r\n\r\n"
        # What follows the last chunk is a request of this client, and of nobody else.
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + (body if coding == "chunks and more" else b"")
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    wanted = b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n" + key
    subscribe = f"GET {SUBSCRIBE} HTTP/1.1\r\nHost: localhost\r\n".encode()
    for head in (CRAWL, subscribe):
        with stranger(proxy, head + wanted + length + body) as sock:
            assert sock.recv(4096).startswith(b"HTTP/1.1 4")
            for _ in range(10):
                assert proxy.request("GET", "/_healthz") == 200


def test_a_bad_cursor_is_told_before_the_upgrade(proxy: Proxy) -> None:
    for cursor in ("x", "-1", "1x&cursor=2"):
        with pytest.raises(InvalidStatus) as refused:
            subscribed(proxy, f"wss://localhost:{proxy.port}{SUBSCRIBE}?cursor={cursor}")
        assert refused.value.response.status_code == 400
        assert b"InvalidRequest" in (refused.value.response.body or b"")


def test_a_base_address_may_end_with_a_slash(proxy: Proxy) -> None:
    assert proxy.request("GET", "//xrpc/com.atproto.sync.listHosts") == 200
    url = f"wss://localhost:{proxy.port}/{SUBSCRIBE}?cursor=0"
    with subscribed(proxy, url) as stream:
        assert stream.recv(timeout=60)

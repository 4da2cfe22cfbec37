"""What strangers do to the API's port: requests without end, bodies without end, heads without end, and nonsense."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import gevent
import pytest
from gevent.event import Event
from prometheus_client import REGISTRY

from relay.admin.actions import Admin
from relay.web import http_connection
from relay.web.server import ApiConnection
from tests.support.fixtures import StartWeb
from tests.support.logs import logged
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.wait import until
from tests.support.web import Web
from tests.support.websocket import connect

CRAWL = b"POST /xrpc/com.atproto.sync.requestCrawl HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HEALTHZ = b"GET /_healthz HTTP/1.1\r\nHost: x\r\n\r\n"
# How long others may wait at worst on a busy machine; without bounds it would be for as long as the client likes.
PATIENCE = 3.0


@contextmanager
def client(web: Web, *sent: bytes, timeout: float = 10, of: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", web.server.port), timeout, (of, 0)) as sock:
        for data in sent:
            sock.sendall(data)
        yield sock


def answer(sock: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, response.read()


def answers(web: Web, data: bytes) -> list[int]:
    """The statuses of all answers to `data`, until the relay closes the connection."""
    with client(web, data) as sock:
        sock.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionError):
            while got := sock.recv(1 << 16):
                received += got
    return [int(piece[:3]) for piece in received.split(b"HTTP/1.1 ")[1:]]


def others(web: Web, seconds: float) -> list[float]:
    """How long requests of somebody else took, on new connections."""
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        with client(web, HEALTHZ) as sock:
            assert answer(sock)[0] == 200
        took.append(time.monotonic() - began)
        gevent.sleep(0.01)
    return sorted(took)


@contextmanager
def working(*work: Callable[[], None]) -> Iterator[list[gevent.Greenlet[..., None]]]:
    greenlets = [gevent.spawn(each) for each in work]
    try:
        yield greenlets
    finally:
        gevent.killall(greenlets)


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("relay_http_refused_total", {"reason": reason}) or 0.0


@pytest.mark.parametrize("clients", [1, 20])
def test_clients_that_pipeline_without_end_take_turns_with_others(web: Web, clients: int) -> None:
    """The server's side alone: a whole block of requests is there whenever it looks."""
    served = []

    def pipeline() -> None:
        with client(web) as sock:

            def ask() -> None:
                with suppress(OSError):
                    while True:
                        sock.sendall(HEALTHZ * 200)

            asking = gevent.spawn(ask)
            try:
                while data := sock.recv(1 << 18):
                    served.append(data.count(b"HTTP/1.1 200"))
            finally:
                asking.kill()

    with working(*[pipeline] * clients):
        until(lambda: sum(served) > 100)
        took = others(web, 1.0)
    assert took[len(took) * 9 // 10] < PATIENCE, took[-5:]


def test_a_client_that_does_not_wait_for_its_answers_is_put_off(web: Web) -> None:
    began = time.monotonic()
    assert answers(web, HEALTHZ * 60) == [200] * 60
    assert time.monotonic() - began > 0.7
    before = web.server._server.pipelined._free_at
    with client(web) as sock:
        for _ in range(60):
            sock.sendall(HEALTHZ)
            assert answer(sock)[0] == 200
    assert web.server._server.pipelined._free_at == before


def test_requests_that_come_together_are_answered_in_order(web: Web) -> None:
    assert answers(web, HEALTHZ + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + HEALTHZ) == [200, 404, 200]


@pytest.mark.parametrize(
    ("head", "block", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n", b"x" * 65536, 413),
        (b"POST /admin/pds/block HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n", b"x" * 65536, 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 4000, 413),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"8000\r\n" + b"x" * 32768 + b"\r\n",
            413,
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer: x\r\n" * 4000, 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n" * 4000, 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: " + b"x" * 60000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: x\r\n" * 10000, 431),
        (b"GET /", b"x" * 65536, 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", b"x" * 65536, 414),
        (b"GET /_healthz?" + b"a&" * 101 + b" HTTP/1.1\r\n\r\n", b"x" * 65536, 400),
    ],
    ids=[
        "length",
        "unauthorized",
        "crumbs",
        "chunks",
        "trailers",
        "nonsense",
        "a long field",
        "fields",
        "a long line",
        "target",
        "query",
    ],
)
def test_what_has_no_end_is_refused_and_the_connection_closed(web: Web, head: bytes, block: bytes, status: int) -> None:
    with client(web, head) as sock:

        def feed() -> None:
            with suppress(OSError):
                while True:
                    sock.sendall(block)

        with working(feed) as (feeding,):
            assert answer(sock)[0] == status
            took = others(web, 0.3)
            feeding.join(5)
            assert feeding.ready(), "it takes everything"
    assert took[len(took) * 9 // 10] < PATIENCE, took[-5:]


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (CRAWL + b"Content-Length: 60000\r\n\r\n", b"{"),
        (CRAWL + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
        (b"GET / HTTP/1.1\r\n", b"X: x\r\n"),
        (b"G", b""),
        (b"", b""),
    ],
    ids=["body", "chunks", "head", "nothing more", "nothing"],
)
def test_there_is_a_deadline_for_the_whole_request(
    web: Web, monkeypatch: pytest.MonkeyPatch, head: bytes, piece: bytes
) -> None:
    monkeypatch.setattr(ApiConnection, "head_seconds", 0.5)
    monkeypatch.setattr(ApiConnection, "body_seconds", 0.5)
    began = time.monotonic()
    with client(web, head, timeout=60) as sock:

        def drip() -> None:
            with suppress(OSError):
                while True:
                    gevent.sleep(0.05)
                    sock.sendall(piece)

        with working(drip):
            received = sock.recv(4096)
    assert received.startswith(b"HTTP/1.1 408 ") or (not head and not received)
    assert 0.4 < time.monotonic() - began < 2.5 * PATIENCE


@pytest.mark.parametrize("floods", [False, True])
def test_one_that_is_refused_is_waited_for_no_longer_than_it_takes_to_read_why(
    web: Web, monkeypatch: pytest.MonkeyPatch, floods: bool
) -> None:
    monkeypatch.setattr(http_connection, "LINGER_SECONDS", 600.0 if floods else 0.3)
    monkeypatch.setattr(http_connection, "LINGER_BYTES", 1000 if floods else 1 << 40)
    with client(web, b"BREW / HTTP/1.1\r\n\r\n") as sock:
        assert answer(sock)[0] == 501
        if floods:
            with suppress(OSError):
                sock.sendall(bytes(1 << 16))
        until(lambda: not len(web.server._server.connections), 5)


def test_a_connection_that_is_kept_may_rest(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ApiConnection, "head_seconds", 0.2)
    monkeypatch.setattr(ApiConnection, "idle_seconds", 1.0)
    with client(web, HEALTHZ) as sock:
        assert answer(sock)[0] == 200
        gevent.sleep(0.5)
        sock.sendall(HEALTHZ)
        assert answer(sock)[0] == 200
        assert sock.recv(1) == b""


def test_heads_are_bounded_in_memory(web: Web) -> None:
    """Each of many connections sends as much of a head as it can: no more than the bound is kept of any."""
    for _ in range(50):
        with client(web, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"x" * 12000) as sock:
            with suppress(OSError):
                sock.sendall(b"x" * (1 << 20))
            assert answer(sock)[0] == 431


NONSENSE = {
    "a version without a minor number": b"GET / HTTP/1\r\n\r\n",
    "a version that is none": b"GET / HTTP/x.y\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(100) + b"\r\n\r\n",
    "105 fields": b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: 1\r\n" % number for number in range(105)) + b"\r\n",
    "a length that is no number": b"GET / HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a broken chunk": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a field without a name": b"GET / HTTP/1.1\r\n: x\r\nfoo\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "a method of nobody": b"BREW / HTTP/1.1\r\n\r\n",
    "a method that is none": b"\x00\x01 / HTTP/1.1\r\n\r\n",
    "no path": b"GET xrpc HTTP/1.1\r\n\r\n",
    "a host with an empty label": b"GET /dash/nothing HTTP/1.1\r\nHost: a..b\r\n\r\n",
    "a host with a long label": b"GET /dash/nothing HTTP/1.1\r\nHost: " + b"a" * 64 + b".example\r\n\r\n",
}


@pytest.mark.parametrize("request_", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_one_counted_line(
    web: Web, request_: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sum(refused(reason) for reason in ("head-malformed", "head-too-large", "body-malformed"))
    with caplog.at_level(logging.INFO):
        (status,) = answers(web, request_)
    assert status in (400, 431, 501, 505)
    assert sum(refused(reason) for reason in ("head-malformed", "head-too-large", "body-malformed")) == before + 1
    (message,) = logged(caplog)
    assert "\n" not in message and not any(record.exc_info for record in caplog.records)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "target", [b"/host/\xff", b"/xrpc/com.atproto.sync.getHostStatus?hostname=\xff", b"/_healthz?\xff"]
)
def test_bytes_that_are_no_text_are_no_fault_of_ours(web: Web, target: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (status,) = answers(web, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nOrigin: http://[::1\r\n\r\n")
    assert status in (200, 400, 404) and not logged(caplog)


def test_a_flood_of_nonsense_is_few_lines(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(40):
            assert answers(web, NONSENSE["a version without a minor number"]) == [400]
    messages = logged(caplog)
    assert len(messages) == 10 and "only counted" in messages[-1]


def test_a_client_that_goes_while_it_is_answered_leaves_no_traceback(
    web: Web, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        for sent in (HEALTHZ * 100, CRAWL + b"Content-Length: 5\r\n\r\n{", HEALTHZ[:10], b""):
            with client(web, sent) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gevent.sleep(0.1)
    assert not logged(caplog) and capfd.readouterr().err == ""


@pytest.mark.parametrize("upgrade", ["", "Connection: Upgrade\r\nUpgrade: foo\r\n", "Upgrade: h2c\r\n"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_read_once_whatever_the_request_wants_to_become(web: Web, upgrade: str, chunked: bool) -> None:
    body = b'{"hostname": "x"}' + b" " * 30_000
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(body)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    assert answers(web, CRAWL + upgrade.encode() + framing + b"\r\n" + sent + HEALTHZ * 3) == [400, 200, 200, 200]


@pytest.mark.parametrize("body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_request_for_a_websocket_with_a_body_is_refused_and_closed(web: Web, method: bytes, body: bytes) -> None:
    head = method + b" /xrpc/com.atproto.sync.subscribeRepos HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    head += b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    assert answers(web, head + body + HEALTHZ) == [400]
    assert not list(web.services.consumers)


@pytest.mark.parametrize(
    "target", ["/_healthz", "/admin/pds/list", "/xrpc/com.atproto.sync.listRepos", "/nothing", "/"]
)
def test_what_is_no_websocket_does_not_become_one(web: Web, target: str) -> None:
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    first, *later = answers(web, head.encode() + HEALTHZ)
    assert first in (400, 401, 404) and later in ([], [200])


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /_healthz HTTP/1.1\r\nHost: x\r\n" + b"Cookie: a=b\r\n" * 90,
        b"GET /_healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: " + b"127.0.0.1," * 1500 + b"\r\n",
        b"GET /_healthz HTTP/1.1\r\nHost: x\r\nConnection: " + b"a," * 7000 + b"\r\n",
        b"GET /_healthz HTTP/1.1\r\nHost: x\r\nRange: bytes=" + b"0-1," * 3000 + b"\r\n",
        b"GET /_healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n",
        b"HEAD /_healthz HTTP/1.1\r\nHost: x\r\n",
    ],
    ids=["cookies", "hops", "connection", "ranges", "expect", "head"],
)
def test_long_lists_in_fields_are_read_in_a_moment(web: Web, request_: bytes) -> None:
    began = time.thread_time()
    assert answers(web, request_ + b"\r\n") == [200]
    assert time.thread_time() - began < 0.05


def test_clients_that_leave_in_the_middle_of_long_answers_leave_nothing(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(20):
            with client(web, b"GET /host/ HTTP/1.1\r\nHost: x\r\n\r\n" * 20) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.recv(10)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: not len(web.server._server.connections))
    assert not logged(caplog)


def test_a_client_that_sends_no_more_is_answered(web: Web) -> None:
    assert answers(web, HEALTHZ * 2) == [200, 200]
    assert answers(web, HEALTHZ[:-2]) == []


def test_a_body_is_waited_for_when_the_client_asks_first(web: Web) -> None:
    with client(web, CRAWL + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n") as sock:
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        status, body = answer(sock)
        assert status == 400 and json.loads(body)["error"] == "InvalidRequest"
    with client(web, CRAWL + b"Content-Length: 70000\r\nExpect: 100-continue\r\n\r\n") as sock:
        assert answer(sock)[0] == 413
    # HTTP/1.0 has no such answer: a client of it would take it for the last word.
    old = CRAWL.replace(b"HTTP/1.1", b"HTTP/1.0")
    with client(web, old + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n") as sock:
        gevent.sleep(0.2)
        sock.sendall(b"{}")
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


def test_an_answer_is_one_piece(web: Web) -> None:
    """Else its second piece waits for the client to acknowledge the first, which clients put off for 40 ms."""
    kept = http.client.HTTPConnection("127.0.0.1", web.server.port, timeout=60)
    took = []
    for _ in range(20):
        began = time.monotonic()
        kept.request("GET", "/xrpc/com.atproto.sync.listHosts")
        kept.getresponse().read()
        took.append(time.monotonic() - began)
    kept.close()
    # All but the first would be late, and on a busy machine many are.
    assert sorted(took)[2] < 0.03
    with client(web, HEALTHZ) as sock:
        assert sock.recv(1 << 16).endswith(b'{"status":"ok"}\n')


def test_a_head_may_have_its_hundred_fields(web: Web) -> None:
    def ask(fields: int) -> list[int]:
        return answers(
            web, b"GET /_healthz HTTP/1.1\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(fields)) + b"\r\n"
        )

    assert ask(100) == [200]
    assert ask(101) == [431]


@pytest.mark.parametrize("slashes", ["//", "///"])
def test_a_base_address_may_end_with_a_slash(web: Web, slashes: str) -> None:
    web.publish(2)
    assert web.get(f"{slashes}xrpc/com.atproto.sync.listRepos").status == 200
    assert web.get(f"{slashes}_healthz?a=//b").status == 200
    with connect(web.stream.replace("/xrpc", f"{slashes}xrpc") + "?cursor=0") as stream:
        assert stream.recv(timeout=60)


def test_connections_of_one_address_are_bounded(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.web.server.CONNECTIONS_PER_ADDRESS", 3)
    web = start_web(trusted_proxies=())
    with busy(web, 3, monkeypatch), client(web, HEALTHZ) as sock:
        status, body = answer(sock)
        assert status == 429 and json.loads(body)["error"] == "RateLimitExceeded"
    # Consumers are not counted here, they have a bound of their own.
    until(lambda: not len(web.server._server.connections))
    with connect(web.stream), connect(web.stream), connect(web.stream), connect(web.stream):
        assert web.get("/_healthz").status == 200


def test_requests_of_one_address_through_a_proxy_are_bounded(
    start_web: StartWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.web.server.REQUESTS_PER_ADDRESS", 2)
    web = start_web()
    slow = CRAWL + b"X-Forwarded-For: 198.51.100.1\r\nContent-Length: 10\r\n\r\n"
    with client(web, slow) as first, client(web, slow):
        until(lambda: len(web.server._server.requests) == 2)
        with client(web, slow) as third:
            assert answer(third)[0] == 429
        with client(web, slow.replace(b"100.1", b"100.2") + b"{}        ") as other:
            assert answer(other)[0] == 400
        first.sendall(b"{}        ")
        assert answer(first)[0] == 400
        until(lambda: len(web.server._server.requests) == 1)
        with client(web, slow + b"{}        ") as third:
            assert answer(third)[0] == 400


def test_requests_of_one_address_beyond_a_rate_wait(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.web.server.REQUESTS_PER_SECOND", 5)
    monkeypatch.setattr("relay.web.server.REQUESTS_BURST", 2)
    web = start_web()

    def ask(address: str) -> float:
        began = time.monotonic()
        with client(web, HEALTHZ.replace(b"\r\n\r\n", f"\r\nX-Forwarded-For: {address}\r\n\r\n".encode())) as sock:
            assert answer(sock)[0] == 200
        return time.monotonic() - began

    crowd = [gevent.spawn(ask, f"2001:db8:0:1::{number}") for number in range(22)]
    gevent.sleep(0)
    alone = ask("2001:db8:0:2::1")
    slowest = max(greenlet.get(timeout=60) for greenlet in crowd)
    assert slowest > 3.5 and alone < slowest / 2
    # Whoever speaks to the relay itself without a proxy's word is nobody's crowd: a proxy may not say for whom it asks.
    began = time.monotonic()
    assert [web.get("/_healthz").status for _ in range(12)] == [200] * 12
    assert time.monotonic() - began < 2 * PATIENCE


def test_a_crowd_of_one_address_has_one_turn_where_others_have_one_each(web: Web) -> None:
    busy = HEALTHZ.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n")
    order: list[str] = []

    def ask(name: str, request: bytes) -> None:
        with client(web, request) as sock:
            assert answer(sock)[0] == 200
            order.append(name)

    crowd = [gevent.spawn(ask, "crowd", busy) for _ in range(80)]
    other = gevent.spawn(ask, "other", busy.replace(b"100.1", b"100.2"))
    gevent.joinall([*crowd, other], timeout=60)
    assert order.count("crowd") == 80 and order.index("other") < 60


def test_places_that_are_all_taken_are_told_of(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.web.server.REQUESTS_BESIDE_CONSUMERS", 2)
    monkeypatch.setattr("relay.web.server.MANY_CONNECTIONS", 1)
    monkeypatch.setattr("relay.web.server.SHORT_IDLE_SECONDS", 0.3)
    web = start_web()
    before = refused("too-many")
    with busy(web, 2, monkeypatch):
        with client(web, HEALTHZ) as third:
            assert answer(third)[0] == 429
        assert refused("too-many") == before + 1
    # Connections that rest end soon when there are many.
    with client(web, HEALTHZ) as one, client(web, HEALTHZ) as two:
        assert answer(one)[0] == answer(two)[0] == 200
        assert one.recv(1) == two.recv(1) == b""
    assert web.get("/_healthz").status == 200


@pytest.mark.parametrize("bound", ["CONNECTIONS_PER_ADDRESS", "REQUESTS_BESIDE_CONSUMERS"])
@pytest.mark.parametrize("sent", [b"", HEALTHZ[:8], HEALTHZ, CRAWL + b"Content-Length: 10\r\n\r\n"])
def test_who_asks_for_nothing_gives_way_to_who_does(
    start_web: StartWeb, monkeypatch: pytest.MonkeyPatch, bound: str, sent: bytes
) -> None:
    """No request yet, a part of one, none after the first, or a part of a body."""
    monkeypatch.setattr(f"relay.web.server.{bound}", 3)
    web = start_web(trusted_proxies=())
    before = refused("gave-way")
    with client(web, sent) as oldest, client(web, sent) as second, client(web, sent) as third:
        for each in (oldest, second, third) if sent == HEALTHZ else ():
            assert answer(each)[0] == 200
        until(lambda: waiting(web) == 3)
        for _ in range(2):
            with client(web, HEALTHZ) as sock:
                assert answer(sock)[0] == 200
        assert oldest.recv(1) == b"" and refused("gave-way") > before
        until(lambda: len(web.server._server.connections) == 2)
        third.setblocking(False)
        with pytest.raises(BlockingIOError):
            third.recv(1)
    until(lambda: not len(web.server._server.connections))


def test_the_address_with_most_connections_gives_way(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.web.server.REQUESTS_BESIDE_CONSUMERS", 4)
    web = start_web(trusted_proxies=())
    with client(web) as modest, client(web, of="127.0.0.2") as oldest, ExitStack() as others:
        for _ in range(2):
            others.enter_context(client(web, of="127.0.0.2"))
        until(lambda: waiting(web) == 4)
        with client(web, HEALTHZ, of="127.0.0.3") as sock:
            assert answer(sock)[0] == 200
        assert oldest.recv(1) == b""
        modest.sendall(HEALTHZ)
        assert answer(modest)[0] == 200


def waiting(web: Web) -> int:
    return sum(map(len, web.server._server.waiting.values()))


@contextmanager
def busy(web: Web, count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For as long as the block lasts `count` clients wait for their answers."""
    go_on, asked = Event(), list[str]()

    def silent_host(_admin: Admin, _actor: object, hostname: str) -> None:
        asked.append(hostname)
        go_on.wait(60)

    monkeypatch.setattr(Admin, "public_crawl", silent_host)
    body = b'{"hostname": "pds.example.com"}'
    request = CRAWL + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with ExitStack() as clients:
        socks = [clients.enter_context(client(web, request)) for _ in range(count)]
        until(lambda: len(asked) == count)
        yield
        go_on.set()
        assert [answer(sock)[0] for sock in socks] == [200] * count

"""Forwarding to sibling relays: what is sent, what ends a loop, and that a dead sibling delays nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from gevent.queue import Queue

from relay.admin.siblings import PUBLIC_SIZE, QUEUE_SIZE, Forward, Siblings, forward_of
from relay.kit.metrics import FORWARDS
from relay.net.http import GuardedHttp

HTTP = GuardedHttp("test", allow_insecure=False)
TAKEDOWN = Forward("POST", "/admin/repo/takeDown?x=1", {"Authorization": "Bearer secret"}, b'{"did":"did:plc:a"}')


class Sibling:
    """A relay that notes what it is asked."""

    def __init__(self) -> None:
        self.requests: Queue[tuple[dict[str, Any], bytes]] = Queue()
        self._server = WSGIServer(("127.0.0.1", 0), self._answer, log=None)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.requests.put((environ, environ["wsgi.input"].read()))
        start_response("200 OK", [])
        return [b""]

    def close(self) -> None:
        self._server.stop(timeout=0.1)


@pytest.fixture
def sibling() -> Iterator[Sibling]:
    sibling = Sibling()
    yield sibling
    sibling.close()


def count(outcome: str) -> float:
    return float(FORWARDS.labels(outcome)._value.get())


def test_a_request_arrives_as_it_was_with_the_loop_mark(sibling: Sibling) -> None:
    siblings = Siblings(HTTP, [sibling.url + "/"])
    siblings.start()
    headers = {"Authorization": "Bearer secret", "Content-Type": "application/json", "Cookie": "no", "Host": "here"}
    siblings.forward(forward_of("POST", "/admin/pds/block?host=a.example", headers, b"{}", "HTTP/1.1"))
    environ, body = sibling.requests.get(timeout=60)
    siblings.stop()
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]) == (
        "POST",
        "/admin/pds/block",
        "host=a.example",
    )
    assert environ["HTTP_AUTHORIZATION"] == "Bearer secret" and body == b"{}"
    assert environ["HTTP_VIA"] == "1.1 atproto-relay"
    assert "HTTP_COOKIE" not in environ and environ["HTTP_HOST"] != "here"


@pytest.mark.parametrize("headers", [{"Via": "1.1 proxy, 1.1 ATProto-Relay"}, {"User-Agent": "x (atproto-relay)"}])
def test_what_a_relay_sent_is_not_sent_on(headers: dict[str, str]) -> None:
    assert forward_of("POST", "/admin/pds/block", headers, b"", "HTTP/1.1") is None


def test_a_dead_sibling_delays_no_other_and_its_queue_is_bounded(sibling: Sibling) -> None:
    with socket.create_server(("127.0.0.1", 0)) as dead:
        siblings = Siblings(HTTP, [f"http://127.0.0.1:{dead.getsockname()[1]}", sibling.url])
        siblings.start()
        dropped = count("dropped")
        for _ in range(QUEUE_SIZE + 10):
            siblings.forward(TAKEDOWN)
            sibling.requests.get(timeout=60)
        siblings.stop()
        assert 0 < count("dropped") - dropped <= 10


def test_what_the_public_asks_for_keeps_no_change_of_an_admin_back(
    sibling: Sibling, caplog: pytest.LogCaptureFixture
) -> None:
    siblings = Siblings(HTTP, [sibling.url])
    crawl = Forward("POST", "/xrpc/com.atproto.sync.requestCrawl", {}, b'{"hostname":"pds.example.com"}')
    changes = [f"/admin/pds/block?host=pds{number}.example.com" for number in range(3)]
    for _ in range(QUEUE_SIZE + 10):
        siblings.forward(crawl)
    for change in changes:
        siblings.forward(Forward("POST", change, {}, b""))
    siblings.start()
    arrived = [sibling.requests.get(timeout=60)[0] for _ in range(len(changes) + PUBLIC_SIZE)]
    siblings.stop()
    assert [environ["QUERY_STRING"] for environ in arrived[:3]] == [change.partition("?")[2] for change in changes]
    assert {environ["PATH_INFO"] for environ in arrived[3:]} == {crawl.target}
    assert caplog.records == []


def test_a_sibling_that_refuses_connections_is_counted_and_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    siblings = Siblings(HTTP, [f"http://127.0.0.1:{port}"])
    siblings.start()
    failed = count("failed")
    siblings.forward(TAKEDOWN)
    with gevent.Timeout(60):
        while count("failed") == failed:
            gevent.sleep(0.01)
    siblings.stop()


def test_siblings_are_written_as_hosts_are() -> None:
    """As the reference relay reads them."""
    for written, asked in (
        ("relay.example.com", "https://relay.example.com"),
        ("http://10.0.0.1:2470/", "http://10.0.0.1:2470"),
        ("localhost:2480", "http://localhost:2480"),
        ("https://localhost:2480", "https://localhost:2480"),
        ("wss://relay.example.com/", "https://relay.example.com"),
        ("WS://localhost:2480", "http://localhost:2480"),
    ):
        assert list(Siblings(HTTP, [written])._queues) == [asked], written


def test_a_local_sibling_without_a_scheme_is_told(sibling: Sibling) -> None:
    siblings = Siblings(HTTP, [sibling.url.replace("http://127.0.0.1", "localhost")])
    siblings.start()
    siblings.forward(TAKEDOWN)
    assert sibling.requests.get(timeout=60)[1] == TAKEDOWN.body
    siblings.stop()

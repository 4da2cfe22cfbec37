"""The guarded client against servers that misbehave, over real sockets."""

from __future__ import annotations

import gzip
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from relay.kit.errors import AddressRefused, HttpError
from relay.net import address
from relay.net.address import Address
from relay.net.http import GuardedHttp
from tests.support.strangers import RawServer, certificate, judge_forms, reply
from tests.support.wait import PATIENCE, until


def trusting_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[GuardedHttp, ssl.SSLContext]:
    """A client that trusts a certificate for localhost, and the context of a server that has it."""
    ca_file, context = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    return GuardedHttp("test", allow_insecure=True), context


@pytest.fixture
def http() -> GuardedHttp:
    """A client that may talk to loopback."""
    return GuardedHttp("test/1 (atproto-relay)", allow_insecure=True)


@pytest.fixture
def strict() -> GuardedHttp:
    """A client as the relay has it in public."""
    return GuardedHttp("test/1 (atproto-relay)", allow_insecure=False)


def _refusal(http: GuardedHttp, url: str, **options: Any) -> str:
    with pytest.raises(HttpError) as error:
        http.get(url, **options)
    return error.value.reason


def test_an_answer_comes_whole_and_the_connection_is_used_again(http: GuardedHttp) -> None:
    with RawServer(lambda sock: sock.sendall(reply(b"hello", headers=["X-Word: relay"]))) as server:
        for _ in range(3):
            response = http.get(f"{server.url}/path?q=1", headers={"X-Ask": "yes"})
            assert (response.status, response.body, response.headers["x-word"]) == (200, b"hello", "relay")
        assert server.connections == 1
        head = server.requests[0].decode()
    assert head.startswith("GET /path?q=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}\r\n" in head
    assert "User-Agent: test/1 (atproto-relay)\r\n" in head
    assert "X-Ask: yes\r\n" in head


def test_a_kept_connection_that_the_other_side_ends_is_closed_when_another_host_is_asked(
    http: GuardedHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.net.http.ENDED_SECONDS", 0.0)
    served: list[Any] = []

    def answer_and_end(sock: Any) -> None:
        served.append(sock)
        sock.sendall(reply(b"last"))
        sock.shutdown(socket.SHUT_WR)

    def answer(sock: Any) -> None:
        sock.sendall(reply(b"hello"))

    with RawServer(answer) as kept, RawServer(answer_and_end) as ended, RawServer(answer) as other:
        http.get(kept.url)
        assert http.get(ended.url).body == b"last"
        http.get(other.url)
        until(lambda: served[0].fileno() < 0)
        http.get(kept.url)
        assert kept.connections == 1
        assert http.get(ended.url).body == b"last"


def test_a_goodbye_that_comes_along_with_the_answer_is_the_end_of_a_kept_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the server then waits for ours, so that nothing more comes."""
    http, context = trusting_client(tmp_path, monkeypatch)

    def answer_and_end(sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        sock.sendall(reply(b"last"))
        gevent.spawn_later(0.05, sock.setsockopt, socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        sock.unwrap()

    with RawServer(answer_and_end, context) as server:
        for _ in range(2):
            assert http.get(server.url).body == b"last"
        assert server.connections == 2


def test_json_is_posted(http: GuardedHttp) -> None:
    with RawServer(lambda sock: sock.sendall(reply(b"{}"))) as server:
        assert http.post_json(server.url, {"hostname": "pds.example.com"}).status == 200
    assert b"Content-Type: application/json" in server.requests[0]
    assert server.requests[0].endswith(b'{"hostname": "pds.example.com"}')


def test_loopback_is_refused_without_a_connection(strict: GuardedHttp) -> None:
    with RawServer(lambda sock: sock.sendall(reply(b"secret"))) as server:
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"):
            with pytest.raises(AddressRefused) as refusal:
                strict.get(f"https://{host}:{server.port}/")
            assert refusal.value.reason == "address-refused"
        with pytest.raises(AddressRefused):
            strict.connect("localhost", server.port, 1.0)
        assert server.connections == 0


def test_plain_http_is_refused_in_public_but_not_at_the_operators_word(strict: GuardedHttp) -> None:
    with RawServer(lambda sock: sock.sendall(reply(b"plc"))) as server:
        assert _refusal(strict, server.url) == "http-url"
        assert strict.for_operator().get(server.url).body == b"plc"


@pytest.mark.parametrize("url", ["ftp://example.com/", "file:///etc/passwd", "/path", "https://", "http://[::1", ""])
def test_what_is_no_web_address_is_refused(http: GuardedHttp, url: str) -> None:
    assert _refusal(http, url) == "http-url"


def test_a_name_is_looked_up_once_and_the_connection_goes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: a public answer first, this machine's address ever after."""
    connected: list[Any] = []

    class Names:
        asked = 0

        def current(self) -> Names:
            return self

        def getaddrinfo(self, host: str, port: int, *_: Any) -> list[Any]:
            Names.asked += 1
            ip = "198.41.0.4" if Names.asked == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

    def connect(_socket: Any, sockaddr: Any) -> None:
        connected.append(sockaddr)
        raise ConnectionRefusedError("stopped here")

    monkeypatch.setattr(address, "_names", Names())
    monkeypatch.setattr(socket.socket, "connect", connect)
    http = GuardedHttp("test", allow_insecure=False)
    assert _refusal(http, "https://rebound.example.com/") == "http-connect"
    assert (Names.asked, connected) == (1, [("198.41.0.4", 443)])
    with pytest.raises(AddressRefused):
        http.get("https://rebound.example.com/")
    assert len(connected) == 1


def test_a_redirect_is_not_followed(http: GuardedHttp) -> None:
    with RawServer(lambda sock: sock.sendall(reply(b"target"))) as target:

        def redirect(sock: Any) -> None:
            sock.sendall(reply(b"", "302 Found", [f"Location: {target.url}/"]))

        with RawServer(redirect) as server:
            assert http.get(server.url).status == 302
        assert target.connections == 0


def test_a_body_may_have_its_limit_and_no_byte_more(http: GuardedHttp) -> None:
    limit = 64 << 10
    with RawServer(lambda sock: sock.sendall(reply(bytes(limit)))) as server:
        assert len(http.get(server.url, max_bytes=limit).body) == limit
        assert _refusal(http, server.url, max_bytes=limit - 1) == "http-too-large"
        assert len(http.get(server.url, max_bytes=limit).body) == limit


def test_an_answer_that_is_compressed_unasked_is_left_so(http: GuardedHttp) -> None:
    bomb = gzip.compress(bytes(1 << 20))
    answer = reply(bomb, headers=["Content-Encoding: gzip"])
    with RawServer(lambda sock: sock.sendall(answer)) as server:
        assert http.get(server.url, max_bytes=len(bomb)).body == bomb


def test_a_body_without_a_length_is_bounded_as_well(http: GuardedHttp) -> None:
    sent = 0

    def pour(sock: Any) -> None:
        nonlocal sent
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(10_000):
            sock.sendall(bytes(64 << 10))
            sent += 64 << 10

    with RawServer(pour) as server:
        assert _refusal(http, server.url) == "http-too-large"
        gevent.sleep(0)
        assert sent < 64 << 20


def test_chunks_add_up(http: GuardedHttp) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = head + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    with RawServer(lambda sock: sock.sendall(whole)) as server:
        assert [http.get(server.url).body for _ in range(2)] == [b"hello world"] * 2
        assert server.connections == 1
    large = head + b"10000\r\n" + bytes(65536) + b"\r\n1\r\nx\r\n0\r\n\r\n"
    with RawServer(lambda sock: sock.sendall(large)) as server:
        assert _refusal(http, server.url) == "http-too-large"


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1", b"1" * 5000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer: x\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"e" * 1000 + b"\r\nx\r\n"),
        (b"HTTP/1.1 ", b"200"),
    ],
    ids=["interim answers", "headers", "chunk length", "trailers", "chunk extensions", "status"],
)
def test_lines_without_end_are_cut_off(http: GuardedHttp, head: bytes, line: bytes) -> None:
    def pour(sock: Any) -> None:
        sock.sendall(head)
        while True:
            sock.sendall(line * 50)

    with RawServer(pour) as server:
        begun = time.monotonic()
        assert _refusal(http, server.url, timeout=20.0) in ("http-broken", "http-too-large")
        assert time.monotonic() - begun < 2.0 * PATIENCE


@pytest.mark.parametrize("size", [b"-1", b"-5", b" -0001 ", b"-1;name=value"])
@pytest.mark.parametrize("beginning", [False, True])
def test_a_chunk_of_less_than_no_bytes_is_not_read(http: GuardedHttp, size: bytes, beginning: bool) -> None:
    """It would be read to the end of the connection, past every limit."""
    sent = 0

    def pour(sock: Any) -> None:
        nonlocal sent
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n" + size + b"\r\n")
        while True:
            sock.sendall(bytes(64 << 10))
            sent += 64 << 10

    with RawServer(pour) as server:
        assert _refusal(http, server.url, timeout=20.0, beginning=beginning) == "http-broken"
        assert sent < 64 << 20


@pytest.mark.parametrize(
    "part", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b""]
)
def test_a_trickle_ends_at_the_deadline(http: GuardedHttp, part: bytes) -> None:
    def trickle(sock: Any) -> None:
        sock.sendall(part)
        while True:
            gevent.sleep(0.02)
            sock.sendall(b"x")

    with RawServer(trickle) as server:
        begun = time.monotonic()
        assert _refusal(http, server.url, timeout=0.3) == "http-timeout"
        assert time.monotonic() - begun < 1.0 * PATIENCE


def test_silence_ends_at_the_deadline(http: GuardedHttp) -> None:
    with RawServer(lambda _sock: gevent.sleep(60)) as server:
        begun = time.monotonic()
        assert _refusal(http, server.url, timeout=0.2) == "http-timeout"
        assert time.monotonic() - begun < 1.0 * PATIENCE


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", b"\x00" * 50]
)
def test_what_is_not_http_is_named_so(http: GuardedHttp, answer: bytes) -> None:
    def send(sock: Any) -> None:
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_RDWR)

    with RawServer(send) as server:
        assert _refusal(http, server.url) == "http-broken"


def test_an_answer_cut_off_does_not_leak_into_the_next(http: GuardedHttp) -> None:
    answers = [reply(bytes(5000)), reply(b"second")]

    def answer(sock: Any) -> None:
        sock.sendall(answers.pop(0))

    with RawServer(answer) as server:
        assert _refusal(http, server.url, max_bytes=100) == "http-too-large"
        assert http.get(server.url, max_bytes=100).body == b"second"
        assert server.connections == 2


def test_a_closed_port_and_an_unknown_name_have_their_own_reasons(http: GuardedHttp) -> None:
    with RawServer(lambda _sock: None) as server:
        url = server.url
    assert _refusal(http, url) == "http-connect"
    with pytest.raises(AddressRefused) as refusal:
        http.get("https://name.invalid/")
    assert refusal.value.reason == "name-unresolved"


def test_connect_gives_a_plain_socket_and_tries_every_address(
    http: GuardedHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(lambda sock: sock.sendall(reply(b"hello"))) as server:
        closed = Address(socket.AF_INET6, ("::1", server.port, 0, 0))
        open_ = Address(socket.AF_INET, ("127.0.0.1", server.port))
        monkeypatch.setattr("relay.net.http.resolve_public", lambda *_: [closed, open_])
        connection = http.connect("localhost", server.port, 2.0)
        with connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_the_time_that_an_address_has_is_not_that_of_a_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with many addresses has little time for each; a busy server needs more to shake hands."""
    http, context = trusting_client(tmp_path, monkeypatch)

    def shake_hands_late(sock: Any, _address: object) -> None:
        gevent.sleep(0.7)
        with context.wrap_socket(sock, server_side=True) as sealed:
            sealed.recv(4096)
            sealed.sendall(reply(b"late"))

    server = StreamServer(("127.0.0.1", 0), shake_hands_late)
    server.start()
    port = int(server.server_port or 0)
    addresses = [Address(socket.AF_INET, ("127.0.0.1", port))] * 16
    monkeypatch.setattr("relay.net.http.resolve_public", lambda *_: addresses)
    assert http.get(f"https://localhost:{port}", timeout=8.0).body == b"late"
    server.stop(timeout=0)


def test_tls_is_verified_by_name_over_one_shared_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusting, context = trusting_client(tmp_path, monkeypatch)
    monkeypatch.delenv("SSL_CERT_FILE")
    wary = GuardedHttp("test", allow_insecure=True)
    with RawServer(lambda sock: sock.sendall(reply(b"sealed")), context) as server:
        assert trusting.get(server.url).body == b"sealed"
        assert _refusal(wary, server.url) == "http-tls"
        assert _refusal(trusting, server.url.replace("localhost", "127.0.0.1")) == "http-tls"
        assert trusting.get(server.url).body == b"sealed"
        assert trusting.tls_context().verify_mode.name == "CERT_REQUIRED"
        plain = trusting.connect("localhost", server.port, 2.0)
        with trusting.tls_context().wrap_socket(plain, server_hostname="localhost") as sealed:
            assert sealed.version()


def test_the_form_of_a_certificate_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without key identifiers and key usage, as some hosts have them; no matter what this Python's default is."""
    judge_forms(monkeypatch)
    http, context = trusting_client(tmp_path, monkeypatch)
    with RawServer(lambda sock: sock.sendall(reply(b"sealed")), context) as server:
        assert http.get(server.url).body == b"sealed"
        plain = http.connect("localhost", server.port, 2.0)
        with http.tls_context().wrap_socket(plain, server_hostname="localhost") as sealed:
            assert sealed.version()
        assert _refusal(http, server.url.replace("localhost", "127.0.0.1")) == "http-tls"

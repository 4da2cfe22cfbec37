"""What a client may send in HTTP/1.1: each rule of the module by its number."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.web import http_input
from relay.web.http_input import (
    FILTER,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_PARAMETERS,
    MAX_TARGET_BYTES,
    Chunks,
    Head,
    RequestInvalid,
    head_end,
    parse_head,
)


def head(*fields: str, line: str = "POST /path?a=1 HTTP/1.1") -> Head:
    return parse_head("\r\n".join([line, *fields, "", ""]).encode("latin-1"))


def refused(*fields: str, line: str = "POST / HTTP/1.1") -> tuple[int, str]:
    with pytest.raises(RequestInvalid) as error:
        head(*fields, line=line)
    return error.value.status, error.value.reason


def body_of(received: bytes, *cuts: int) -> bytes | None:
    """The body in chunks, given in pieces that end at `cuts`; None when it is not all there."""
    chunks, buffer = Chunks(), bytearray()
    for start, end in zip([0, *cuts], [*cuts, len(received)], strict=True):
        buffer += received[start:end]
        chunks.take(buffer)
    return bytes(chunks.body) if chunks.done else None


MALFORMED = (400, "head-malformed")


def test_a_head_is_read_with_all_its_fields() -> None:
    found = head("Host: x", "Accept:  text/html, */* ", "Content-Length: 5", "X-Empty:")
    assert found.method == "POST" and found.target == "/path?a=1" and found.version == "HTTP/1.1"
    assert found.fields == {"host": "x", "accept": "text/html, */*", "content-length": "5", "x-empty": ""}
    assert found.length == 5 and found.keep and not found.wants_websocket


@pytest.mark.parametrize(
    ("line", "fields", "keep"),
    [
        ("GET / HTTP/1.1", (), True),
        ("GET / HTTP/1.1", ("Connection: keep-alive, Close",), False),
        ("GET / HTTP/1.0", (), False),
        ("GET / HTTP/1.0", ("Connection: Keep-Alive",), True),
    ],
)
def test_whether_the_connection_is_kept(line: str, fields: tuple[str, ...], keep: bool) -> None:
    assert head(*fields, line=line).keep is keep


def test_rule_1_where_a_head_ends() -> None:
    whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest\n"
    for size in range(len(whole)):
        received = bytearray(whole[:size])
        assert head_end(received, min(26, max(0, size - 1))) == (27 if size >= 27 else 0)
    received = bytearray(b"\r\n" + whole)
    assert head_end(received, 0) == 27 and received == whole


@pytest.mark.parametrize("block", [b"GET / HTTP/1.0\n\n", b"GET / HTTP/1.1\r\nHost: x\nY: z\r\n\r\n", b"\n"])
def test_rule_1_lines_end_with_crlf(block: bytes) -> None:
    with pytest.raises(RequestInvalid) as error:
        head_end(bytearray(block), 0)
    assert error.value.status == 400
    # However little comes at a time.
    with pytest.raises(RequestInvalid):
        for size in range(1, len(block) + 1):
            head_end(bytearray(block[:size]), size - 1)


def test_rule_1_a_head_is_bounded() -> None:
    start = b"GET / HTTP/1.1\r\nX: "
    whole = start + b"x" * (MAX_HEAD_BYTES - len(start) - 4) + b"\r\n\r\n"
    assert head_end(bytearray(whole), 0) == MAX_HEAD_BYTES
    with pytest.raises(RequestInvalid) as error:
        head_end(bytearray(start + b"x" * MAX_HEAD_BYTES), 0)
    assert (error.value.status, error.value.reason) == (431, "head-too-large")
    assert len(head(*("X: 1" for _ in range(100))).fields) == 1
    assert refused(*("X: 1" for _ in range(101))) == (431, "head-too-large")


@pytest.mark.parametrize(
    "line",
    [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET / HTTP/1",
        "GET / HTTP/x.y",
        "GET / HTTP/1.10",
        "GET\t/\tHTTP/1.1",
        "G(T / HTTP/1.1",
        "GET path HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "GET http:/x HTTP/1.1",
        "\x16\x03\x01\x02",
        "",
    ],
)
def test_rule_2_a_request_line_that_is_none(line: str) -> None:
    assert refused(line=line) == MALFORMED


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "9.9"])
def test_rule_2_other_versions(version: str) -> None:
    assert refused(line=f"GET / HTTP/{version}") == (505, "head-malformed")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("//xrpc/x?a=//b", "/xrpc/x?a=//b"),
        ("///", "/"),
        ("/a//b", "/a//b"),
        ("http://host.example:80//a?b", "/a?b"),
        ("HTTPS://host.example", "/"),
        ("http://host?q", "/?q"),
        ("/a?b=\xc3\xbc&c=\xff", "/a?b=%C3%BC&c=%FF"),
    ],
)
def test_rule_2_what_a_target_asks_for(target: str, path: str) -> None:
    assert head(line=f"GET {target} HTTP/1.1").target == path
    assert head(line="OPTIONS * HTTP/1.1").target == "/"


@pytest.mark.parametrize(
    "field", [": x", "foo", "X : y", "X: a\rb", "X: a\x00b", " X: y", "X(: y", "X: y\r\n folded: z"]
)
def test_rule_3_malformed_fields(field: str) -> None:
    assert refused("Host: x", field) == MALFORMED


def test_rule_3_names_that_look_like_others_are_ignored() -> None:
    assert head("X_Forwarded_For: 1", "X-Forwarded-For: 2", "X-Forwarded-For: 3").fields == {"x-forwarded-for": "2, 3"}


def test_rule_4_one_host() -> None:
    assert refused("Host: a", "host: b") == MALFORMED


@pytest.mark.parametrize(
    "host", ["", "x", "a_b-c:2470", "relay.example.com.:443", "127.0.0.1:80", "[::1]", "[2001:db8::1]:2470", "x:"]
)
def test_rule_4_hosts(host: str) -> None:
    assert head(f"Host: {host}").fields["host"] == host


@pytest.mark.parametrize(
    "host", ["a..b", ".a", "a" * 64, "a b", "a,b", "a/b", "a@b", "<a>", "\xff", "::1", "[::1", "x:y", "x:1234567"]
)
def test_rule_4_hosts_that_are_none(host: str) -> None:
    assert refused(f"Host: {host}") == MALFORMED


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: abc",),
        ("Content-Length: +5",),
        ("Content-Length: 5, 5",),
        ("Content-Length: 0x5",),
        ("Content-Length: -1",),
        ("Content-Length: ",),
        ("Content-Length: ²",),
        ("Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: \x0bchunked",),
    ],
)
def test_rule_5_lengths_that_can_be_read_in_two_ways(fields: tuple[str, ...]) -> None:
    assert refused(*fields) == MALFORMED


def test_rule_5_how_long_a_body_is() -> None:
    assert head().length == 0
    assert head("Transfer-Encoding: Chunked").length is None
    assert refused("Transfer-Encoding: chunked", line="POST / HTTP/1.0") == MALFORMED


@given(st.lists(st.binary(max_size=300), max_size=5), st.data())
def test_rule_6_chunks_are_the_body_whatever_the_pieces(parts: list[bytes], data: st.DataObject) -> None:
    parts = [part for part in parts if part]
    framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: x\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(framed)), max_size=6)))
    assert body_of(framed, *cuts) == b"".join(parts)
    assert body_of(framed[:-1]) is None
    chunks, received = Chunks(), bytearray(framed + b"GET / next")
    chunks.take(received)
    assert received == b"GET / next"


@pytest.mark.parametrize(
    "framed", [b"zz\r\n", b"\r\n", b"-1\r\n", b"1\r\nxx\r\n", b"5 6\r\n", b"1" * 20 + b"\r\n", b"x" * 2000]
)
def test_rule_6_broken_chunks(framed: bytes) -> None:
    with pytest.raises(RequestInvalid) as error:
        body_of(framed)
    assert (error.value.status, error.value.reason) == (400, "body-malformed")


@pytest.mark.parametrize(
    "framed",
    [
        b"%x\r\n" % (MAX_BODY_BYTES + 1),
        b"fffffffffffffff\r\n",
        b"%x\r\n%b\r\n1\r\n" % (MAX_BODY_BYTES, b"x" * MAX_BODY_BYTES),
        b"1\r\nx\r\n" * 500,
        b"0\r\n" + b"Trailer: x\r\n" * 500,
    ],
    ids=["a large chunk", "an endless chunk", "too much in all", "crumbs", "trailers"],
)
def test_rule_6_a_body_is_bounded(framed: bytes) -> None:
    with pytest.raises(RequestInvalid) as error:
        body_of(framed)
    assert (error.value.status, error.value.reason) == (413, "body-too-large")


def test_rule_2_a_target_is_bounded() -> None:
    def target(text: str) -> str:
        return parse_head(f"GET {text} HTTP/1.1\r\n\r\n".encode()).target

    assert len(target("/" + "a" * (MAX_TARGET_BYTES - 1))) == MAX_TARGET_BYTES
    assert target("/?" + "a&" * MAX_PARAMETERS)
    for text, status in (("/" + "a" * MAX_TARGET_BYTES, 414), ("/?" + "a&" * (MAX_PARAMETERS + 1), 400)):
        with pytest.raises(RequestInvalid) as error:
            target(text)
        assert error.value.status == status


def test_rule_2_a_filter_may_be_long() -> None:
    def target(text: str, field: str = "") -> str:
        block = bytearray(f"GET {text} HTTP/1.1\r\n{field}\r\n".encode("latin-1"))
        for size in range(0, len(block), 50_000):
            head_end(block[:size], max(0, size - 50_000), FILTER)
        assert head_end(block, len(block) // 50_000 * 50_000, FILTER) == len(block)
        return parse_head(bytes(block), FILTER).target

    longest = "/?" + "a&" * FILTER.parameters
    longest += "a" * (FILTER.target - len(longest))
    assert target(longest) == longest
    for text, field, status in (
        (longest + "a", "", 414),
        (longest + "&", "", 414),
        ("/?" + "&" * (FILTER.parameters + 1), "", 400),
        ("/?" + "a" * MAX_TARGET_BYTES + "\xe9", "", 400),
        ("/?" + "a" * MAX_TARGET_BYTES, f"X: {' ' * MAX_HEAD_BYTES}x\r\n", 431),
    ):
        with pytest.raises(RequestInvalid) as error:
            target(text, field)
        assert error.value.status == status
    with pytest.raises(RequestInvalid) as error:
        head_end(bytearray(b"GET /" + b"a" * FILTER.head), 0, FILTER)
    assert error.value.status == 431


def test_rule_6_a_length_is_judged_at_once() -> None:
    assert head(f"Content-Length: {MAX_BODY_BYTES}").length == MAX_BODY_BYTES
    for length in (str(MAX_BODY_BYTES + 1), "1000000000000", "9" * 5000):
        assert refused(f"Content-Length: {length}") == (413, "body-too-large")
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (MAX_BODY_BYTES, b"x" * MAX_BODY_BYTES)
    assert body_of(whole) == b"x" * MAX_BODY_BYTES


def test_rule_7_a_request_for_a_websocket_has_no_body() -> None:
    upgrade = ("Connection: keep-alive, Upgrade", "Upgrade: WebSocket")
    assert head(*upgrade).wants_websocket
    assert not head(upgrade[1]).wants_websocket and not head(upgrade[0], "Upgrade: foo").wants_websocket
    assert refused(*upgrade, "Content-Length: 5") == MALFORMED
    assert refused(*upgrade, "Transfer-Encoding: chunked") == MALFORMED
    assert head(upgrade[0], "Upgrade: foo", "Content-Length: 5").length == 5


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_refused(data: bytes) -> None:
    try:
        found = parse_head(data + b"\r\n\r\n")
    except RequestInvalid as error:
        assert error.status in (400, 413, 431, 505)
    else:
        assert found.target.startswith("/")


def test_each_rule_has_a_test_of_its_number() -> None:
    rules = set(re.findall(r"^(\d+)\. ", http_input.__doc__ or "", re.MULTILINE))
    assert rules and rules == {found[1] for name in globals() if (found := re.match(r"test_rule_(\d+)_", name))}

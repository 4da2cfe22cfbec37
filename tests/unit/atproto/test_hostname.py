"""One spelling for each host, and nothing that is no host."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import hostname
from relay.atproto.errors import SyntaxInvalid
from relay.atproto.hostname import Endpoint, parse_endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("pds.example.com", Endpoint("pds.example.com", True)),
        ("https://Pds.Example.com./", Endpoint("pds.example.com", True)),
        ("HTTPS://pds.example.com", Endpoint("pds.example.com", True)),
        ("https://pds.example.com:443", Endpoint("pds.example.com", True)),
        ("https://pds.example.com.:443/", Endpoint("pds.example.com", True)),
        ("https://pds.example.com:8443", Endpoint("pds.example.com:8443", True)),
        ("https://pds.example.com:65535", Endpoint("pds.example.com:65535", True)),
        ("http://pds.example.com:80", Endpoint("pds.example.com", False)),
        ("http://pds.example.com:443", Endpoint("pds.example.com:443", False)),
        ("localhost", Endpoint("localhost", False)),
        ("localhost:2583", Endpoint("localhost:2583", False)),
        ("LOCALHOST.:2583", Endpoint("localhost:2583", False)),
        ("http://localhost:2583", Endpoint("localhost:2583", False)),
        ("https://localhost:2583", Endpoint("localhost:2583", True)),
        ("127.0.0.1:2583", Endpoint("127.0.0.1:2583", True)),
        ("http://127.0.0.1", Endpoint("127.0.0.1", False)),
        ("http://[0:0:0:0:0:0:0:1]:2583", Endpoint("[::1]:2583", False)),
        ("https://[2001:DB8::1]", Endpoint("[2001:db8::1]", True)),
        ("wss://pds.example.com", Endpoint("pds.example.com", True)),
        ("WSS://Pds.Example.com:443/xrpc/com.atproto.sync.subscribeRepos?cursor=0", Endpoint("pds.example.com", True)),
        ("ws://localhost:2583", Endpoint("localhost:2583", False)),
        ("ws://pds.example.com:80/", Endpoint("pds.example.com", False)),
        ("https://pds.example.com//", Endpoint("pds.example.com", True)),
        ("https://pds.example.com/xrpc", Endpoint("pds.example.com", True)),
        ("https://pds.example.com/a/../b@c\\d", Endpoint("pds.example.com", True)),
        ("https://pds.example.com:8443?a=b", Endpoint("pds.example.com:8443", True)),
        ("https://pds.example.com#a", Endpoint("pds.example.com", True)),
        ("pds.example.com/xrpc", Endpoint("pds.example.com", True)),
        ("https://pds.example.com/" + "a" * 2_024, Endpoint("pds.example.com", True)),
    ],
)
def test_every_spelling_becomes_one(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert parse_endpoint(endpoint.url) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "pds",
        "https://",
        "ftp://pds.example.com",
        "wsss://pds.example.com",
        "https:pds.example.com",
        "https:///pds.example.com",
        "https://pds.example.com/a b",
        "https://pds.example.com/\n",
        "https://pds.example.com/\u00e4",
        "https://pds.example.com/" + "a" * 2_025,
        "https://user@pds.example.com",
        "https://user:password@pds.example.com",
        "https://pds.example.com@evil.example.org",
        "https://pds.example.com\\@evil.example.org",
        "pds.example.com:",
        "pds.example.com:0",
        "pds.example.com:0443",
        "pds.example.com:65536",
        "pds.example.com:999999",
        "pds.example.com:8x",
        "pds..example.com",
        ".example.com",
        "pds.example.com..",
        "-pds.example.com",
        "pds_1.example.com",
        "p\u00e4ds.example.com",
        "pds.example.com\n",
        " pds.example.com",
        "pds.example.com%00",
        "pds.example\uff0ecom",
        "\u017fds.example.com",  # lower-cases to nothing in ASCII, but matches "s" when case is ignored
        "127.1",
        "127.0.0.01",
        "0x7f.0.0.1",
        "2130706433",
        "1.2.3.4.5",
        "::1",
        "[::1",
        "[]",
        "[::1%25lo]",
        "[:::1]",
        "a" * 64 + ".example.com",
        "a." * 200 + "com",
    ],
)
def test_what_is_not_a_host_is_refused(text: str) -> None:
    with pytest.raises(SyntaxInvalid) as caught:
        parse_endpoint(text)
    assert caught.value.reason in hostname.REASONS


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("localhost", True),
        ("localhost:2583", True),
        ("pds.localhost", True),
        ("printer.local", True),
        ("pds.corp.internal:8080", True),
        ("1.0.0.127.in-addr.arpa", True),
        ("10.0.0.1", True),
        ("8.8.8.8:8080", True),
        ("[2606:4700::1111]", True),
        ("pds.example.com", False),
        ("pds.example.com:8443", False),
        ("local.example.org", False),
    ],
)
def test_local_names_are_told_from_public_ones(text: str, local: bool) -> None:
    assert parse_endpoint(text).is_local is local


@given(st.text() | st.text("aA.:/[]0158@?#%-htps\n", max_size=40))
def test_what_comes_out_is_stable(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except SyntaxInvalid as error:
        assert error.reason in hostname.REASONS
    else:
        assert parse_endpoint(endpoint.url) == endpoint
        assert endpoint.hostname == endpoint.hostname.lower()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://pds.example.com", "https://pds.example.com/xrpc", True),
        ("http://pds.example.com:8080", "https://pds.example.com:8080", True),
        ("http://pds.example.com:443", "https://pds.example.com", True),
        ("http://pds.example.com", "https://pds.example.com:80", True),
        ("http://[::1]:443", "https://[::1]", True),
        ("http://pds.example.com", "https://pds.example.com", True),
        ("http://PDS.example.com./", "https://pds.example.com", True),
        ("http://[::1]", "https://[::1]", True),
        ("http://pds.example.com:80", "https://pds.example.com:443", True),
        ("http://pds.example.com", "https://pds.example.com:8080", False),
        ("http://pds.example.com:8080", "http://pds.example.com", False),
        ("https://pds.example.com:8080", "https://pds.example.com", False),
        ("https://pds.example.com", "https://pds2.example.com", False),
    ],
)
def test_a_host_is_its_name_and_port(one: str, other: str, same: bool) -> None:
    assert parse_endpoint(one).same_host(parse_endpoint(other)) is same
    assert parse_endpoint(other).same_host(parse_endpoint(one)) is same
    assert not parse_endpoint(one).same_host(None)

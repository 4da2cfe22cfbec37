"""Where a request comes from: X-Forwarded-For is believed for as long as trusted proxies say it, and no further."""

from __future__ import annotations

import pytest

from relay.kit.values import parse_networks
from relay.web.addresses import client_address, counted_as

LOCAL = parse_networks("127.0.0.1,::1,10.0.0.0/8")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("127.0.0.1", "junk", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1, junk", "127.0.0.1"),
        ("::1", "2001:db8::1", "2001:db8::1"),
        ("::1", "[2001:db8::1]", "2001:db8::1"),
        ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_client_address(peer: str, forwarded_for: str, expected: str) -> None:
    assert client_address(peer, forwarded_for, LOCAL) == expected


def test_an_ipv6_client_is_counted_by_its_network() -> None:
    assert counted_as("2001:db8:1:2:3::4") == counted_as("2001:db8:1:2::9") != counted_as("2001:db8:1:3::4")
    assert counted_as("fe80::1%eth0") == "fe80::/64"
    assert counted_as("198.51.100.1") == "198.51.100.1"
    assert counted_as("unix:") == "unix:"

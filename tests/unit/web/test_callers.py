"""Who asks: the admin password in both schemes, guessing slowed down, and what X-Forwarded-For is believed of."""

from __future__ import annotations

import base64
import logging

import pytest

from relay.kit.values import parse_networks
from relay.web.callers import (
    FAILURE_WINDOW,
    MAX_FAILURES,
    AdminAuth,
    client_address,
    counted_as,
    from_other_site,
    passwords_or_random,
)
from relay.web.errors import XrpcError

LOCAL = parse_networks("127.0.0.1,::1,10.0.0.0/8")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auth(clock: Clock) -> AdminAuth:
    return AdminAuth(["first", "sécond:part"], clock)


def status_of(auth: AdminAuth, header: str | None, address: str = "198.51.100.1") -> int:
    try:
        auth.check(header, address)
    except XrpcError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    "header",
    [basic("admin", "first"), "Bearer first", "bearer first", basic("admin", "sécond:part"), "BASIC YWRtaW46Zmlyc3Q="],
)
def test_each_password_opens_in_each_scheme(auth: AdminAuth, header: str) -> None:
    assert status_of(auth, header) == 200


def test_a_password_that_is_not_utf_8_opens_too() -> None:
    """As a terminal with another encoding puts it into the environment, and as curl sends it from there."""
    auth = AdminAuth([b"s\xe9cond".decode(errors="surrogateescape")])
    assert status_of(auth, "Basic " + base64.b64encode(b"admin:s\xe9cond").decode()) == 200
    assert status_of(auth, basic("admin", "s\N{LATIN SMALL LETTER E WITH ACUTE}cond")) == 401


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Bearer",
        "Bearer ",
        "Basic !!!",
        "Basic YWRtaW4=",
        basic("admin", ""),
        basic("admin", "First"),
        basic("root", "first"),
        basic("", "first"),
        "Bearer first,sécond:part",
        "Digest first",
        "Bearer ÿ\N{SNOWMAN}",
    ],
)
def test_nothing_else_does(auth: AdminAuth, header: str | None) -> None:
    assert status_of(auth, header) == 401


def test_a_refusal_asks_for_a_password(auth: AdminAuth) -> None:
    with pytest.raises(XrpcError) as refused:
        auth.check(None, "198.51.100.1")
    assert refused.value.headers["WWW-Authenticate"].startswith("Basic ")


def test_no_password_set_opens_nothing() -> None:
    assert status_of(AdminAuth([]), "Bearer ") == status_of(AdminAuth([]), basic("admin", "")) == 401


def test_guessing_is_stopped_for_that_address_alone(auth: AdminAuth, clock: Clock) -> None:
    for _ in range(MAX_FAILURES):
        assert status_of(auth, "Bearer wrong") == 401
    assert status_of(auth, "Bearer wrong") == 429
    assert status_of(auth, "Bearer wrong", "198.51.100.2") == 401
    clock.now += FAILURE_WINDOW + 1
    assert status_of(auth, "Bearer wrong") == 401


def test_a_right_password_opens_however_many_wrong_ones_come_from_its_address(
    auth: AdminAuth, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(MAX_FAILURES + 100):
        status_of(auth, "Bearer wrong")
    assert status_of(auth, "Bearer first") == 200
    assert status_of(auth, "Bearer wrong") == 429
    # One line for each guess that was looked at.
    assert len(caplog.records) == MAX_FAILURES


@pytest.mark.parametrize("header", [None, "", basic("admin", ""), "Bearer "])
def test_asking_without_a_password_is_no_guess(auth: AdminAuth, header: str | None) -> None:
    for _ in range(MAX_FAILURES + 1):
        assert status_of(auth, header) == 401


@pytest.mark.parametrize(
    ("site", "origin", "foreign"),
    [
        (None, None, None),
        ("", "", None),
        ("same-origin", None, False),
        ("none", None, False),
        ("same-origin", "https://relay.example.com", False),
        ("cross-site", None, True),
        ("same-site", "http://127.0.0.1:2470", True),
        (None, "http://127.0.0.1:2470", False),
        (None, "http://127.0.0.1", True),
        (None, "https://evil.example", True),
        (None, "null", True),
        (None, "http://[::1", True),
    ],
)
def test_what_browsers_say_of_where_a_request_comes_from(
    site: str | None, origin: str | None, foreign: bool | None
) -> None:
    assert from_other_site(site, origin, "127.0.0.1:2470") is foreign


def test_a_random_password_is_made_and_logged_only_when_none_is_set(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert passwords_or_random(("set",)) == ("set",)
        assert not caplog.records
        (password,) = passwords_or_random(())
    assert len(password) >= 24 and password in caplog.text
    assert passwords_or_random(()) != (password,)


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
        ("::1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("::1", "fe80::1%eth0", "fe80::1"),
        ("127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("127.0.0.1", "1.1.1.1:1, 198.51.100.1:4711, 10.1.2.3:80", "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1:x", "127.0.0.1"),
        ("127.0.0.1", "[198.51.100.1:4711", "127.0.0.1"),
        ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("", "198.51.100.1", ""),
        ("127.0.0.1", "198.51.100.1" + ",127.0.0.1" * 15, "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1" + ",127.0.0.1" * 16, "127.0.0.1"),
    ],
)
def test_only_a_trusted_proxy_names_the_client(peer: str, forwarded_for: str, expected: str) -> None:
    assert client_address(peer, forwarded_for, LOCAL) == expected


def test_an_ipv6_client_is_counted_by_its_network() -> None:
    assert counted_as("2001:db8:1:2:3::4") == counted_as("2001:db8:1:2::9") != counted_as("2001:db8:1:3::4")
    assert counted_as("fe80::1%eth0") == "fe80::/64"
    assert counted_as("198.51.100.1") == "198.51.100.1"
    assert counted_as("unix:") == "unix:"

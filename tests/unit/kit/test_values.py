from __future__ import annotations

import pytest

from relay.kit.values import (
    parse_connections,
    parse_count,
    parse_database_url,
    parse_http_url,
    parse_http_urls,
    parse_optional_page_url,
    parse_places,
    parse_seq,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("sqlite://data/relay.sqlite", "sqlite://data/relay.sqlite"),
        ("sqlite:///var/lib/relay/relay.sqlite", "sqlite:///var/lib/relay/relay.sqlite"),
        ("sqlite=/var/lib/relay/relay.sqlite", "sqlite:///var/lib/relay/relay.sqlite"),
        ("sqlite=data/relay.sqlite", "sqlite://data/relay.sqlite"),
        ("sqlite://data/relay.sqlite?_busy_timeout=5000&cache=shared", "sqlite://data/relay.sqlite"),
        ("sqlite://file:data/relay.sqlite?mode=rwc", "sqlite://data/relay.sqlite"),
        ("postgres=host=db user=relay", "postgres=host=db user=relay"),
        ("postgresql://relay@db/relay", "postgresql://relay@db/relay"),
    ],
)
def test_every_form_of_a_database_url_that_indigo_takes(text: str, address: str) -> None:
    assert parse_database_url(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite://.",
        "sqlite:///var/lib/relay/",
        "sqlite://a/..",
        "sqlite:///?mode=rwc",
        "sqlite://:memory:",
        "sqlite=:memory:",
        "mysql://db",
        "a.sqlite",
        "",
    ],
)
def test_what_is_not_a_database(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not "):
        parse_database_url(text)


@pytest.mark.parametrize("text", ["-1", "1.0", "1e3", "", "9007199254740992", "9" * 5000, "\N{SUPERSCRIPT TWO}"])
def test_what_is_not_a_count(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(not|invalid) "):
        parse_count(text)


def test_the_largest_count() -> None:
    assert parse_count("9007199254740991") == 2**53 - 1
    for parse, maximum in ((parse_places, 1_000_000), (parse_connections, 1_000_000), (parse_seq, 2**52 - 1)):
        assert parse(str(maximum)) == maximum
        with pytest.raises(ValueError, match=r"^above "):
            parse(str(maximum + 1))


def test_a_mirror_of_the_directory_may_be_below_a_path() -> None:
    assert parse_http_urls("https://plc.directory, https://mirror.example.com/plc/") == (
        "https://plc.directory",
        "https://mirror.example.com/plc",
    )
    for text in ("https://", "mirror.example.com", "https://plc.directory?x", "https://plc.directory/a b"):
        with pytest.raises(ValueError, match=r"^not "):
            parse_http_urls(text)


def test_the_address_of_a_relay_has_no_path() -> None:
    assert parse_http_url("https://relay.example.com/") == parse_http_url("https://relay.example.com")
    assert parse_http_url("http://localhost:2470") == "http://localhost:2470"
    relay = "https://relay.example.com"
    for text in ("", "https://", "relay.example.com", f"{relay}/x", f"{relay}?x", f"{relay}#x", f"{relay} x"):
        with pytest.raises(ValueError, match=r"^not "):
            parse_http_url(text)


def test_the_address_of_a_page_may_have_anything_after_its_host() -> None:
    for text in ("", "https://example.com", "https://example.com/terms?lang=en#top", "https://example.com?terms"):
        assert parse_optional_page_url(text) == text
    for text in ("https://", "https:///terms", "https://example.com/the terms"):
        with pytest.raises(ValueError, match=r"^not "):
            parse_optional_page_url(text)

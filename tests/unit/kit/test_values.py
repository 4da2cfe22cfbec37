from __future__ import annotations

import pytest

from relay.kit.values import parse_database_url, parse_http_urls


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


@pytest.mark.parametrize("text", ["sqlite://", "sqlite://:memory:", "sqlite=:memory:", "mysql://db", "a.sqlite", ""])
def test_what_is_not_a_database(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not "):
        parse_database_url(text)


def test_a_mirror_of_the_directory_may_be_below_a_path() -> None:
    assert parse_http_urls("https://plc.directory, https://mirror.example.com/plc/") == (
        "https://plc.directory",
        "https://mirror.example.com/plc",
    )
    for text in ("https://", "mirror.example.com", "https://plc.directory?x", "https://plc.directory/a b"):
        with pytest.raises(ValueError, match=r"^not "):
            parse_http_urls(text)

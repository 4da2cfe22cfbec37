"""Names that a crawl request may give, and which hosts are trusted."""

import pytest

from relay.config import Settings
from relay.hosts.crawl_checks import check_name, first_account_limit, is_trusted
from relay.kit.errors import CrawlRefused

SETTINGS = Settings(trusted_domains=("*.Host.bsky.network", "PDS.example.com"), default_account_limit=100)


@pytest.mark.parametrize(
    ("hostname", "trusted"),
    [
        ("a.host.bsky.network", True),
        ("pds.example.com", True),
        ("host.bsky.network", False),
        ("evilhost.bsky.network", False),
        ("x.pds.example.com", False),
        ("a.host.bsky.network.evil.com", False),
    ],
)
def test_trust_is_an_exact_name_or_the_end_of_one(hostname: str, trusted: bool) -> None:
    assert is_trusted(SETTINGS, hostname) is trusted
    assert first_account_limit(SETTINGS, hostname) == (10_000_000 if trusted else 100)


@pytest.mark.parametrize(
    ("text", "admin", "insecure"),
    [
        ("pds.example.org", False, False),
        ("https://pds.example.org", False, False),
        ("pds.example.org:8443", True, False),
        ("http://localhost:2583", True, True),
        ("localhost:2583", True, False),
        ("http://pds.example.org", True, False),
        ("ws://pds.example.org", True, False),
        ("http://pds.example.org", False, True),
        ("wss://pds.example.org", False, False),
        ("wss://pds.example.org/xrpc/com.atproto.sync.subscribeRepos?cursor=0", False, False),
        ("https://pds.example.org/path#part", False, False),
        ("ws://pds.example.org", False, True),
    ],
)
def test_names_that_are_taken(text: str, admin: bool, insecure: bool) -> None:
    check_name(text, admin=admin, allow_insecure=insecure)


@pytest.mark.parametrize(
    ("text", "admin", "insecure"),
    [
        ("", True, True),
        ("localhost", True, True),
        ("ftp://pds.example.org", True, True),
        ("wss://user@pds.example.org/xrpc", True, True),
        ("ws://pds.example.org", False, False),
        ("https://user@pds.example.org", True, True),
        ("pds.example.org:8443", False, False),
        ("localhost:2583", False, True),
        ("https://10.0.0.1", True, False),
        ("https://[::1]", False, True),
        ("pds.internal", False, False),
    ],
)
def test_names_that_are_not(text: str, admin: bool, insecure: bool) -> None:
    with pytest.raises(CrawlRefused) as caught:
        check_name(text, admin=admin, allow_insecure=insecure)
    assert (caught.value.name, caught.value.status) == ("BadRequest", 400)

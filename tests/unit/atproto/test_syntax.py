"""Identifiers and dates: the interop vectors, and the relay's stricter rule for account DIDs."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import syntax
from relay.atproto.errors import SyntaxInvalid
from tests.support import interop

KINDS: dict[str, Callable[[str], bool]] = {
    "did": syntax.is_did,
    "handle": syntax.is_handle,
    "nsid": syntax.is_nsid,
    "tid": syntax.is_tid,
    "recordkey": lambda key: syntax.is_record_path(f"app.bsky.feed.post/{key}"),
    "datetime": syntax.is_datetime,
}
CHECKS = [syntax.check_did, syntax.check_account_did, syntax.check_nsid, syntax.tid_micros]
PLC = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


def vectors(*names: str) -> list[tuple[str, str]]:
    return [(kind, line) for kind in KINDS for name in names for line in interop.lines(f"syntax/{kind}_{name}.txt")]


@pytest.mark.parametrize(("kind", "text"), vectors("syntax_valid"))
def test_interop_valid(kind: str, text: str) -> None:
    assert KINDS[kind](text)


@pytest.mark.parametrize(("kind", "text"), vectors("syntax_invalid", "parse_invalid"))
def test_interop_invalid(kind: str, text: str) -> None:
    assert not KINDS[kind](text)


@pytest.mark.parametrize("check", CHECKS)
@given(text=st.text() | st.from_regex(r"did:(plc|web):[a-z2-7.%]{1,40}", fullmatch=True))
def test_only_listed_reasons_come_out(check: Callable[[str], object], text: str) -> None:
    try:
        check(text)
    except SyntaxInvalid as error:
        assert error.reason in syntax.REASONS


@pytest.mark.parametrize("check", CHECKS)
def test_a_long_text_is_refused_at_once(check: Callable[[str], object]) -> None:
    for unit in ("a", "a.", "a-", "0", "did:web:", "a/", "%3A"):
        with pytest.raises(SyntaxInvalid) as caught:
            check(unit * 1_000_000)
        assert len(str(caught.value)) < 200
        for holds in KINDS.values():
            assert not holds(unit * 1_000_000)


@pytest.mark.parametrize("text", ["3jzfcijpj2z2a\n", "\n3jzfcijpj2z2a"])
def test_a_line_end_is_no_part_of_anything(text: str) -> None:
    assert not syntax.is_tid(text)


@pytest.mark.parametrize(
    "did",
    [PLC, "did:web:example.com", "did:web:a.b-c.example.com", "did:web:localhost", "did:web:localhost%3A2583"],
)
def test_account_dids_are_taken(did: str) -> None:
    syntax.check_account_did(did)


@pytest.mark.parametrize(
    "did",
    [
        PLC + "\n",
        PLC + "a",
        PLC[:-1],
        PLC[:-1] + "1",
        PLC.upper(),
        "did:plc:" + "A" * 24,
        "did:web:Example.com",
        "did:web:example.com:user",
        "did:web:example.com%3A443",
        "did:web:localhost%3a80",
        "did:web:localhost%3A080",
        "did:web:127.0.0.1",
        "did:web:example",
        "did:web:example.com.",
        "did:web:",
        "did:web:" + "a." * 126 + "com",
        "did:webx:example.com",
        "did:key:zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc",
        "xdid:web:example.com",
        "",
    ],
)
def test_dids_no_account_can_have(did: str) -> None:
    with pytest.raises(SyntaxInvalid, match=r"^account-did"):
        syntax.check_account_did(did)


@pytest.mark.parametrize(
    ("path", "valid"),
    [
        ("app.bsky.feed.post/3jzfcijpj2z2a", True),
        ("app.bsky.actor.profile/self", True),
        ("app.bsky.feed.post/" + "a" * 512, True),
        ("app.bsky.feed.post/" + "a" * 513, False),
        ("app.bsky.feed.post/a/b", False),
        ("app.bsky.feed.post/", False),
        ("app.bsky.feed.post", False),
        ("/3jzfcijpj2z2a", False),
        ("app.bsky.feed.post/..", False),
        ("app.bsky.feed.post/.", False),
        ("app.bsky/3jzfcijpj2z2a", False),
        ("app.bsky.feed.post/caf\u00e9", False),
        ("app.bsky.feed.post/a\n", False),
    ],
)
def test_a_record_path_is_a_collection_and_a_key(path: str, valid: bool) -> None:
    assert syntax.is_record_path(path) is valid


def test_no_path_of_megabytes_is_remembered() -> None:
    """Which collections are names is: for as many as a host makes up."""
    before = syntax._is_collection.cache_info()
    assert not syntax.is_record_path("a" * 1_000_000 + "/self")
    assert syntax._is_collection.cache_info() == before


@given(st.integers(0, 2**53 - 1), st.integers(0, 1023))
def test_a_tid_tells_its_microseconds(micros: int, clock: int) -> None:
    number = micros << 10 | clock
    tid = "".join(syntax.TID_ALPHABET[number >> shift & 31] for shift in range(60, -5, -5))
    assert syntax.tid_micros(tid) == micros


def test_tid_micros_of_a_known_tid() -> None:
    # 2023-06-30T15:03:01.887007Z
    assert syntax.tid_micros("3jzfcijpj2z2a") == 1688137381887007


@pytest.mark.parametrize("text", ["1985-04-12T23:20:60Z", "0000-01-01T00:00:00+01:00", "1985-04-12T23:20:50.123+24:00"])
def test_datetimes_that_consumers_cannot_read(text: str) -> None:
    assert not syntax.is_datetime(text)

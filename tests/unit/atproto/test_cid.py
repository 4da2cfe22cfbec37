"""Content ids: two kinds, one spelling each."""

import hashlib
from base64 import b32encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import cid
from relay.atproto.cid import Cid
from relay.atproto.errors import CidError
from tests.support import interop

TEXT = "bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"


@given(st.binary())
def test_of_data_and_back(data: bytes) -> None:
    for made, codec in ((Cid.of_dag_cbor(data), cid.DAG_CBOR), (Cid.of_raw(data), cid.RAW)):
        assert made.codec == codec
        assert made.digest == hashlib.sha256(data).digest()
        assert Cid.parse(str(made)) == made == Cid.from_bytes(bytes(made))
        assert len(made) == 36


def test_the_known_string_of_a_known_id() -> None:
    assert str(Cid.parse(TEXT)) == TEXT
    assert repr(Cid.parse(TEXT)) == f"Cid({TEXT})"


@given(st.binary(max_size=80))
def test_bytes_of_any_length_have_a_string(data: bytes) -> None:
    assert str(Cid(data)) == "b" + b32encode(data).decode().rstrip("=").lower()


@pytest.mark.parametrize("text", interop.lines("syntax/cid_syntax_invalid.txt"))
def test_interop_invalid(text: str) -> None:
    with pytest.raises(CidError):
        Cid.parse(text)


@pytest.mark.parametrize("text", interop.lines("syntax/cid_syntax_valid.txt"))
def test_interop_valid_is_read_when_blessed(text: str) -> None:
    """The vectors allow any CID; the protocol itself uses two kinds, base32, and so does this type."""
    try:
        assert str(Cid.parse(text)) == text
    except CidError as error:
        assert error.reason in cid.REASONS
        assert len(text) != 59 or text[:7] not in ("bafyrei", "bafkrei")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cid-syntax"),
        (TEXT[:-1], "cid-syntax"),
        (TEXT + "a", "cid-syntax"),
        (TEXT.upper(), "cid-syntax"),
        ("b" + TEXT[1:].upper(), "cid-syntax"),
        ("z" + TEXT[1:], "cid-syntax"),
        (TEXT[:-1] + "=", "cid-syntax"),
        (TEXT[:-1] + "r", "cid-syntax"),  # the last character's spare bits are not zero
        (TEXT[:-1] + "\n", "cid-syntax"),
        (TEXT[:-2] + "a\n", "cid-syntax"),
        *((f"{TEXT[:20]}{other}{TEXT[21:]}", "cid-syntax") for other in "_+- 0189!\0A"),
        (f"b_{TEXT[2:]}", "cid-syntax"),
        (f"b-{TEXT[2:]}", "cid-syntax"),
        (TEXT[:-1] + "\u0131", "cid-syntax"),
        ("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", "cid-unsupported"),
        ("QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR", "cid-syntax"),
    ],
)
def test_other_strings_are_refused(text: str, reason: str) -> None:
    with pytest.raises(CidError) as caught:
        Cid.parse(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(36),
        Cid.parse(TEXT)[:35],
        Cid.parse(TEXT) + b"\0",
        b"\x01\x70\x12\x20" + bytes(32),
        b"\x01\x71\x13\x20" + bytes(32),
        b"\x01\x71\x12\x1f" + bytes(32),
        b"\x00\x71\x12\x20" + bytes(32),
        b"\x12\x20" + bytes(34),
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CidError, match=r"^cid-unsupported"):
        Cid.from_bytes(data)


@given(st.text() | st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=58, max_size=58).map("b".__add__))
def test_only_listed_reasons_come_out(text: str) -> None:
    try:
        assert str(Cid.parse(text)) == text
    except CidError as error:
        assert error.reason in cid.REASONS

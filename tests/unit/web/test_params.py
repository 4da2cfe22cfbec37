"""Query parameters and bodies: what is taken, what is refused, and that a refusal names the parameter."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import MultiDict

from relay.web import params
from relay.web.errors import XrpcError


def query(*pairs: tuple[str, str]) -> MultiDict[str, str]:
    return MultiDict(pairs)


def test_limit_has_a_default_and_a_range() -> None:
    assert params.limit(query(), default=200, maximum=1000) == 200
    assert params.limit(query(("limit", "")), default=200, maximum=1000) == 200
    assert params.limit(query(("limit", "1")), default=200, maximum=1000) == 1
    assert params.limit(query(("limit", "1000")), default=200, maximum=1000) == 1000


@pytest.mark.parametrize(
    "text",
    ["0", "1001", "-1", "+5", " 5", "5.0", "1e2", "0x10", "five", "٣", "²", "9" * 17, "9" * 5000, "5\0", "null"],
)
def test_a_limit_that_is_no_integer_in_range_is_refused_by_name(text: str) -> None:
    with pytest.raises(XrpcError) as refused:
        params.limit(query(("limit", text)), default=200, maximum=1000)
    assert (refused.value.status, refused.value.name) == (400, "InvalidRequest")
    assert "limit" in refused.value.message


def test_an_empty_cursor_is_the_first_page() -> None:
    assert params.cursor(query(("cursor", ""))) == params.cursor(query()) == 0
    assert params.cursor(query(("cursor", "17"))) == 17


def test_a_cursor_above_what_sql_holds_is_refused() -> None:
    assert params.cursor(query(("cursor", str(2**53 - 1)))) == 2**53 - 1
    with pytest.raises(XrpcError):
        params.cursor(query(("cursor", str(2**53))))


def test_of_a_parameter_given_twice_the_first_counts_and_an_unknown_one_is_ignored() -> None:
    assert params.cursor(query(("cursor", "1"), ("cursor", "2"))) == 1
    assert params.cursor(query(("cursor", ""), ("cursor", "2"))) == 0
    assert params.cursor(query(("curser", "1"))) == 0


def test_what_must_be_given_once_is_refused_by_name() -> None:
    params.refuse_repeated(query(("host", "a"), ("block", "true")))
    for second in ("a", "b", ""):
        with pytest.raises(XrpcError, match="host is given more than once"):
            params.refuse_repeated(query(("host", "a"), ("block", "true"), ("host", second)))


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("000", 0), ("007", 7), ("0" * 30 + "7", 7), ("9007199254740991", 2**53 - 1)]
    + [(text, 2**53 - 1) for text in ("9007199254740992", "18446744073709551616", "9" * 8000)],
)
def test_a_seq_may_be_above_all_that_there_can_be(text: str, number: int) -> None:
    assert params.seq(text, "cursor") == number


@pytest.mark.parametrize("text", ["", "-1", "+5", " 5", "1.5", "1e3", "x", "٣", "²", "9" * 30 + "x", "\0"])
def test_what_is_no_seq_is_refused(text: str) -> None:
    with pytest.raises(XrpcError, match="cursor"):
        params.seq(text, "cursor")


def test_a_flag_is_true_or_false_and_nothing_else() -> None:
    assert params.flag(query(("block", "true")), "block") is True
    assert params.flag(query(("block", "0")), "block") is False
    assert params.flag(query(), "block", default=False) is False
    for bad in (query(), query(("block", "perhaps"))):
        with pytest.raises(XrpcError, match="block"):
            params.flag(bad, "block")


@pytest.mark.parametrize("text", ["", "did", "did:plc", "DID:plc:abc", "did:plc:abc def", "did:plc:abc\n", "at://x"])
def test_what_is_no_did_is_refused(text: str) -> None:
    with pytest.raises(XrpcError, match="did"):
        params.did(text)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b"[" * 60_000, b'{"a":' * 10_000])
def test_a_body_that_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(XrpcError, match="body"):
        params.json_body(data)


def test_body_names_are_read_in_any_case_as_go_does() -> None:
    assert params.body_text(params.json_body(b'{"Domain":"example.com"}'), "domain") == "example.com"


@pytest.mark.parametrize("data", [b'{"did": "a", "did": "b"}', b'{"Domain": "a", "domain": "a"}'])
def test_a_body_that_gives_a_name_twice_is_refused(data: bytes) -> None:
    with pytest.raises(XrpcError, match="400 InvalidRequest: a name is given more than once"):
        params.json_body(data)


@pytest.mark.parametrize("value", ['""', "1", "null", "[]", "{}", "true", '"a\\u0000b"', f'"{"x" * 2049}"'])
def test_a_body_field_that_is_no_text_is_refused(value: str) -> None:
    with pytest.raises(XrpcError, match="hostname"):
        params.body_text(params.json_body(b'{"hostname":%s}' % value.encode()), "hostname")


def test_a_number_in_a_body_is_whole_and_not_negative() -> None:
    assert params.body_number({"limit": 0}, "limit") == 0
    assert params.body_number({}, "limit") is None
    for bad in (True, -1, 1.5, "1", 2**53, [1]):
        with pytest.raises(XrpcError, match="limit"):
            params.body_number({"limit": bad}, "limit")

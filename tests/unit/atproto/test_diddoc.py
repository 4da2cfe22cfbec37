"""DID documents: the forms that are out there, and the hostile ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import diddoc
from relay.atproto.crypto import PublicKey, parse_multikey
from relay.atproto.errors import DidDocumentError
from relay.atproto.hostname import Endpoint

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
K256 = "zQ3shunBKsXixLxKtC5qeSG9E4J5RkGN57im31pcTzbNQnm5w"
OTHER = "zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF"


def method(**changes: Any) -> dict[str, Any]:
    return {"id": f"{DID}#atproto", "type": "Multikey", "controller": DID, "publicKeyMultibase": K256} | changes


def service(**changes: Any) -> dict[str, Any]:
    return {
        "id": "#atproto_pds",
        "type": "AtprotoPersonalDataServer",
        "serviceEndpoint": "https://pds.example.com",
    } | changes


def document(**changes: Any) -> bytes:
    fields = {
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": DID,
        "alsoKnownAs": ["at://user.example.com"],
        "verificationMethod": [method()],
        "service": [service()],
    }
    return json.dumps(fields | changes).encode()


def key_of(*methods: Any) -> PublicKey | None:
    return diddoc.parse(document(verificationMethod=list(methods)), DID).key


def pds_of(*services: Any) -> Endpoint | None:
    return diddoc.parse(document(service=list(services)), DID).pds


def test_a_document_as_the_plc_directory_gives_it() -> None:
    assert diddoc.parse(document(), DID) == diddoc.DidDocument(
        DID, parse_multikey(K256), Endpoint("pds.example.com", True), "user.example.com"
    )


def test_a_byte_order_mark_says_nothing() -> None:
    """Files that were made on Windows begin with one."""
    assert diddoc.parse(b"\xef\xbb\xbf" + document(), DID) == diddoc.parse(document(), DID)


def test_a_document_of_as_many_bytes_as_it_may_have() -> None:
    assert diddoc.parse(document().ljust(diddoc.MAX_DOCUMENT), DID) == diddoc.parse(document(), DID)


def test_what_is_missing_is_none() -> None:
    assert diddoc.parse(json.dumps({"id": DID}).encode(), DID) == diddoc.DidDocument(DID, None, None, None)


@pytest.mark.parametrize("value", [None, 1, "x", {}, [None, 1, "x", [], {}]])
def test_odd_members_count_as_missing(value: Any) -> None:
    body = document(verificationMethod=value, service=value, alsoKnownAs=value)
    assert diddoc.parse(body, DID) == diddoc.DidDocument(DID, None, None, None)


ED25519 = "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"


def test_the_first_valid_key_with_the_id_counts() -> None:
    assert key_of(method(id=f"{DID}#other", publicKeyMultibase=OTHER), method()) == parse_multikey(K256)
    assert key_of(method(), method(publicKeyMultibase=OTHER)) == parse_multikey(K256)
    unusable = [
        method(type="RsaKey"),
        method(type="Ed25519VerificationKey2020", publicKeyMultibase=ED25519),
        method(publicKeyMultibase=ED25519),
        method(publicKeyMultibase="zBroken"),
        method(publicKeyMultibase=None),
        method(controller="did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"),
        {name: value for name, value in method().items() if name != "controller"},
        "#atproto",
    ]
    for entry in unusable:
        assert key_of(entry) is None
    assert key_of(*unusable, method(), method(publicKeyMultibase=OTHER)) == parse_multikey(K256)


def test_how_many_entries_are_looked_at() -> None:
    unusable = method(publicKeyMultibase=ED25519)
    assert key_of(*[unusable] * (diddoc.MAX_ENTRIES - 1), method()) == parse_multikey(K256)
    assert key_of(*[unusable] * diddoc.MAX_ENTRIES, method()) is None
    others = [method(id=f"{DID}#{number}") for number in range(100)]
    assert key_of(*others, method()) == parse_multikey(K256)


def test_a_key_id_may_be_relative_but_is_this_accounts() -> None:
    assert key_of(method(id="#atproto")) == parse_multikey(K256)
    assert key_of(method(id="did:plc:aaaaaaaaaaaaaaaaaaaaaaaa#atproto")) is None
    assert key_of(method(id="atproto")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"publicKeyMultibase": None},
        {"publicKeyMultibase": "z" + "1" * 60_000},
        {"publicKeyMultibase": "zQ3sh"},
        {"type": None},
        {"type": "Ed25519VerificationKey2020"},
        {"type": ["Multikey"]},
    ],
)
def test_an_unusable_key_is_none(changes: dict[str, Any]) -> None:
    assert key_of(method(**changes)) is None


def test_the_older_key_type() -> None:
    key = parse_multikey(K256)
    legacy = "z" + base58(key.compressed)
    assert key_of(method(type="EcdsaSecp256k1VerificationKey2019", publicKeyMultibase=legacy)) == key


def base58(data: bytes) -> str:
    number, text = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + text
    return text


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://pds.example.com", Endpoint("pds.example.com", True)),
        ("https://pds.example.com/", Endpoint("pds.example.com", True)),
        ("https://PDS.Example.COM.", Endpoint("pds.example.com", True)),
        ("https://pds.example.com:443", Endpoint("pds.example.com", True)),
        ("http://localhost:2583", Endpoint("localhost:2583", False)),
        ("https://pds.example.com/path", Endpoint("pds.example.com", True)),
        ("https://pds.example.com//", Endpoint("pds.example.com", True)),
        ("HTTPS://pds.example.com:8443/a?b", Endpoint("pds.example.com:8443", True)),
        ("wss://pds.example.com", None),
        ("https://user@pds.example.com", None),
        ("pds.example.com", None),
        ("ftp://pds.example.com", None),
        ("", None),
        (None, None),
        ({"uri": "https://pds.example.com"}, None),
        (["https://pds.example.com"], None),
    ],
)
def test_only_http_addresses_are_endpoints(url: Any, endpoint: Endpoint | None) -> None:
    assert pds_of(service(serviceEndpoint=url)) == endpoint


def test_the_first_service_that_matches_counts() -> None:
    other = service(serviceEndpoint="https://other.example.com")
    assert pds_of(service(id="#labeler"), other) == Endpoint("other.example.com", True)
    assert pds_of(service(id=f"{DID}#atproto_pds"), other) == Endpoint("pds.example.com", True)
    assert pds_of(service(type="Other"), other) == Endpoint("other.example.com", True)
    assert pds_of(service(serviceEndpoint="ftp://pds.example.com"), other) == Endpoint("other.example.com", True)
    assert pds_of(service(id="did:plc:aaaaaaaaaaaaaaaaaaaaaaaa#atproto_pds")) is None


@pytest.mark.parametrize(
    ("names", "handle"),
    [
        (["at://User.Example.com"], "user.example.com"),
        (["https://x.example.com", "at://bad_name", 7, "at://b.example.com", "at://c.example.com"], "b.example.com"),
        (["at://did:plc:ewvi7nxzyoun6zhxrhs64oiz"], None),
        ([], None),
    ],
)
def test_the_first_sound_handle_counts(names: list[Any], handle: str | None) -> None:
    assert diddoc.parse(document(alsoKnownAs=names), DID).handle == handle


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "did-document-json"),
        (b"[]", "did-document-json"),
        (b"null", "did-document-json"),
        (b"{", "did-document-json"),
        (b'{"id": "\xff"}', "did-document-json"),
        ('{"id": "x"}'.encode("utf-16"), "did-document-json"),
        (b"[" * 60_000, "did-document-json"),
        (b'{"a":' * 10_000, "did-document-json"),
        (b'{"id": ' + b"9" * 60_000 + b"}", "did-document-json"),
        (b"{}", "did-document-id"),
        (b'{"id": ["' + DID.encode() + b'"]}', "did-document-id"),
        (document(id=DID.upper()), "did-document-id"),
        (document(id=DID + "#"), "did-document-id"),
        (b" " * 65_537, "did-document-size"),
        (b"[" * 5_000_000, "did-document-size"),
    ],
)
def test_what_is_not_a_document_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(DidDocumentError) as caught:
        diddoc.parse(body, DID)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([DID, "#atproto", K256]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["id", "type"]), inner),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["alsoKnownAs", "verificationMethod", "service"], JSON)))
def test_any_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    parsed = diddoc.parse(json.dumps({"id": DID} | fields).encode(), DID)
    assert parsed.did == DID

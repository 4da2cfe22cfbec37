"""Facts survive being packed and being a row, whole; DIDs are located by the rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay.atproto.crypto import PublicKey
from relay.atproto.hostname import Endpoint
from relay.identity.identity import Fact, Identity, Tombstone, from_row, pack, resolved_at, to_row, unpack
from relay.identity.lookup import locate
from relay.kit.errors import IdentityError
from tests.support.repo import SigningKey, account_did

DID = account_did(1)
WEB = "did:web:example.com"


def _facts() -> Iterator[Fact]:
    yield Tombstone(DID)
    for signing in (SigningKey.create("k256"), SigningKey.create("p256")):
        key = PublicKey.from_compressed(signing.curve, signing.public)
        for pds in (Endpoint("pds.example.com", True), Endpoint("localhost:2583", False), None):
            for handle in ("alice.example.com", "", None):
                yield Identity(DID, pds, key, handle)
    yield Identity(WEB, None, None, None)
    yield Identity(WEB, Endpoint("[::1]:8080", False), None, "xn--bcher-kva.example")


@pytest.mark.parametrize("fact", list(_facts()), ids=repr)
def test_a_fact_comes_back_as_it_was(fact: Fact) -> None:
    packed = pack(fact, 1_764_000_000.25)
    assert unpack(fact.did, packed) == fact
    assert resolved_at(packed) == 1_764_000_000.25
    row = to_row(fact, 1_764_000_000.25)
    assert from_row(row) == fact
    assert row.resolved_at == 1_764_000_000.25


def test_a_packed_identity_is_small() -> None:
    key = PublicKey.from_compressed("k256", SigningKey.create().public)
    fact = Identity(DID, Endpoint("morel.us-east.host.bsky.network", True), key, "somebody.bsky.social")
    assert len(pack(fact, 1_764_000_000.0)) < 100


@pytest.mark.parametrize(
    ("did", "url"),
    [
        (DID, ""),
        ("did:web:example.com", "https://example.com/.well-known/did.json"),
        ("did:web:a-b.xn--bcher-kva.example", "https://a-b.xn--bcher-kva.example/.well-known/did.json"),
    ],
)
def test_a_did_is_located(did: str, url: str) -> None:
    assert locate(did, allow_insecure=False).url == url


@pytest.mark.parametrize(
    ("did", "url"),
    [
        ("did:web:localhost", "http://localhost/.well-known/did.json"),
        ("did:web:localhost%3A8080", "http://localhost:8080/.well-known/did.json"),
    ],
)
def test_localhost_is_for_test_networks_only(did: str, url: str) -> None:
    assert locate(did, allow_insecure=True).url == url
    with pytest.raises(IdentityError):
        locate(did, allow_insecure=False)


@pytest.mark.parametrize(
    "did",
    [
        "",
        "did:plc:",
        DID.upper(),
        DID + "a",
        DID[:-1],
        DID + "\n",
        DID + "/../export",
        "did:key:zQ3sh",
        "did:web:",
        "did:web:com",
        "did:web:Example.com",
        "did:web:example.com.",
        "did:web:example.com%3A8080",
        "did:web:example.com:user",
        "did:web:example.com/path",
        "did:web:example.com?q",
        "did:web:example.com#f",
        "did:web:user@example.com",
        "did:web:-a.example.com",
        "did:web:10.0.0.1",
        "did:web:%5B::1%5D",
        "did:web:ex%61mple.com",
        "did:web:example.com\n",
        "did:web:" + "a" * 64 + ".com",
        "did:web:" + "a." * 200 + "com",
        "did:web:localhost%3A8080x",
        "did:web:localhost:8080",
        "did:web:localhost%3A",
    ],
)
def test_other_dids_are_not_asked_for(did: str) -> None:
    for allow_insecure in (False, True):
        with pytest.raises(IdentityError) as error:
            locate(did, allow_insecure=allow_insecure)
        assert error.value.reason == "did-not-found"

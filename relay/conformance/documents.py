"""DID documents of fake accounts, as a directory gives them, in today's form and in the older ones.

https://atproto.com/specs/did
"""

from __future__ import annotations

from typing import Any

from relay.conformance.keys import SigningKey, base58btc

LEGACY_TYPES = {"k256": "EcdsaSecp256k1VerificationKey2019", "p256": "EcdsaSecp256r1VerificationKey2019"}


def did_document(did: str, key: SigningKey, pds: str) -> dict[str, Any]:
    """Today's form."""
    return {
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did,
        "alsoKnownAs": ["at://account.test"],
        "verificationMethod": [method(did, "Multikey", key.multikey)],
        "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds}],
    }


def legacy_document(did: str, key: SigningKey, pds: str) -> dict[str, Any]:
    """With a key as older documents have it: the bare point, and an id relative to the document."""
    point = base58btc(key.point(compressed=False))
    entry = {**method(did, LEGACY_TYPES[key.curve], point), "id": "#atproto"}
    return {**did_document(did, key, pds), "verificationMethod": [entry]}


def method(did: str, kind: str, multibase: str) -> dict[str, str]:
    """The account's signing key."""
    return {"id": f"{did}#atproto", "type": kind, "controller": did, "publicKeyMultibase": multibase}

"""Who a fake account is: signing keys on both curves that the protocol has, and DID documents as a directory has them.

Used by `stage`, `repository` and the scenarios. https://atproto.com/specs/cryptography, https://atproto.com/specs/did
"""

from __future__ import annotations

from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.atproto.crypto import PublicKey

CurveName = Literal["k256", "p256"]

LEGACY_TYPES = {"k256": "EcdsaSecp256k1VerificationKey2019", "p256": "EcdsaSecp256r1VerificationKey2019"}

_CURVES: dict[CurveName, ec.EllipticCurve] = {"k256": ec.SECP256K1(), "p256": ec.SECP256R1()}
_ORDERS: dict[CurveName, int] = {
    "k256": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    "p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


class SigningKey:
    """A random key of a curve."""

    def __init__(self, curve: CurveName = "k256") -> None:
        self.curve = curve
        self._key = ec.generate_private_key(_CURVES[curve])

    def sign(self, message: bytes, *, high_s: bool = False) -> bytes:
        """64 bytes, r and s. The protocol wants the lower of the two s that are right."""
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(SHA256())))
        order = _ORDERS[self.curve]
        if (s > order // 2) is not high_s:
            s = order - s
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def point(self, *, compressed: bool = True) -> bytes:
        """The public key as a point."""
        form = PublicFormat.CompressedPoint if compressed else PublicFormat.UncompressedPoint
        return self._key.public_key().public_bytes(Encoding.X962, form)

    @property
    def multikey(self) -> str:
        """The public key as a DID document has it today."""
        return PublicKey.from_compressed(self.curve, self.point()).to_multikey()


def base58btc(data: bytes) -> str:
    """Multibase `z`, for keys in the forms that older documents have."""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = alphabet[digit] + text
    return "z" + text


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

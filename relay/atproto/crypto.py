"""Public keys of accounts and their signatures: Multikey, low-S ECDSA on p256 and k256.

`diddoc` parses keys with it, `commit` verifies signatures. libsecp256k1 (coincurve) and OpenSSL (cryptography) do the
arithmetic; pure-Python `ecdsa` stands in where they cannot be imported. A `PublicKey` is its 33 bytes: the native
objects take up to 2 KB and are made again when needed. Must not know whose key one is. Specification: https://atproto.com/specs/cryptography
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Literal, Protocol

import ecdsa
from ecdsa.util import sigdecode_string

from relay.atproto.errors import KeyInvalid

try:
    import coincurve
    from coincurve._libsecp256k1 import ffi, lib  # type: ignore[import-not-found, unused-ignore]
    from coincurve.context import GLOBAL_CONTEXT
except ImportError:
    coincurve = None  # type: ignore[assignment]
else:
    _SIGNATURE = ffi.typeof("secp256k1_ecdsa_signature *")
    _CONTEXT = GLOBAL_CONTEXT.ctx
try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256
except ImportError:
    ec = None  # type: ignore[assignment]
else:
    _PREHASHED = ec.ECDSA(Prehashed(SHA256()))

Curve = Literal["p256", "k256"]

REASONS = frozenset({"key-multibase", "key-type", "key-point"})

# The longest multibase text of a key is 90 characters (65 bytes). Base58 is quadratic, so the length is checked first.
MAX_MULTIBASE = 128

# How many native key objects are kept parsed. Each saves 5 us (k256) or 23 us (p256) a signature.
PARSED_KEYS = 16384

MULTICODEC: dict[Curve, bytes] = {"p256": b"\x80\x24", "k256": b"\xe7\x01"}

LEGACY_TYPES: dict[str, Curve] = {
    "EcdsaSecp256r1VerificationKey2019": "p256",
    "EcdsaSecp256k1VerificationKey2019": "k256",
}

_CURVES: dict[Curve, ecdsa.curves.Curve] = {"p256": ecdsa.NIST256p, "k256": ecdsa.SECP256k1}

# A signature with s above half the group order is the malleated twin of a valid one.
MAX_S: dict[Curve, bytes] = {name: (curve.order // 2).to_bytes(32) for name, curve in _CURVES.items()}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A point on one of the two curves, as 33 compressed bytes. Always valid: construction raises KeyInvalid."""

    curve: Curve
    compressed: bytes

    def __post_init__(self) -> None:
        if len(self.compressed) != 33 or self.compressed[0] not in (2, 3):
            raise KeyInvalid("key-point", f"{len(self.compressed)} bytes are not a compressed point")
        _verifier(self.curve, self.compressed)

    @classmethod
    def from_compressed(cls, curve: Curve, compressed: bytes) -> PublicKey:
        """A key from the form it is stored in."""
        return cls(curve, compressed)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's 64-byte low-S signature over sha-256 of `message`. Never raises."""
        if len(signature) != 64 or signature[32:] > MAX_S[self.curve]:
            return False
        return _verifier(self.curve, self.compressed).verify(sha256(message).digest(), signature)

    def to_multikey(self) -> str:
        """The Multikey form: multibase base58btc of multicodec and compressed point."""
        return "z" + _base58_encode(MULTICODEC[self.curve] + self.compressed)


def parse_multikey(text: str) -> PublicKey:
    """A Multikey `publicKeyMultibase`: multicodec prefix and compressed point. Raises KeyInvalid."""
    data = _multibase_decode(text)
    for curve, prefix in MULTICODEC.items():
        if data.startswith(prefix):
            return PublicKey(curve, data[len(prefix) :])
    raise KeyInvalid("key-type", "neither p256 nor k256")


def parse_verification_method(method_type: str, multibase: str) -> PublicKey:
    """The key of a DID document's verification method, by its `type` and `publicKeyMultibase`.

    The 2019 types carry the bare point, compressed or uncompressed, without a multicodec. Raises KeyInvalid.
    """
    if method_type == "Multikey":
        return parse_multikey(multibase)
    if method_type not in LEGACY_TYPES:
        raise KeyInvalid("key-type", "unknown verification method type")
    return _from_point(LEGACY_TYPES[method_type], _multibase_decode(multibase))


def _from_point(curve: Curve, point: bytes) -> PublicKey:
    """A key from its point: 33 bytes compressed, or 65 uncompressed whose y must be the one on the curve."""
    if len(point) != 65:
        return PublicKey(curve, point)
    if point[0] != 4:
        # 6 and 7 mark the hybrid form, which no specification of atproto allows.
        raise KeyInvalid("key-point", "not an uncompressed point")
    x, y = int.from_bytes(point[1:33]), int.from_bytes(point[33:])
    equation = _CURVES[curve].curve
    if y >= equation.p() or not equation.contains_point(x, y):
        raise KeyInvalid("key-point", "not on the curve")
    return PublicKey(curve, bytes([2 + (y & 1)]) + point[1:33])


_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}


def _multibase_decode(text: str) -> bytes:
    if not text.startswith("z") or len(text) > MAX_MULTIBASE:
        raise KeyInvalid("key-multibase", "not a base58btc multibase of a key's length")
    digits = text[1:]
    number = 0
    for character in digits:
        if character not in _DIGITS:
            raise KeyInvalid("key-multibase", "not in the base58 alphabet")
        number = number * 58 + _DIGITS[character]
    zeros = len(digits) - len(digits.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)


def _base58_encode(data: bytes) -> str:
    number = int.from_bytes(data)
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _ALPHABET[digit] + digits
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + digits


class Verifier(Protocol):
    """A key as one of the libraries has it. Thousands are kept, so it holds that and nothing else."""

    def verify(self, digest: bytes, signature: bytes) -> bool:
        """Whether the 64-byte signature, whose s is already known to be low, is this key's of the digest."""


class _CoincurveVerifier:
    __slots__ = ("_point",)

    def __init__(self, compressed: bytes) -> None:
        try:
            self._point = coincurve.PublicKey(compressed).public_key
        except ValueError:
            raise KeyInvalid("key-point", "not on the curve") from None

    def verify(self, digest: bytes, signature: bytes) -> bool:
        # The library's own functions, as its `verify` wants DER, which nobody else does.
        parsed = ffi.new(_SIGNATURE)
        return bool(
            lib.secp256k1_ecdsa_signature_parse_compact(_CONTEXT, parsed, signature)
            and lib.secp256k1_ecdsa_verify(_CONTEXT, parsed, digest, self._point)
        )


class _OpensslVerifier:
    __slots__ = ("_key",)

    def __init__(self, compressed: bytes) -> None:
        try:
            self._key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), compressed)
        except ValueError:
            raise KeyInvalid("key-point", "not on the curve") from None

    def verify(self, digest: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(_der(signature), digest, _PREHASHED)
        except InvalidSignature:
            return False
        return True


class _EcdsaVerifier:
    __slots__ = ("_key",)

    def __init__(self, curve: Curve, compressed: bytes) -> None:
        try:
            self._key = ecdsa.VerifyingKey.from_string(compressed, _CURVES[curve], valid_encodings=("compressed",))
        except ecdsa.errors.MalformedPointError:
            raise KeyInvalid("key-point", "not on the curve") from None

    def verify(self, digest: bytes, signature: bytes) -> bool:
        try:
            return bool(self._key.verify_digest(signature, digest, sigdecode=sigdecode_string))
        except ecdsa.BadSignatureError:
            return False


def _der(signature: bytes) -> bytes:
    r, s = signature[:32], signature[32:]
    # All but one in 128, since a low s has no sign bit.
    if r[0] and 0 < s[0] < 0x80:
        return (b"\x30\x44\x02\x20%b\x02\x20%b" if r[0] < 0x80 else b"\x30\x45\x02\x21\0%b\x02\x20%b") % (r, s)
    r, s = _der_integer(r), _der_integer(s)
    return b"\x30%c%b%b" % (len(r) + len(s), r, s)


def _der_integer(number: bytes) -> bytes:
    digits = number.lstrip(b"\0")
    if not digits or digits[0] > 0x7F:
        digits = b"\0" + digits
    return b"\x02%c%b" % (len(digits), digits)


def parsed_keys() -> int:
    """Key objects that are kept parsed now, PARSED_KEYS at most."""
    return _verifier.cache_info().currsize


@lru_cache(maxsize=PARSED_KEYS)
def _verifier(curve: Curve, compressed: bytes) -> Verifier:
    if curve == "k256" and coincurve is not None:
        return _CoincurveVerifier(compressed)
    if curve == "p256" and ec is not None:
        return _OpensslVerifier(compressed)
    return _EcdsaVerifier(curve, compressed)

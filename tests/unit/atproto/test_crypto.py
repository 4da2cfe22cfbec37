"""Keys and signatures: the interop vectors, and three implementations that must agree."""

import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import ecdsa
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from ecdsa.util import sigencode_der_canonize, sigencode_string, sigencode_string_canonize
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.atproto import crypto
from relay.atproto.crypto import Curve, PublicKey, parse_multikey, parse_verification_method
from relay.atproto.errors import KeyInvalid
from tests.support import interop
from tests.support.repo import multibase

Verify = Callable[[bytes, bytes], bool]

CURVES: dict[Curve, ecdsa.curves.Curve] = {"p256": ecdsa.NIST256p, "k256": ecdsa.SECP256k1}
LEGACY = {curve: name for name, curve in crypto.LEGACY_TYPES.items()}


def unpadded(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))


def secret(curve: Curve, seed: int = 7) -> ecdsa.SigningKey:
    return ecdsa.SigningKey.from_secret_exponent(seed, CURVES[curve])


def public(key: ecdsa.SigningKey, curve: Curve) -> PublicKey:
    return PublicKey.from_compressed(curve, key.verifying_key.to_string("compressed"))


def did_key(key: PublicKey) -> str:
    return "did:key:" + key.to_multikey()


def verifiers(key: PublicKey) -> dict[str, Verify]:
    """Every implementation there is for the curve."""
    found = {"openssl": openssl_verifier(key), "ecdsa": crypto._EcdsaVerifier(key.curve, key.compressed).verify}
    if key.curve == "k256":
        return found | {"coincurve": crypto._CoincurveVerifier(key.compressed).verify}
    return found | {"native": crypto._OpensslVerifier(key.compressed).verify}


def openssl_verifier(key: PublicKey) -> Verify:
    """OpenSSL knows both curves; on k256 it is too slow for anything but tests."""
    curve = ec.SECP256K1() if key.curve == "k256" else ec.SECP256R1()
    point = ec.EllipticCurvePublicKey.from_encoded_point(curve, key.compressed)

    def verify(digest: bytes, signature: bytes) -> bool:
        try:
            point.verify(crypto._der(signature), digest, ec.ECDSA(Prehashed(SHA256())))
        except InvalidSignature:
            return False
        return True

    return verify


@pytest.mark.parametrize(
    "vector", interop.vectors("crypto/signature-fixtures.json"), ids=lambda vector: vector["comment"]
)
def test_interop_signatures(vector: dict[str, Any]) -> None:
    message, signature = unpadded(vector["messageBase64"]), unpadded(vector["signatureBase64"])
    key = parse_multikey(vector["publicKeyDid"].removeprefix("did:key:"))
    assert did_key(key) == vector["publicKeyDid"]
    assert key.verify(message, signature) is vector["validSignature"]
    if len(signature) == 64 and "high-s" not in vector["tags"]:
        digest = sha256(message).digest()
        assert {verify(digest, signature) for verify in verifiers(key).values()} == {vector["validSignature"]}
    assert parse_verification_method(vector["didDocSuite"], vector["publicKeyMultibase"]) == key


@pytest.mark.parametrize("vector", interop.vectors("crypto/w3c_didkey_K256.json"))
def test_interop_k256_did_keys(vector: dict[str, Any]) -> None:
    key = ecdsa.SigningKey.from_string(bytes.fromhex(vector["privateKeyBytesHex"]), ecdsa.SECP256k1)
    assert did_key(public(key, "k256")) == vector["publicDidKey"]
    assert parse_multikey(vector["publicDidKey"].removeprefix("did:key:")) == public(key, "k256")


@pytest.mark.parametrize("vector", interop.vectors("crypto/w3c_didkey_P256.json"))
def test_interop_p256_did_keys(vector: dict[str, Any]) -> None:
    key = ecdsa.SigningKey.from_string(crypto._multibase_decode("z" + vector["privateKeyBytesBase58"]), ecdsa.NIST256p)
    assert did_key(public(key, "p256")) == vector["publicDidKey"]


@pytest.mark.parametrize("curve", CURVES)
@settings(max_examples=150)
@given(seed=st.integers(1, 2**200), message=st.binary(max_size=64), flip=st.integers(0, 511))
def test_implementations_agree(curve: Curve, seed: int, message: bytes, flip: int) -> None:
    signing = secret(curve, seed)
    key = public(signing, curve)
    signature = signing.sign_deterministic(message, sha256, sigencode=sigencode_string_canonize)
    assert key.verify(message, signature)
    assert not key.verify(message + b"!", signature)

    damaged = bytearray(signature)
    damaged[flip // 8] ^= 1 << flip % 8
    digest = sha256(message).digest()
    for verify in verifiers(key).values():
        assert verify(digest, signature)
        assert not verify(digest, bytes(damaged))


@pytest.mark.parametrize("curve", CURVES)
def test_high_s_is_refused(curve: Curve) -> None:
    signing = secret(curve)
    order = CURVES[curve].order
    low = signing.sign_deterministic(b"x", sha256, sigencode=sigencode_string_canonize)
    s = int.from_bytes(low[32:])
    high = sigencode_string(int.from_bytes(low[:32]), order - s, order)
    key = public(signing, curve)
    assert key.verify(b"x", low)
    assert signing.verifying_key.verify(high, b"x", sha256), "the twin is a valid signature but for the rule"
    assert not key.verify(b"x", high)


@pytest.mark.parametrize("curve", CURVES)
def test_der_is_refused(curve: Curve) -> None:
    """The same signature in the form that the libraries themselves take, and the front of it."""
    signing = secret(curve)
    key = public(signing, curve)
    lengths = set()
    for number in range(40):
        message = bytes([number])
        compact = signing.sign_deterministic(message, sha256, sigencode=sigencode_string_canonize)
        der = signing.sign_deterministic(message, sha256, sigencode=sigencode_der_canonize)
        lengths.add(len(der))
        assert key.verify(message, compact)
        assert not key.verify(message, der)
        assert not key.verify(message, der[:64])
    assert lengths <= {68, 69, 70, 71}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("length", [0, 1, 63, 65, 70, 72])
def test_only_64_byte_signatures(curve: Curve, length: int) -> None:
    assert not public(secret(curve), curve).verify(b"x", b"\x30" * length)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(("r", "s"), [(0, 0), (0, 1), (1, 0), (1, 1), (2**256 - 1, 1), (2**255, 2**200), (0x80, 0x80)])
def test_degenerate_signatures_are_false_everywhere(curve: Curve, r: int, s: int) -> None:
    key = public(secret(curve), curve)
    signature = r.to_bytes(32) + s.to_bytes(32)
    assert not key.verify(b"x", signature)
    for verify in verifiers(key).values():
        assert not verify(sha256(b"x").digest(), signature)


@settings(max_examples=300)
@given(st.binary(max_size=70))
def test_base58_round_trip(data: bytes) -> None:
    assert crypto._multibase_decode(multibase(data)) == data


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("form", ["compressed", "uncompressed"])
def test_legacy_verification_methods(curve: Curve, form: str) -> None:
    signing = secret(curve)
    text = multibase(signing.verifying_key.to_string(form))
    assert parse_verification_method(LEGACY[curve], text) == public(signing, curve)


def point(form: str, curve: Curve = "k256") -> bytes:
    return bytes(secret(curve).verifying_key.to_string(form))


@pytest.mark.parametrize(
    ("method", "text", "reason"),
    [
        ("Multikey", "", "key-multibase"),
        ("Multikey", "uAAAA", "key-multibase"),
        ("Multikey", "z0OIl", "key-multibase"),
        ("Multikey", "z" + "é" * 40, "key-multibase"),
        ("Multikey", "z" + "2" * 200, "key-multibase"),
        ("Multikey", "z", "key-type"),
        ("Multikey", multibase(b"\xed\x01" + bytes(32)), "key-type"),
        ("Multikey", multibase(b"\xe7\x01"), "key-point"),
        ("Multikey", multibase(b"\xe7\x01" + point("compressed")[:-1]), "key-point"),
        ("Multikey", multibase(b"\xe7\x01" + point("uncompressed")), "key-point"),
        ("Multikey", multibase(b"\xe7\x01\x02" + b"\xff" * 32), "key-point"),
        ("Multikey", multibase(b"\x80\x24\x02" + b"\xff" * 32), "key-point"),
        ("Multikey", multibase(b"\xe7\x01\x05" + point("compressed")[1:]), "key-point"),
        ("JsonWebKey2020", multibase(b"\xe7\x01" + point("compressed")), "key-type"),
        (LEGACY["k256"], multibase(b""), "key-point"),
        (LEGACY["k256"], multibase(point("hybrid")), "key-point"),
        (LEGACY["k256"], multibase(point("raw")), "key-point"),
        (LEGACY["k256"], multibase(point("uncompressed")[:-1] + b"\0"), "key-point"),
        (LEGACY["k256"], multibase(point("uncompressed", "p256")), "key-point"),
        (LEGACY["p256"], multibase(point("uncompressed", "k256")), "key-point"),
        (LEGACY["p256"], multibase(b"\x04" + b"\xff" * 64), "key-point"),
    ],
)
def test_bad_keys_are_named(method: str, text: str, reason: str) -> None:
    with pytest.raises(KeyInvalid) as caught:
        parse_verification_method(method, text)
    assert caught.value.reason == reason
    assert reason in crypto.REASONS


@pytest.mark.parametrize("shift", ["x", "y"])
def test_coordinates_must_be_reduced(shift: str) -> None:
    """A coordinate plus the prime still fits 32 bytes when it is small; it would be a second name of a key."""
    prime, b = CURVES["k256"].curve.p(), CURVES["k256"].curve.b()
    if shift == "x":
        x = 1
        y = pow(x**3 + b, (prime + 1) // 4, prime)
        alias = (x + prime, y)
    else:
        y = next(y for y in range(1, 99) if pow(y * y - b, (prime - 1) // 3, prime) == 1)
        x = pow(y * y - b, (prime + 2) // 9, prime)
        alias = (x, y + prime)
    good = b"\x04" + x.to_bytes(32) + y.to_bytes(32)
    assert parse_verification_method(LEGACY["k256"], multibase(good)).compressed[1:] == x.to_bytes(32)
    with pytest.raises(KeyInvalid):
        parse_verification_method(LEGACY["k256"], multibase(b"\x04" + b"".join(n.to_bytes(32) for n in alias)))


@settings(max_examples=300)
@given(st.text(max_size=140), st.sampled_from(["Multikey", *LEGACY.values()]))
def test_hostile_text_raises_only_key_invalid(text: str, method: str) -> None:
    for candidate in (text, "z" + text):
        try:
            parse_verification_method(method, candidate)
        except KeyInvalid as error:
            assert error.reason in crypto.REASONS


def test_pure_python_fallback() -> None:
    """Without the native libraries the same vectors give the same answers."""
    signing = {curve: secret(curve) for curve in CURVES}
    cases = [
        (
            public(key, curve).to_multikey(),
            key.sign_deterministic(b"m", sha256, sigencode=sigencode_string_canonize).hex(),
        )
        for curve, key in signing.items()
    ]
    program = f"""
import sys
sys.modules["coincurve"] = sys.modules["cryptography"] = None
sys.modules["cryptography.exceptions"] = None
from relay.atproto.crypto import parse_multikey
from relay.atproto.errors import KeyInvalid
for text, signature in {cases!r}:
    key = parse_multikey(text)
    assert key.verify(b"m", bytes.fromhex(signature))
    assert not key.verify(b"n", bytes.fromhex(signature))
try:
    type(key)("k256", b"\\x02" + b"\\xff" * 32)
except KeyInvalid:
    pass
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

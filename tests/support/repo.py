"""Repositories for tests and load benches, made without any code of `relay.atproto`.

    from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete, did_document, update

    key = SigningKey.create("k256", seed=1)
    repo = RepoBuilder(account_did(1), key)
    first = repo.commit(create("app.bsky.feed.post/3kabc", {"text": "hello"}))
    second = repo.commit(update(path, {...}), delete(other_path), sign_with=another_key)
    frame = second.frame(seq=17)                     # the bytes a PDS would send
    repo.sync_frame(seq), repo.account_frame(seq, active=False, status="deactivated"), repo.identity_frame(seq)
    did_document(repo.did, key, "https://pds.example.com")

A commit that breaks a rule: `repo.commit(..., commit_fields={"version": 2})` signs an odd commit object;
`event.fields`, `event.ops` and `event.blocks` are plain containers to spoil before `frame()`. Revs and times come from
a clock of the builder's own (2025-06-15, one millisecond a commit), so the same calls give the same bytes on k256.
"""

from __future__ import annotations

from base64 import b32encode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from coincurve import PrivateKey
from coincurve.ecdsa import der_to_cdata, serialize_compact
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.blocks import car, cbor, cid_of, link
from tests.support.repo_tree import Node, Tree, encode, grown

EPOCH_US = 1_750_000_000_000_000
POST = "app.bsky.feed.post"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def tid(micros: int, clock_id: int = 0) -> str:
    number = micros << 10 | clock_id
    return "".join("234567abcdefghijklmnopqrstuvwxyz"[number >> shift & 31] for shift in range(60, -1, -5))


def timestamp(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def account_did(number: int) -> str:
    """A well-formed did:plc, the same for the same number."""
    return "did:plc:" + b32encode(sha256(b"%d" % number).digest()).decode().lower()[:24]


# Keys


class SigningKey:
    """A repository's signing key. `curve` is "k256" or "p256"; `public` the 33 compressed bytes."""

    def __init__(self, curve: str, secret: int) -> None:
        self.curve: Literal["k256", "p256"] = "k256" if curve == "k256" else "p256"
        if curve == "k256":
            self._k256 = PrivateKey.from_int(secret)
            self.public = self._k256.public_key.format()
        else:
            self._p256 = ec.derive_private_key(secret, ec.SECP256R1())
            self.public = self._p256.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    @classmethod
    def create(cls, curve: str = "k256", seed: int = 1) -> SigningKey:
        return cls(curve, int.from_bytes(sha256(b"%s %d" % (curve.encode(), seed)).digest()) % (P256_ORDER - 1) + 1)

    def sign(self, message: bytes) -> bytes:
        """64 bytes, low-S."""
        if self.curve == "k256":
            return bytes(serialize_compact(der_to_cdata(self._k256.sign(message))))
        r, s = decode_dss_signature(self._p256.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(32) + min(s, P256_ORDER - s).to_bytes(32)

    @property
    def multikey(self) -> str:
        """The public key as DID documents name it."""
        return multibase((b"\xe7\x01" if self.curve == "k256" else b"\x80\x24") + self.public)

    @property
    def did_key(self) -> str:
        return "did:key:" + self.multikey


def multibase(data: bytes) -> str:
    """base58btc, as multibase marks it."""
    number, digits = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + digits
    return "z" + "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def did_document(did: str, key: SigningKey, pds_url: str, handle: str = "user.test") -> dict[str, Any]:
    """The document a PLC directory would serve for this account."""
    return {
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did,
        "alsoKnownAs": [f"at://{handle}"],
        "verificationMethod": [
            {"id": f"{did}#atproto", "type": "Multikey", "controller": did, "publicKeyMultibase": key.multikey}
        ],
        "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds_url}],
    }


# Writes and events


class Write(NamedTuple):
    action: str
    path: str
    record: Any


def create(path: str, record: Any) -> Write:
    return Write("create", path, record)


def update(path: str, record: Any) -> Write:
    return Write("update", path, record)


def delete(path: str) -> Write:
    return Write("delete", path, None)


def frame(kind: str, payload: dict[str, Any]) -> bytes:
    return cbor({"op": 1, "t": kind}) + cbor(payload)


@dataclass(slots=True)
class CommitEvent:
    """A `#commit` before it is framed. `blocks` holds the commit first, then nodes, then records."""

    root: bytes
    fields: dict[str, Any]
    ops: list[dict[str, Any]]
    blocks: dict[bytes, bytes]
    proof: set[bytes] = field(default_factory=set)
    """The nodes that undoing the operations has to open."""

    def frame(self, seq: int) -> bytes:
        payload = {"seq": seq, "ops": self.ops, "blocks": car([self.root], self.blocks), **self.fields}
        return frame("#commit", payload)


class RepoBuilder:
    """One account's repository: applies writes and signs commits as a PDS does."""

    def __init__(self, did: str, key: SigningKey, *, start_us: int = EPOCH_US) -> None:
        self.did = did
        self.key = key
        self.records: dict[str, bytes] = {}
        self.micros = start_us
        self.rev = ""
        self.data = b""
        self.head = b""
        self.head_block = b""
        self._root: Node | None = None

    def begin(self, *creations: Write) -> None:
        """Make the first commit, of which nobody needs the event: its tree is grown at once, which is far cheaper."""
        self.records = {write.path: cid_of(cbor(write.record)) for write in creations}
        self._root = grown(self.records)
        self.data = encode(self._root, {})
        self._sign(self.key, {}, None)

    def commit(
        self,
        *writes: Write,
        sign_with: SigningKey | None = None,
        commit_fields: dict[str, Any] | None = None,
        at_us: int | None = None,
    ) -> CommitEvent:
        """Apply a batch of writes with distinct paths and sign the result."""
        tree, ops, records = Tree(), [], {}
        root = self._root
        for write in writes:
            op: dict[str, Any] = {"action": write.action, "path": write.path, "cid": None}
            if write.action != "create":
                op["prev"] = link(self.records[write.path])
            if write.action == "delete":
                root = tree.remove(root, write.path)
                del self.records[write.path]
            else:
                block = write.record if isinstance(write.record, bytes) else cbor(write.record)
                cid = cid_of(block)
                records[cid] = block
                root = tree.put(root, write.path, cid)
                self.records[write.path] = cid
                op["cid"] = link(cid)
            ops.append(op)
        nodes: dict[bytes, bytes] = {}
        self._root = tree.trim(root)
        previous_rev, previous_data = self.rev, self.data
        self.data = encode(self._root, nodes)
        proof = self._proof(ops)
        self._sign(sign_with or self.key, commit_fields or {}, at_us)
        fields: dict[str, Any] = {
            "repo": self.did,
            "rev": self.rev,
            "since": previous_rev or None,
            "commit": link(self.head),
            "time": timestamp(self.micros),
            "blobs": [],
            "rebase": False,
            "tooBig": False,
        }
        if previous_data:
            fields["prevData"] = link(previous_data)
        blocks = {self.head: self.head_block, **nodes, **proof, **records}
        return CommitEvent(self.head, fields, ops, blocks, set(proof))

    def sync_frame(self, seq: int) -> bytes:
        """A `#sync` that states the current commit."""
        blocks = car([self.head], {self.head: self.head_block})
        payload = {"did": self.did, "rev": self.rev, "seq": seq, "blocks": blocks, "time": timestamp(self.micros)}
        return frame("#sync", payload)

    def identity_frame(self, seq: int, handle: str | None = None) -> bytes:
        payload = {"did": self.did, "seq": seq, "time": timestamp(self.micros)}
        return frame("#identity", payload if handle is None else {**payload, "handle": handle})

    def account_frame(self, seq: int, *, active: bool = True, status: str | None = None) -> bytes:
        payload = {"did": self.did, "seq": seq, "time": timestamp(self.micros), "active": active}
        return frame("#account", payload if status is None else {**payload, "status": status})

    def _sign(self, key: SigningKey, changes: dict[str, Any], at_us: int | None) -> None:
        self.micros = self.micros + 1000 if at_us is None else at_us
        self.rev = tid(self.micros)
        unsigned = {
            "did": self.did,
            "version": 3,
            "data": link(self.data),
            "rev": self.rev,
            "prev": None,
            **changes,
        }
        signed = {**unsigned, "sig": key.sign(cbor(unsigned))} if "sig" not in unsigned else unsigned
        self.head_block = cbor(signed)
        self.head = cid_of(self.head_block)

    def _proof(self, ops: list[dict[str, Any]]) -> dict[bytes, bytes]:
        """The nodes of the new tree that undoing `ops` opens, in the order in which the reference relay does it."""
        tree = Tree()
        root = self._root
        for op in sorted(ops, key=lambda op: (op["action"] != "delete", op["path"])):
            if op["action"] == "create":
                root = tree.remove(root, op["path"])
            else:
                root = tree.put(root, op["path"], op["prev"].value[1:])
        tree.trim(root)
        return tree.seen


def post(repo: RepoBuilder, name: str) -> CommitEvent:
    """A commit that creates the post `name`."""
    return repo.commit(create(f"{POST}/{name}", {"text": name}))

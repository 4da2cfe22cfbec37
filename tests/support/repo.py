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
The tree is kept by copying the changed path, about 0.4 ms a commit on 2,000 records.
"""

from __future__ import annotations

from base64 import b32encode
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import cbor2
from coincurve import PrivateKey
from coincurve.ecdsa import der_to_cdata, serialize_compact
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

EPOCH_US = 1_750_000_000_000_000
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


# Content ids, CBOR, CAR, TIDs


def cid_of(data: bytes) -> bytes:
    """The binary CID of a dag-cbor block."""
    return b"\x01\x71\x12\x20" + sha256(data).digest()


def cid_text(cid: bytes) -> str:
    return "b" + b32encode(cid).decode().lower().rstrip("=")


def link(cid: bytes | None) -> cbor2.CBORTag | None:
    """A CID as a CBOR value."""
    return None if cid is None else cbor2.CBORTag(42, b"\0" + cid)


def cbor(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def car(roots: Iterable[bytes], blocks: dict[bytes, bytes]) -> bytes:
    header = cbor({"version": 1, "roots": [link(root) for root in roots]})
    parts = [varint(len(header)), header]
    for cid, block in blocks.items():
        parts += varint(len(cid) + len(block)), cid, block
    return b"".join(parts)


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


# The tree. A node is never changed: every operation copies the path it touches.


@lru_cache(maxsize=200_000)
def layer_of(path: str) -> int:
    """Leading zero bits of sha-256, in pairs."""
    bits = 256 - int.from_bytes(sha256(path.encode()).digest()).bit_length()
    return bits // 2


class Node:
    """One node: `children[i]` is the subtree before `keys[i]`, the last one the subtree after all keys."""

    __slots__ = ("block", "children", "cid", "keys", "layer", "values")

    def __init__(self, layer: int, keys: list[str], values: list[bytes], children: list[Node | None]) -> None:
        self.layer = layer
        self.keys = keys
        self.values = values
        self.children = children
        self.cid: bytes | None = None
        self.block = b""


class Tree:
    """Operations on immutable nodes. `seen` collects the nodes that had to be opened, by their CID."""

    def __init__(self) -> None:
        self.seen: dict[bytes, bytes] = {}

    def _open(self, node: Node) -> Node:
        if node.cid is not None:
            self.seen[node.cid] = node.block
        return node

    def put(self, node: Node | None, path: str, value: bytes) -> Node:
        """The tree with `path` set to `value`."""
        layer = layer_of(path)
        if node is None:
            return Node(layer, [path], [value], [None, None])
        if layer > node.layer:
            left, right = self._split(node, path)
            return Node(layer, [path], [value], [_lift(left, layer - 1), _lift(right, layer - 1)])
        self._open(node)
        i = bisect_left(node.keys, path)
        if layer < node.layer:
            child = _lift(self.put(node.children[i], path, value), node.layer - 1)
            return Node(node.layer, node.keys, node.values, _spliced(node.children, i, 1, child))
        if i < len(node.keys) and node.keys[i] == path:
            return Node(node.layer, node.keys, _spliced(node.values, i, 1, value), node.children)
        left, right = self._split(node.children[i], path)
        return Node(
            layer,
            _spliced(node.keys, i, 0, path),
            _spliced(node.values, i, 0, value),
            _spliced(node.children, i, 1, left, right),
        )

    def remove(self, node: Node | None, path: str) -> Node | None:
        """The tree without `path`, which must be in it. Not trimmed at the top."""
        if node is None:
            raise KeyError(path)
        self._open(node)
        i = bisect_left(node.keys, path)
        if i < len(node.keys) and node.keys[i] == path:
            child = self._merge(node.children[i], node.children[i + 1])
            return _pruned(
                Node(
                    node.layer,
                    _spliced(node.keys, i, 1),
                    _spliced(node.values, i, 1),
                    _spliced(node.children, i, 2, child),
                )
            )
        child = self.remove(node.children[i], path)
        return _pruned(Node(node.layer, node.keys, node.values, _spliced(node.children, i, 1, child)))

    def trim(self, node: Node | None) -> Node:
        """The tree without entry-less nodes at the top; the empty tree is one empty node."""
        while node is not None and not node.keys:
            node = self._open(node).children[0]
        return node or Node(0, [], [], [None])

    def _split(self, node: Node | None, path: str) -> tuple[Node | None, Node | None]:
        if node is None:
            return None, None
        self._open(node)
        i = bisect_left(node.keys, path)
        left, right = self._split(node.children[i], path)
        return (
            _pruned(Node(node.layer, node.keys[:i], node.values[:i], [*node.children[:i], left])),
            _pruned(Node(node.layer, node.keys[i:], node.values[i:], [right, *node.children[i + 1 :]])),
        )

    def _merge(self, left: Node | None, right: Node | None) -> Node | None:
        if left is None or right is None:
            return left or right
        self._open(left)
        self._open(right)
        middle = self._merge(left.children[-1], right.children[0])
        return Node(
            left.layer,
            left.keys + right.keys,
            left.values + right.values,
            [*left.children[:-1], middle, *right.children[1:]],
        )


def _spliced(items: list[Any], start: int, count: int, *new: Any) -> list[Any]:
    return [*items[:start], *new, *items[start + count :]]


def _pruned(node: Node) -> Node | None:
    return node if node.keys or node.children[0] else None


def _lift(node: Node | None, layer: int) -> Node | None:
    """The subtree with entry-less nodes on top, so that it stands at `layer`."""
    while node is not None and node.layer < layer:
        node = Node(node.layer + 1, [], [], [node])
    return node


def encode(node: Node, blocks: dict[bytes, bytes]) -> bytes:
    """The node's CID. Every node encoded for the first time is added to `blocks`."""
    if node.cid is None:
        links = [None if child is None else link(encode(child, blocks)) for child in node.children]
        entries, previous = [], b""
        for path, value, right in zip(node.keys, node.values, links[1:], strict=True):
            key = path.encode()
            shared = shared_length(previous, key)
            entries.append({"p": shared, "k": key[shared:], "v": link(value), "t": right})
            previous = key
        node.block = cbor({"l": links[0], "e": entries})
        node.cid = cid_of(node.block)
        blocks[node.cid] = node.block
    return node.cid


def shared_length(previous: bytes, key: bytes) -> int:
    """How many bytes the two begin with in common."""
    shared = 0
    while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
        shared += 1
    return shared


def build(records: Mapping[str, bytes], blocks: dict[bytes, bytes]) -> bytes:
    """The tree of `records` straight from its definition; returns the root's CID."""
    return encode(grown(records), blocks)


def grown(records: Mapping[str, bytes]) -> Node:
    """The tree of `records` straight from its definition."""

    def subtree(paths: list[str], layer: int) -> Node | None:
        if not paths:
            return None
        here = [i for i, path in enumerate(paths) if layer_of(path) == layer]
        keys = [paths[i] for i in here]
        children = [subtree(paths[a + 1 : b], layer - 1) for a, b in pairwise([-1, *here, len(paths)])]
        return Node(layer, keys, [records[key] for key in keys], children)

    paths = sorted(records)
    return Tree().trim(subtree(paths, max(map(layer_of, paths), default=0)))


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

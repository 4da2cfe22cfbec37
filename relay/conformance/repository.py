"""Repositories of fake accounts: applies writes and signs commits as a PDS does. Used by the scenarios.

What a commit sends is left open until it is framed, so that a scenario can change one thing of it: `fields`, `ops` and
`blocks` are plain containers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple

from relay.atproto import drisl
from relay.atproto.cid import Cid
from relay.atproto.syntax import TID_ALPHABET
from relay.conformance.identities import SigningKey
from relay.conformance.tree import tree_of

POSTS = "app.bsky.feed.post"


class Write(NamedTuple):
    """One change of a record; `record` is the value, or its bytes, or None for a delete."""

    action: str
    path: str
    record: Any


@dataclass
class CommitEvent:
    """A `#commit` before it is framed. `root` is what the CAR gives as its root."""

    fields: dict[str, Any]
    ops: list[dict[str, Any]]
    blocks: dict[Cid, bytes]
    root: Cid

    @property
    def did(self) -> str:
        """Whose commit it is, as the event says."""
        return str(self.fields["repo"])

    @property
    def rev(self) -> str:
        """Its rev, as the event says."""
        return str(self.fields["rev"])

    @property
    def car(self) -> bytes:
        """The blocks as a CAR file."""
        return car_of([self.root], self.blocks.items())

    def frame(self, seq: int) -> bytes:
        """The message that a host sends."""
        return frame("#commit", {"blocks": self.car, "ops": self.ops, "seq": seq, **self.fields})


class Repository:
    """One account's repository. Revs come from the clock and rise by the millisecond at least."""

    def __init__(self, did: str, key: SigningKey) -> None:
        self.did = did
        self.key = key
        self.records: dict[str, Cid] = {}
        self.rev: str | None = None
        self.data: Cid | None = None
        self.head: Cid | None = None
        self.head_block = b""
        self._micros = int(time.time() * 1e6) - 60_000_000
        self._numbers = count(1)

    def create(self, record: Any = None, collection: str = POSTS) -> Write:
        """A write of a new record under a name of its own."""
        number = next(self._numbers)
        content = {"$type": collection, "text": f"number {number}"} if record is None else record
        return Write("create", f"{collection}/record-{number}", content)

    def commit(
        self,
        *writes: Write,
        key: SigningKey | None = None,
        changes: Mapping[str, Any] | None = None,
        ahead_us: int | None = None,
        tree: tuple[Cid, dict[Cid, bytes]] | None = None,
        high_s: bool = False,
    ) -> CommitEvent:
        """Apply writes and sign the result.

        For what breaks rules there are another `key`, `changes` of the commit object, a rev that is `ahead_us` of the
        clock, another `tree`, and the `high_s`.
        """
        ops: list[dict[str, Any]] = []
        records: dict[Cid, bytes] = {}
        for write in writes:
            op: dict[str, Any] = {"action": write.action, "path": write.path, "cid": None}
            if write.action != "create":
                op["prev"] = self.records.pop(write.path)
            if write.action != "delete":
                block = write.record if isinstance(write.record, bytes) else drisl.encode(write.record)
                op["cid"] = self.records[write.path] = Cid.of_dag_cbor(block)
                records[op["cid"]] = block
            ops.append(op)
        before, since = self.data, self.rev
        self.data, nodes = tree or tree_of(self.records)
        self._sign(key or self.key, changes or {}, ahead_us, high_s)
        assert self.head is not None
        fields: dict[str, Any] = {
            "repo": self.did,
            "rev": self.rev,
            "since": since,
            "commit": self.head,
            "time": now(),
            "blobs": [],
            "rebase": False,
            "tooBig": False,
        }
        if before is not None:
            fields["prevData"] = before
        return CommitEvent(fields, ops, {self.head: self.head_block, **nodes, **records}, self.head)

    def sync_frame(self, seq: int, **changes: Any) -> bytes:
        """A `#sync` of the newest commit."""
        assert self.head is not None
        blocks = car_of([self.head], [(self.head, self.head_block)])
        fields = {"did": self.did, "rev": self.rev, "blocks": blocks, "time": now(), "seq": seq}
        return frame("#sync", {**fields, **changes})

    def identity_frame(self, seq: int, **changes: Any) -> bytes:
        """An `#identity` of the account."""
        return frame("#identity", {"did": self.did, "time": now(), "seq": seq, **changes})

    def account_frame(self, seq: int, *, active: bool, status: str | None = None) -> bytes:
        """An `#account` with the host's word on it."""
        told = {} if status is None else {"status": status}
        return frame("#account", {"did": self.did, "time": now(), "seq": seq, "active": active, **told})

    def _sign(self, key: SigningKey, changes: Mapping[str, Any], ahead_us: int | None, high_s: bool) -> None:
        self._micros += 1_000
        self.rev = tid(self._micros if ahead_us is None else int(time.time() * 1e6) + ahead_us)
        commit = {"did": self.did, "version": 3, "data": self.data, "rev": self.rev, "prev": None, **changes}
        unsigned = {name: value for name, value in commit.items() if value is not ...}
        self.head_block = drisl.encode({**unsigned, "sig": key.sign(drisl.encode(unsigned), high_s=high_s)})
        self.head = Cid.of_dag_cbor(self.head_block)


def frame(kind: str, payload: Mapping[str, Any]) -> bytes:
    """A message of the event stream. Fields that are `...` are left out."""
    content = {name: value for name, value in payload.items() if value is not ...}
    return drisl.encode({"op": 1, "t": kind}) + drisl.encode(content)


def car_of(roots: Iterable[Cid], blocks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A CAR file, version 1, of these blocks in this order."""
    header = drisl.encode({"version": 1, "roots": list(roots)})
    parts = [_varint(len(header)), header]
    for cid, block in blocks:
        parts += _varint(len(cid) + len(block)), cid, block
    return b"".join(parts)


def tid(micros: int) -> str:
    """The timestamp identifier of microseconds since 1970."""
    return "".join(TID_ALPHABET[micros << 10 >> shift & 31] for shift in range(60, -1, -5))


def now() -> str:
    """The time, as events state it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)

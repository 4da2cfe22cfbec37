"""One payload of each kind of event for tests of frames, and frames made of them."""

from __future__ import annotations

from typing import Any

from relay.atproto import drisl, frames
from relay.atproto.cid import Cid
from tests.support.repo import account_did

DID = account_did(1)
TIME = "2026-01-01T00:00:00.000Z"
REV = "3jzfcijpj2z2a"
LINK = Cid.of_dag_cbor(b"commit")
DATA = Cid.of_dag_cbor(b"data")
RECORD = Cid.of_dag_cbor(b"record")

COMMIT: dict[str, Any] = {
    "seq": 100,
    "rebase": False,
    "tooBig": False,
    "repo": DID,
    "commit": LINK,
    "rev": REV,
    "since": "3jzfcijpj2z22",
    "blocks": b"the blocks",
    "ops": [
        {"action": "create", "path": "app.bsky.feed.post/a", "cid": RECORD},
        {"action": "update", "path": "app.bsky.feed.post/b", "cid": RECORD, "prev": DATA},
        {"action": "delete", "path": "app.bsky.feed.post/c", "cid": None, "prev": DATA},
    ],
    "blobs": [],
    "prevData": DATA,
    "time": TIME,
}
SYNC = {"seq": 100, "did": DID, "rev": REV, "blocks": b"the blocks", "time": TIME}
IDENTITY = {"seq": 100, "did": DID, "time": TIME, "handle": "user.example.com"}
ACCOUNT = {"seq": 100, "did": DID, "time": TIME, "active": False, "status": "suspended"}
PAYLOADS = {"#commit": COMMIT, "#sync": SYNC, "#identity": IDENTITY, "#account": ACCOUNT}


def message(name: str, payload: Any) -> bytes:
    return drisl.encode({"op": 1, "t": name}) + drisl.encode(payload)


def without(payload: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in names}


def event(frame: bytes) -> frames.Event:
    decoded = frames.decode(frame)
    assert isinstance(decoded, frames.Event)
    return decoded

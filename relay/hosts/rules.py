"""The rule behind each reason for which an event is rejected, and where it is written.

Shown on a host's page beside what was rejected, so that the author of a PDS can find the fault without help. A test
holds the reasons against `docs/drop-reasons.md`. Pure data.
"""

from __future__ import annotations

from typing import NamedTuple

SYNC = "https://atproto.com/specs/sync"
EVENTS = "https://atproto.com/specs/event-stream"
DATA = "https://atproto.com/specs/data-model"
REPO = "https://atproto.com/specs/repository"
CRYPTO = "https://atproto.com/specs/cryptography"
DID = "https://atproto.com/specs/did"
ACCOUNT = "https://atproto.com/specs/account"
TID = "https://atproto.com/specs/tid"
WEBSOCKET = "https://www.rfc-editor.org/rfc/rfc6455#section-5"


class Rule(NamedTuple):
    """What must be so, in a sentence, and the address of the specification that says it."""

    text: str
    link: str


_TEXTS: dict[str, dict[str, str]] = {
    WEBSOCKET: {
        "websocket-invalid": "A server's WebSocket frames are unmasked, uncompressed, and in turn.",
    },
    SYNC: {
        "poison": "No rule: verifying this ended the relay's worker process. Its operator should report it.",
        "message-too-big": "A WebSocket message has at most 5,000,000 bytes.",
        "frame-size": "An event has at most 5,000,000 bytes.",
        "frame-field": "All required fields of the event are there and have the lexicon's types.",
        "frame-time": "time is a datetime with a time zone.",
        "frame-blocks-size": "blocks has at most 2,000,000 bytes, and at most 10,000 in a #sync.",
        "frame-ops-count": "A commit has at most 200 operations; a larger change is sent as #sync.",
        "wrong-host": "Events of an account come from the PDS that its DID document names.",
        "rev-future": "rev is at most five minutes ahead of the clock.",
        "prev-data-missing": "A commit names prevData, the root of the tree before it.",
        "commit-did": "The signed commit has the DID that the event names.",
        "commit-rev": "The signed commit has the rev that the event names.",
        "commit-root": "The first root of the CAR is the commit that the event names.",
        "op-fields": "create has cid, update has cid and prev, delete has prev.",
        "record-missing": "Every created or updated record comes along in blocks.",
        "prev-data-mismatch": "Taking the operations back from the tree gives prevData.",
        "car-block-size": "A block has at most 1,000,000 bytes.",
        "car-root-missing": "The commit's block comes along.",
        "mst-node-missing": "All nodes that are needed to take the operations back come along.",
        "mst-key-missing": "A created or updated path is in the tree.",
        "mst-key-present": "A deleted path is not in the tree.",
        "mst-value-mismatch": "A path has the same CID in the tree and in the operation.",
        "mst-prev-missing": "An update or deletion names prev, the CID before it.",
        "mst-duplicate-path": "Several operations on one path follow from one another.",
        "internal-error": "No rule: a fault of the relay. Its operator should report it.",
    },
    EVENTS: {
        "text-message": "Messages of an event stream are binary.",
        "frame-header": "A message begins with a header, the map {op, t}, in canonical DRISL-CBOR.",
        "frame-payload": "The payload is a map.",
        "frame-seq": "seq is a number of 1 to 2^53-1.",
        "seq-not-rising": "seq rises from each event to the next.",
        "duplicate": "An event is sent once.",
    },
    DATA: {
        "frame-not-canonical": "The payload has the one encoding that DRISL allows: shortest forms, map keys in order.",
        "drisl-not-canonical": "Numbers and lengths are in their shortest form, and nothing follows the value.",
        "frame-encoding": "The payload is DRISL-CBOR.",
        "drisl-cid": "A link is tag 42 around a byte string: a zero byte and a binary CID.",
        "drisl-depth": "Values are nested 64 levels deep at most.",
        "drisl-float": "Numbers are integers; a float is finite and of 64 bits.",
        "drisl-items": "A value has at most 250,000 items.",
        "drisl-key": "Keys of a map are text.",
        "drisl-malformed": "CBOR is well-formed, text is UTF-8, and lengths are definite.",
        "drisl-order": "Keys of a map are sorted, first by length, and occur once.",
        "drisl-tag": "The only tag is 42, a link.",
        "drisl-truncated": "A value does not end in the middle.",
        "drisl-type": "Values are of the data model's types.",
    },
    DID: {
        "account-did": "The DID is a did:plc, or a did:web of a bare hostname.",
        "no-signing-key": "The DID document has a signing key with the id #atproto.",
        "did-not-found": "The DID exists.",
        "did-tombstone": "The DID was not deleted.",
        "did-document": "The DID resolves to a DID document of at most 64 KiB.",
        "did-unavailable": "The did:web host serves its document.",
    },
    ACCOUNT: {
        "account-takendown": "The account is not taken down at this relay.",
        "account-throttled": "Of one account, 32 events may wait at this relay, or more while its host has room.",
        "account-host-throttled": "The host is within its account limit at this relay.",
        "account-inactive": "Only an active account sends #commit and #sync events.",
    },
    TID: {
        "rev-syntax": "rev is a TID.",
    },
    REPO: {
        "commit-malformed": "The commit object has did, version, data, rev, prev and sig, in canonical DRISL-CBOR.",
        "mst-node-malformed": "A tree node is a canonical {l, e: [{p, k, v, t}]}, p the shared prefix, a key a path.",
        "rev-old": "rev rises from each commit of an account to the next.",
        "commit-version": "The commit object is of version 3.",
        "op-path": "An operation's path is collection/rkey.",
        "record-malformed": "A record is a map, and its CID that of an object (dag-cbor).",
        "car-header": "The CAR is of version 1 and has a root.",
        "car-truncated": "The CAR does not end in the middle.",
        "car-varint": "Lengths in the CAR are varints in their shortest form.",
        "car-cid": "Each block in the CAR has a CID, and the root is of kind dag-cbor or raw with sha-256.",
        "car-block-count": "The CAR has at most 10,000 blocks.",
        "car-block-hash": "A block is what its CID says.",
        "mst-size": "The tree nodes that come along have at most 100,000 bytes each, and 1,000,000 together.",
        "mst-empty-node": "Only the root of an empty tree, or a node with keys below it, has no entries.",
        "mst-key-layer": "A key is on the layer that its hash determines.",
        "mst-key-order": "Keys of the tree are sorted and occur once.",
    },
    CRYPTO: {
        "signature-invalid": "The commit is signed by the account's key, with a low-S signature.",
    },
}

RULES = {reason: Rule(text, link) for link, texts in _TEXTS.items() for reason, text in texts.items()}

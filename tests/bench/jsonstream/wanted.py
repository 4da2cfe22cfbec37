"""What the consumers of the JSON streams want, and what they must get of some traffic.

Used by `tests.bench.jsonstream`. Knows the filters by their meaning alone, so that no server's own code decides what is
right. Messages are told apart by what all servers say of them: not by times and numbers, which are each server's own.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from relay.atproto import frames
from relay.atproto.frames import Account, Commit, Identity
from relay.net.websocket import payload_start
from tests.bench.network.traffic import FOLLOW, LIKE, POST, PROFILE, REPOST, frames_of, index_of

READERS = 200
SEED = 22
_COLLECTIONS = (
    (POST,),
    (LIKE,),
    (REPOST,),
    ("app.bsky.graph.*",),
    ("app.bsky.feed.*",),
    (POST, REPOST),
    (FOLLOW, LIKE),
    (PROFILE.partition("/")[0],),
    ("app.bsky.graph.*", POST),
    ("com.example.*",),
)


class Wanted(NamedTuple):
    """A filter; what is empty lets everything through."""

    collections: tuple[str, ...] = ()
    dids: tuple[str, ...] = ()

    @property
    def query(self) -> str:
        pairs = [("wantedCollections", name) for name in self.collections] + [("wantedDids", did) for did in self.dids]
        return urlencode(pairs)

    def takes(self, did: str, collection: str) -> bool:
        """`collection` is empty for what is not of a record, which comes whatever collections are wanted."""
        if self.dids and did not in self.dids:
            return False
        if not collection or not self.collections:
            return True
        return any(
            collection.startswith(name.removesuffix("*")) if name.endswith(".*") else collection == name
            for name in self.collections
        )


EVERYTHING = Wanted()


def filters(accounts: list[str]) -> list[Wanted]:
    """Two hundred, as bots and feeds have them: half of them by collection, of which many are alike, a quarter by ten
    accounts, an eighth by a hundred, an eighth by posts of fifty.
    """
    chance = random.Random(SEED)
    by_collection = [Wanted(_COLLECTIONS[number % len(_COLLECTIONS)]) for number in range(READERS // 2)]

    def of(count: int) -> tuple[str, ...]:
        return tuple(chance.sample(accounts, min(count, len(accounts))))

    by_did = [Wanted(dids=of(10)) for _ in range(READERS // 4)]
    by_did += [Wanted(dids=of(100)) for _ in range(READERS // 8)]
    by_both = [Wanted((POST,), of(50)) for _ in range(READERS - len(by_collection) - len(by_did))]
    return by_collection + by_did + by_both


class Said(NamedTuple):
    """A message: of which account and collection, and all that says which one it is."""

    did: str
    collection: str
    key: str


def key_of(message: dict[str, Any]) -> str:
    """The key of a message as a server sent it."""
    if message["kind"] != "commit":
        return f"{message['did']} {message['kind']}"
    commit = message["commit"]
    path = f"{commit['collection']}/{commit['rkey']}"
    has_record = "record" if commit.get("record") else "none"
    return f"{message['did']} {commit['rev']} {commit['operation']} {path} {commit.get('cid')} {has_record}"


def digest(keys: Iterable[str]) -> str:
    """The same for the same keys in any order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


class Traffic(NamedTuple):
    """The messages of some traffic: those of each account's first event, and all."""

    accounts: list[str]
    first: list[Said]
    all: list[Said]

    def counts(self, wanted: list[Wanted]) -> tuple[list[int], list[int]]:
        """How many messages each must get of the first events, and of all."""
        return _counts(self.first, wanted), _counts(self.all, wanted)

    def digest(self, wanted: Wanted) -> str:
        """Of the keys of all messages that it must get."""
        return digest(one.key for one in self.all if wanted.takes(one.did, one.collection))


@cache
def traffic_of(folder: Path) -> Traffic:
    """What the events in a folder of `network.traffic` say."""
    accounts: list[str] = []
    first: list[Said] = []
    rest: list[Said] = []
    for number, host in enumerate(index_of(folder)):
        accounts += [account.did for account in host.accounts]
        for position, frame in enumerate(frames_of(folder, number)):
            (first if position < len(host.accounts) else rest).extend(_said(frame[payload_start(frame, 0) :]))
    return Traffic(accounts, first, first + rest)


def _counts(said: list[Said], wanted: list[Wanted]) -> list[int]:
    counted = Counter((one.did, one.collection) for one in said)
    return [sum(count for of, count in counted.items() if one.takes(*of)) for one in wanted]


def _said(frame: bytes) -> Iterator[Said]:
    event = frames.decode(frame)
    match event:
        case Commit():
            for op in event.ops:
                collection = op.path.partition("/")[0]
                has_record = "none" if op.cid is None else "record"
                key = f"{event.did} {event.rev} {op.action} {op.path} {op.cid} {has_record}"
                yield Said(event.did, collection, key)
        case Identity():
            yield Said(event.did, "", f"{event.did} identity")
        case Account():
            yield Said(event.did, "", f"{event.did} account")

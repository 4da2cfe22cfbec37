"""What reading one event costs before and beside its signature: frame, `seq`, CAR; and what strictness adds to it.

The commit is a typical one: about 3 KB, one record created in a repository of 2,000.
"""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Any

import cbor2
import cbrrr
import libipld
import pytest

from relay.atproto import car, drisl, frames
from relay.atproto.cid import Cid
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, tid


@cache
def commit_frame() -> bytes:
    repo = RepoBuilder(account_did(1), SigningKey.create())
    paths = [f"app.bsky.feed.post/{tid(number * 1_000_003)}" for number in range(2_001)]
    repo.commit(*(create(path, {"text": path}) for path in paths[1:]))
    return repo.commit(create(paths[0], {"$type": "app.bsky.feed.post", "text": "hello " * 50})).frame(1_234_567_890)


def payload() -> bytes:
    return commit_frame().removeprefix(drisl.encode({"op": 1, "t": "#commit"}))


def encoded_again(data: bytes) -> bool:
    return drisl.encode(drisl.load(data)) == data


def event() -> frames.Commit:
    decoded = frames.decode(commit_frame())
    assert isinstance(decoded, frames.Commit)
    return decoded


def hashes(blocks: list[bytes]) -> list[bytes]:
    return [sha256(block).digest() for block in blocks]


CASES: dict[str, Callable[[], tuple[Callable[..., Any], Any]]] = {
    "frame: decode": lambda: (frames.decode, commit_frame()),
    "frame: split at seq": lambda: (frames.split_at_seq, event()),
    "payload: cbor2 alone": lambda: (cbor2.loads, payload()),
    "payload: load, not yet strict": lambda: (drisl.load, payload()),
    "payload: decode, strict by counting": lambda: (drisl.decode, payload()),
    "payload: strict by encoding again": lambda: (encoded_again, payload()),
    "payload: cbrrr": lambda: (lambda data: cbrrr.decode_dag_cbor(data, cid_ctor=Cid), payload()),
    "payload: libipld": lambda: (libipld.decode_dag_cbor, payload()),
    "car: parse": lambda: (car.parse, event().blocks),
    "car: its hashes alone": lambda: (hashes, list(car.parse(event().blocks).blocks.values())),
    "car: libipld": lambda: (libipld.decode_car, event().blocks),
}


@pytest.mark.parametrize("name", CASES)
def test_decode(name: str, benchmark: Any) -> None:
    function, argument = CASES[name]()
    benchmark.extra_info["bytes"] = len(commit_frame())
    benchmark(function, argument)

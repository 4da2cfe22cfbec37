"""Against the reference implementation (`@atproto/repo`, `@atproto/crypto`): each side judges what the other made."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.atproto.cid import Cid
from relay.atproto.commit import Verified, verify_commit
from relay.atproto.crypto import parse_multikey
from relay.atproto.frames import Commit, RepoOp
from tests.support.blocks import car
from tests.support.repo import P256_ORDER, RepoBuilder, SigningKey, Write, account_did, create, delete, update
from tests.support.repo_tree import Node

HERE = Path(__file__).parent
NODE = next((HERE.parent / "e2e" / "node_modules").glob("node-linux-*/bin/node"), None)
K256_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DID = account_did(1)

pytestmark = pytest.mark.skipif(NODE is None, reason="the reference network is not installed (tests/e2e/install.sh)")

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    process = subprocess.Popen(
        [str(NODE), str(HERE / "reference.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    questions, answers = process.stdin, process.stdout

    def request(name: str, **fields: Any) -> Any:
        questions.write(json.dumps({"ask": name, **fields}) + "\n")
        questions.flush()
        answer = json.loads(answers.readline())
        assert "ok" in answer, answer
        return answer["ok"]

    yield request
    process.stdin.close()
    process.wait(timeout=10)


def random_batches(rng: random.Random, count: int) -> list[list[dict[str, Any]]]:
    paths: set[tuple[str, str]] = set()
    batches = []
    # `@atproto/repo` leaves out the block of a record that another one with the same content had; a PDS puts it back.
    number = itertools.count()
    for _ in range(count):
        batch: dict[tuple[str, str], dict[str, Any]] = {}
        for _ in range(rng.choice([1, 1, 1, 3, 20])):
            path = (rng.choice(["app.bsky.feed.like", "app.bsky.feed.post", "a.b.c"]), str(rng.randrange(150)))
            if path in batch:
                continue
            action = "create" if path not in paths else rng.choice(["update", "delete", "delete"])
            write = {"action": action, "collection": path[0], "rkey": path[1]}
            batch[path] = write if action == "delete" else {**write, "record": {"n": next(number)}}
        for path, write in batch.items():
            (paths.discard if write["action"] == "delete" else paths.add)(path)
        batches.append(list(batch.values()))
    return batches


def cid_or_none(text: str | None) -> Cid | None:
    return Cid.parse(text) if text else None


@pytest.mark.parametrize("curve", ["k256", "p256"])
@pytest.mark.parametrize("seed", range(4))
def test_commits_of_the_reference_verify(ask: Ask, curve: str, seed: int) -> None:
    """With nothing but the blocks that a PDS sends along."""
    made = ask("commits", did=DID, curve=curve, batches=random_batches(random.Random(seed), 60))
    key = parse_multikey(made["key"].removeprefix("did:key:"))
    now_us = int(time.time() * 1e6)
    for commit in made["commits"]:
        event = Commit(
            did=DID,
            seq=1,
            time="",
            rev=commit["rev"],
            since=None,
            commit=Cid.parse(commit["commit"]),
            prev_data=Cid.parse(commit["prevData"]),
            blocks=b64decode(commit["blocks"]),
            ops=tuple(
                RepoOp(op["action"], op["path"], cid_or_none(op["cid"]), cid_or_none(op["prev"]))
                for op in commit["ops"]
            ),
            too_big=False,
            rebase=False,
            frame=b"",
        )
        verified = verify_commit(event, key, now_us)
        assert isinstance(verified, Verified) and verified.inverted


def all_nodes(node: Node | None, blocks: dict[bytes, bytes]) -> None:
    if node is not None:
        assert node.cid is not None
        blocks[node.cid] = node.block
        for child in node.children:
            all_nodes(child, blocks)


@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_the_reference_reads_generated_repositories(ask: Ask, curve: str) -> None:
    """So that the generator, on which most other tests rest, is no invention of its own."""
    rng = random.Random(curve)
    repo = RepoBuilder(DID, SigningKey.create(curve))
    contents: dict[bytes, bytes] = {}
    for batch in random_batches(rng, 40):
        make: dict[str, Callable[[str, Any], Write]] = {"create": create, "update": update, "delete": _delete}
        event = repo.commit(*[make[w["action"]](f"{w['collection']}/{w['rkey']}", w.get("record")) for w in batch])
        contents |= event.blocks
    blocks = {repo.head: repo.head_block, **{cid: contents[cid] for cid in repo.records.values()}}
    all_nodes(repo._root, blocks)
    answer = ask("repository", did=DID, key=repo.key.did_key, blocks=b64encode(car([repo.head], blocks)).decode())
    assert answer == {path: str(Cid(cid)) for path, cid in repo.records.items()}


def _delete(path: str, _record: Any) -> Write:
    return delete(path)


@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_signatures_are_judged_alike(ask: Ask, curve: str) -> None:
    rng = random.Random(curve)
    order = K256_ORDER if curve == "k256" else P256_ORDER
    verdicts = set()
    for seed in range(40):
        signing = SigningKey.create(curve, seed)
        message = rng.randbytes(40)
        good = signing.sign(message)
        high = good[:32] + (order - int.from_bytes(good[32:])).to_bytes(32)
        flipped = bytearray(good)
        flipped[rng.randrange(64)] ^= 1 << rng.randrange(8)
        for signature in (good, high, bytes(flipped), good[:63], bytes(64)):
            mine = parse_multikey(signing.multikey).verify(message, signature)
            theirs = ask(
                "signature",
                key=signing.did_key,
                message=b64encode(message).decode(),
                signature=b64encode(signature).decode(),
            )
            assert mine is theirs, signature.hex()
            verdicts.add(mine)
    assert verdicts == {True, False}

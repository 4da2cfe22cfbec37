"""Every rule of the conformance suite is played from both sides, and what is played is sound where it should be."""

from __future__ import annotations

import json
import time

import pytest

from relay.atproto import diddoc
from relay.atproto.commit import Verified, verify_commit
from relay.atproto.crypto import parse_multikey
from relay.atproto.errors import SignatureInvalid
from relay.atproto.frames import Commit, decode
from relay.conformance.catalogue import all_scenarios
from relay.conformance.identities import CurveName, SigningKey, did_document, legacy_document
from relay.conformance.repository import CommitEvent, Repository, Write
from relay.conformance.rules import RULES
from relay.conformance.tree import tree_of
from tests.support.repo_tree import build

DID = "did:plc:" + "a" * 24


def test_every_rule_has_what_must_and_what_must_not() -> None:
    played = {rule: {one.good for one in all_scenarios() if one.rule == rule} for rule in RULES}
    assert {rule for rule, sides in played.items() if sides != {True, False}} == set()


def test_scenarios_have_names_of_their_own() -> None:
    names = [(one.rule, one.name) for one in all_scenarios()]
    assert len(names) == len(set(names))


def verified(event: CommitEvent, key: SigningKey) -> Verified:
    decoded = decode(event.frame(1))
    assert isinstance(decoded, Commit)
    outcome = verify_commit(decoded, parse_multikey(key.multikey), int(time.time() * 1e6))
    assert isinstance(outcome, Verified), outcome
    return outcome


@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_a_fake_accounts_commits_are_right(curve: CurveName) -> None:
    key = SigningKey(curve)
    repo = Repository(DID, key)
    writes = [repo.create() for _ in range(60)]
    verified(repo.commit(*writes), key)
    changes = [Write("update", write.path, {"changed": True}) for write in writes[:20]]
    outcome = verified(repo.commit(*changes, *[Write("delete", write.path, None) for write in writes[20:40]]), key)
    assert outcome.inverted
    assert verified(repo.commit(), key).data == repo.data


@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_the_high_s_is_the_one_thing_that_is_wrong(curve: CurveName) -> None:
    key = SigningKey(curve)
    repo = Repository(DID, key)
    with pytest.raises(SignatureInvalid):
        verified(repo.commit(repo.create(), high_s=True), key)


def test_trees_are_those_of_another_implementation() -> None:
    repo = Repository(DID, SigningKey())
    repo.commit(*[repo.create() for _ in range(200)])
    blocks: dict[bytes, bytes] = {}
    root = build({path: bytes(cid) for path, cid in repo.records.items()}, blocks)
    assert tree_of(repo.records) == (root, blocks)


@pytest.mark.parametrize("document", [did_document, legacy_document])
@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_documents_give_the_key(document: object, curve: CurveName) -> None:
    key = SigningKey(curve)
    assert callable(document)
    body = json.dumps(document(DID, key, "http://localhost:1")).encode()
    assert diddoc.parse(body, DID).key == parse_multikey(key.multikey)

"""Commits for tests of verification: a repository, a batch of operations, ways to spoil it, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import cbor2
import pytest

from relay.atproto import frames
from relay.atproto.cid import Cid
from relay.atproto.commit import Unproven, Verified, verify_commit
from relay.atproto.crypto import PublicKey, parse_multikey
from relay.atproto.errors import ProtocolError
from tests.support.blocks import car, cbor, cid_of, link, varint
from tests.support.repo import EPOCH_US, CommitEvent, RepoBuilder, SigningKey, account_did, create, delete, tid, update

DID = account_did(1)
NOW = EPOCH_US + 60_000_000
PATHS = [f"app.bsky.feed.post/{tid(EPOCH_US + number)}" for number in range(40)]


def public(key: SigningKey) -> PublicKey:
    return parse_multikey(key.multikey)


def repository(curve: str = "k256") -> RepoBuilder:
    repo = RepoBuilder(DID, SigningKey.create(curve))
    repo.commit(*[create(path, {"n": number}) for number, path in enumerate(PATHS[:30])])
    return repo


def batch(repo: RepoBuilder, **options: Any) -> CommitEvent:
    """A commit with two operations of each kind."""
    return repo.commit(
        create(PATHS[30], {"new": 1}),
        create(PATHS[31], {"new": 2}),
        update(PATHS[3], {"changed": 1}),
        update(PATHS[4], {"changed": 2}),
        delete(PATHS[8]),
        delete(PATHS[9]),
        **options,
    )


def decoded(event: CommitEvent) -> frames.Commit:
    result = frames.decode(event.frame(7))
    assert isinstance(result, frames.Commit)
    return result


def verified(event: CommitEvent, key: SigningKey, **options: Any) -> Verified:
    outcome = verify_commit(decoded(event), public(key), NOW, **options)
    assert isinstance(outcome, Verified), outcome
    return outcome


def refusal(event: CommitEvent, key: SigningKey, now_us: int = NOW, **options: Any) -> str:
    """Why the commit itself is not sound."""
    with pytest.raises(ProtocolError) as caught:
        verify_commit(decoded(event), public(key), now_us, **options)
    return caught.value.reason


def unproven(event: CommitEvent, repo: RepoBuilder, **options: Any) -> str:
    """Why the event does not prove what led to its commit, which is sound; that is all there, for a `#sync`."""
    outcome = verify_commit(decoded(event), public(repo.key), NOW, **options)
    assert isinstance(outcome, Unproven), outcome
    assert outcome[2:] == (repo.head, repo.data, repo.rev, car([repo.head], {repo.head: repo.head_block}))
    return outcome.reason


Spoil: TypeAlias = Callable[[CommitEvent], None]
OTHER = link(cid_of(b"other"))


def spoil_field(name: str, value: Any) -> Spoil:
    def spoil(event: CommitEvent) -> None:
        event.fields[name] = value

    return spoil


def spoil_op(index: int, **changes: Any) -> Spoil:
    def spoil(event: CommitEvent) -> None:
        event.ops[index].update(changes)

    return spoil


def drop_op(index: int) -> Spoil:
    def spoil(event: CommitEvent) -> None:
        del event.ops[index]

    return spoil


def repeat_op(event: CommitEvent) -> None:
    event.ops.append(event.ops[0])


def without_record(event: CommitEvent) -> None:
    del event.blocks[event.ops[0]["cid"].value[1:]]


def without_root(event: CommitEvent) -> None:
    del event.blocks[event.fields["commit"].value[1:]]


def without_tree(event: CommitEvent) -> None:
    for cid in event.proof:
        del event.blocks[cid]


def false_block(event: CommitEvent) -> None:
    cid = event.ops[0]["cid"].value[1:]
    event.blocks[cid] += b"\0"


def false_root(event: CommitEvent) -> None:
    event.blocks[event.root] += b"\0"


def update_to_the_same(event: CommitEvent) -> None:
    event.ops[2]["prev"] = event.ops[2]["cid"]


def no_cid(event: CommitEvent) -> None:
    event.blocks[b"no id at all"] = b""


def header_in_other_order(event: CommitEvent) -> None:
    """As an encoder writes it that leaves fields in the order in which they were given."""
    header = cbor2.dumps({"version": 1, "roots": [link(event.root)]})
    _, blocks = car([event.root], event.blocks).split(cbor({"version": 1, "roots": [link(event.root)]}))
    event.fields["blocks"] = varint(len(header)) + header + blocks


def no_root(event: CommitEvent) -> None:
    event.fields["blocks"] = car([], event.blocks)


def root_of_another_kind(event: CommitEvent) -> None:
    event.fields["blocks"] = car([b"\x01\x70\x12\x20" + bytes(32)], event.blocks)


def root_that_is_not_there(event: CommitEvent) -> None:
    event.fields["blocks"] = car([cid_of(b"nowhere")], event.blocks)


def too_large(event: CommitEvent) -> None:
    block = bytes(1_000_001)
    event.blocks[cid_of(block)] = block


def other_root(event: CommitEvent) -> None:
    event.root = event.ops[0]["cid"].value[1:]


def raw_root(event: CommitEvent) -> None:
    """The commit as a blob."""
    block = event.blocks[event.root]
    event.root = bytes(Cid.of_raw(block))
    event.blocks[event.root] = block
    event.fields["commit"] = link(event.root)

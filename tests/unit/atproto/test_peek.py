"""What is read of a relay's frame that is passed on: kind, account, seq and status, and nothing else is looked at."""

from __future__ import annotations

import pytest

from relay.atproto.errors import FrameError
from relay.atproto.frames import Info, Kind, Peeked, StreamError, error_frame, info_frame, peek
from tests.support.blocks import cbor
from tests.support.budget import assert_cheap
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, frame

DID = account_did(1)


def usual(seq: int) -> bytes:
    """A frame of the shape that is read without a decoder."""
    return RepoBuilder(DID, SigningKey.create()).commit(create("app.bsky.feed.post/3jzfcijpj2z2a", {})).frame(seq)


def test_events_of_every_kind() -> None:
    repo = RepoBuilder(DID, SigningKey.create(seed=1))
    commit = repo.commit(create("app.bsky.feed.post/1", {"repo": "did:plc:another", "seq": 1})).frame(77)
    assert peek(commit) == Peeked(Kind.COMMIT, DID, 77, None)
    assert peek(repo.sync_frame(78)) == Peeked(Kind.SYNC, DID, 78, None)
    assert peek(repo.identity_frame(79)) == Peeked(Kind.IDENTITY, DID, 79, None)
    assert peek(repo.account_frame(80)) == Peeked(Kind.ACCOUNT, DID, 80, None)
    assert peek(repo.account_frame(81, active=False, status="deleted")) == Peeked(Kind.ACCOUNT, DID, 81, "deleted")
    assert peek(frame("#identity", {"did": DID, "seq": 82, "new": 1})) == Peeked(Kind.IDENTITY, DID, 82, None)


def test_large_frames_are_not_decoded() -> None:
    """Whatever else is in them."""
    many: list[dict[str, int]] = [{}] * 248_000
    for name in ("#commit", "#sync", "#identity", "#account"):
        fields = {"did": DID, "repo": DID, "seq": 83, "active": False, "status": "deleted", "zzzzzzzzz": many}
        large = frame(name, fields)
        assert_cheap(lambda data: [peek(data) for _ in range(100)], large)
        peeked = peek(large)
        assert isinstance(peeked, Peeked)
        assert (peeked.did, peeked.seq, peeked.status) == (DID, 83, "deleted" if name == "#account" else None)
        with pytest.raises(FrameError, match="frame-field"):
            peek(frame(name, {"a": many, **fields}))
    usual = RepoBuilder(DID, SigningKey.create()).commit(create("app.bsky.feed.post/3jzfcijpj2z2a", bytes(20_000)))
    assert peek(usual.frame(84)) == Peeked(Kind.COMMIT, DID, 84, None)


def test_notices_and_what_is_unknown() -> None:
    assert peek(info_frame("OutdatedCursor", "old")) == Info("OutdatedCursor", "old")
    assert peek(error_frame("FutureCursor", "new")) == StreamError("FutureCursor", "new")
    assert peek(frame("#labels", {"seq": 1})) is None


@pytest.mark.parametrize(
    ("bad", "fatal"),
    [
        (b"\xff", True),
        (cbor({"op": 1, "t": "#commit"}) + b"\xa1", True),
        (frame("#commit", {"did": DID, "seq": 1}), False),
        (frame("#identity", {"did": DID}), False),
        (frame("#account", {"did": DID, "seq": 1}), False),
        (usual(1).replace(b"cseq\x01", b"cseq\x18\x00"), False),
        (usual(2**53), False),
    ],
)
def test_what_cannot_be_read_is_refused(bad: bytes, fatal: bool) -> None:
    with pytest.raises(FrameError) as refused:
        peek(bad)
    assert refused.value.fatal is fatal

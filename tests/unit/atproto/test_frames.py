"""Event stream frames: what hosts really send, what hostile ones might, and `seq` put in without touching the rest."""

import random
from typing import Any
from unittest.mock import patch

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.atproto import commit_frame, drisl, frames
from relay.atproto.cid import Cid
from relay.atproto.errors import FrameError
from relay.atproto.fields import MAX_SEQ
from relay.atproto.frames import Account, Commit, Identity, Info, Kind, RepoOp, StreamError, Sync
from tests.support.frame_samples import (
    ACCOUNT,
    COMMIT,
    DATA,
    DID,
    IDENTITY,
    LINK,
    PAYLOADS,
    RECORD,
    REV,
    SYNC,
    TIME,
    event,
    message,
    without,
)
from tests.support.repo import RepoBuilder, SigningKey, create, delete, update

# Written by @atproto/xrpc-server's MessageFrame and ErrorFrame (0.13).
REFERENCE = {
    "commit": bytes.fromhex(
        "a261746723636f6d6d6974626f7001ac636f707381a363636964d82a582500017112204b7f39b582ae354e9d8f4e0e857096"
        "921351a5752af84814e4df51d7b24801b4647061746867612e622e632f6466616374696f6e66637265617465637265766d33"
        "6a7a6663696a706a327a326163736571184d647265706f78206469643a706c633a65777669376e787a796f756e367a687872"
        "687336346f697a6474696d657818323032362d31312d32345430343a31393a34312e3632385a65626c6f6273806573696e63"
        "65f666626c6f636b734301020366636f6d6d6974d82a582500017112204b7f39b582ae354e9d8f4e0e857096921351a5752a"
        "f84814e4df51d7b24801b466726562617365f466746f6f426967f4687072657644617461d82a582500017112204b7f39b582"
        "ae354e9d8f4e0e857096921351a5752af84814e4df51d7b24801b4"
    ),
    "account": bytes.fromhex(
        "a2617468236163636f756e74626f7001a46364696478206469643a706c633a65777669376e787a796f756e367a6878726873"
        "36346f697a63736571184e6474696d657818323032362d31312d32345430343a31393a34312e3632385a66616374697665f5"
    ),
    "identity": bytes.fromhex(
        "a2617469236964656e74697479626f7001a46364696478206469643a706c633a65777669376e787a796f756e367a68787268"
        "7336346f697a63736571184f6474696d657818323032362d31312d32345430343a31393a34312e3632385a6668616e646c65"
        "66612e74657374"
    ),
    "error": bytes.fromhex("a1626f7020a2656572726f726c467574757265437572736f72676d6573736167656178"),
}

payloads = pytest.mark.parametrize(("name", "payload"), PAYLOADS.items(), ids=list(PAYLOADS))


def outgoing(frame: bytes, seq: int) -> bytes:
    """The frame as the relay sends it on with a `seq` of its own."""
    head, tail = frames.split_at_seq(event(frame))
    return head + frames.uint(seq) + tail


# What is read


def test_all_fields_of_a_commit_are_read() -> None:
    frame = message("#commit", COMMIT)
    assert frames.decode(frame) == Commit(
        did=DID,
        seq=100,
        time=TIME,
        rev=REV,
        since="3jzfcijpj2z22",
        commit=LINK,
        prev_data=DATA,
        blocks=b"the blocks",
        ops=(
            RepoOp("create", "app.bsky.feed.post/a", RECORD, None),
            RepoOp("update", "app.bsky.feed.post/b", RECORD, DATA),
            RepoOp("delete", "app.bsky.feed.post/c", None, DATA),
        ),
        too_big=False,
        rebase=False,
        frame=frame,
    )


def test_the_other_events() -> None:
    frame = message("#sync", SYNC)
    assert frames.decode(frame) == Sync(DID, 100, TIME, REV, b"the blocks", frame)
    frame = message("#identity", IDENTITY)
    assert frames.decode(frame) == Identity(DID, 100, TIME, "user.example.com", frame)
    frame = message("#account", ACCOUNT)
    assert frames.decode(frame) == Account(DID, 100, TIME, False, "suspended", frame)


def test_kinds_are_numbered_as_in_the_reference_relays_log() -> None:
    kinds = {name: event(message(name, payload)).kind for name, payload in PAYLOADS.items()}
    assert kinds == {"#commit": 1, "#sync": 6, "#identity": 4, "#account": 5}
    assert kinds["#sync"] is Kind.SYNC


def test_frames_of_a_repository_are_kept_as_they_are() -> None:
    repo = RepoBuilder(DID, SigningKey.create())
    path = "app.bsky.feed.post/3kabc"
    written = [
        repo.commit(create(path, {"text": "a"})),
        repo.commit(update(path, {"text": "b"}), create("app.bsky.feed.like/3kabc", {})),
        repo.commit(delete(path)),
        repo.commit(),
    ]
    raw = [commit.frame(seq) for seq, commit in enumerate(written, 1)]
    raw += [repo.sync_frame(5), repo.identity_frame(6, "user.test"), repo.identity_frame(7), repo.account_frame(8)]
    for seq, frame in enumerate(raw, 1):
        assert event(frame).seq == seq
        assert event(frame).did == DID
        assert event(frame).frame == frame
        assert outgoing(frame, seq) == frame


def usual(**changes: Any) -> bytes:
    """A frame of the shape that is read without a decoder."""
    path = "app.bsky.feed.post/3jzfcijpj2z2a"
    return message("#commit", COMMIT | {"ops": [COMMIT["ops"][0] | {"path": path}], "blocks": bytes(300)} | changes)


OPS: dict[str, dict[str, Any]] = {
    "create": {"action": "create", "cid": RECORD},
    "update": {"action": "update", "cid": RECORD, "prev": DATA},
    "delete": {"action": "delete", "cid": None, "prev": DATA},
    "delete as it was": {"action": "delete", "cid": None},
}


def slowly(frame: bytes) -> Any:
    """What the general decoder makes of a frame: the event, or the reason why there is none."""
    with patch.object(commit_frame, "read", return_value=None):
        return outcome(frame)


def outcome(frame: bytes) -> Any:
    try:
        return frames.decode(frame)
    except FrameError as error:
        return error.reason, error.did, error.seq


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
@pytest.mark.parametrize("missing", [(), ("prevData",)])
@pytest.mark.parametrize("since", [None, REV])
@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65_535, 65_536, frames.MAX_BLOCKS])
def test_usual_commits_are_read_as_all_others_are(
    op: dict[str, Any], missing: tuple[str, ...], since: str | None, size: int
) -> None:
    op = op | {"path": "app.bsky.feed.post/3jzfcijpj2z2a"}
    for seq in (1, 24, 256, 65_536, 2**32, MAX_SEQ):
        payload = COMMIT | {"ops": [op], "since": since, "seq": seq, "blocks": bytes(size), "time": TIME}
        frame = message("#commit", without(payload, *missing))
        assert commit_frame.read(frame) is not None
        assert frames.decode(frame) == slowly(frame)
        assert event(frame).frame == frame
        assert outgoing(frame, 7) == message("#commit", without(payload, *missing) | {"seq": 7})


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 0},
        {"seq": MAX_SEQ + 1},
        {"time": "2026-13-01T00:00:00.000Z"},
        {"time": "2026-01-01"},
        {"blocks": bytes(frames.MAX_BLOCKS + 1)},
        {"since": "3jzfcijpj2z2"},
        {"since": "zzzzzzzzzzzzz"},
        {"rev": "zzzzzzzzzzzzz"},
        {"ops": []},
        {"ops": COMMIT["ops"]},
        {"blobs": [RECORD]},
        {"repo": "did:web:example.com"},
        {"prevData": None},
        {"unknown": 1},
        {"rebase": 0},
    ],
    ids=str,
)
def test_commits_that_are_nearly_usual(changes: dict[str, Any]) -> None:
    frame = usual(**changes)
    assert outcome(frame) == slowly(frame)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (b"cseq\x18\x64", b"cseq\x19\x00\x64"),
        (b"cseq\x18\x64", b"cseq\x1a\x00\x00\x00\x64"),
        (b"cseq\x18\x64", b"cseq\x1b" + bytes(7) + b"\x64"),
        (b"cseq\x18\x64", b"cseq\x18\x05"),
        (b"fblocks\x59\x01\x2c", b"fblocks\x5a\x00\x00\x01\x2c"),
        (b"fblocks\x59\x01\x2c", b"fblocks\x5b" + bytes(6) + b"\x01\x2c"),
        (b"dtime\x78\x18", b"dtime\x79\x00\x18"),
        (b"dpath\x78\x20", b"dpath\x79\x00\x20"),
        (b"dpath\x78\x20app.bsky.feed.post/3jzfcijpj2z2a", b"dpath\x78\x17app.bsky.feed.post/3jzf"),
        (b"factionfcreate", b"faction\x78\x06create"),
        (b"cops\x81", b"cops\x98\x01"),
        (b"crev\x6d", b"crev\x78\x0d"),
        (b"\xaccops", b"\xb8\x0ccops"),
    ],
)
def test_usual_commits_must_be_canonical(written: bytes, instead: bytes) -> None:
    frame = usual()
    assert frame.count(written) == 1
    decoded = event(frame.replace(written, instead))
    assert isinstance(decoded, Commit)
    assert (decoded.fault, decoded.did) == ("frame-not-canonical", DID)


@settings(max_examples=3000)
@given(st.sampled_from(list(OPS.values())), st.integers(0, 2**32))
def test_damaged_commits_are_read_or_refused_as_by_the_decoder(op: dict[str, Any], seed: int) -> None:
    rng = random.Random(seed)
    op = op | {"path": "app.bsky.feed.post/3jzfcijpj2z2a"}
    frame = bytearray(usual(ops=[op], blocks=bytes(rng.choice([3, 30, 300])), seq=rng.choice([9, 99, 999, 10**6])))
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(frame))
        kind = rng.randrange(4)
        if kind == 0:
            frame[at] = (frame[at] + rng.choice([1, -1, 32, 128])) % 256
        elif kind == 1:
            frame[at : at + rng.randrange(3)] = rng.choice([b"", b"\x18", b"\x00", b"a", b"\xc3", rng.randbytes(1)])
        elif kind == 2:
            frame[at:at] = frame[at : at + rng.choice([1, 5, 40])]
        else:
            frame = frame.replace(*rng.choice([(b"\xac", b"\xab"), (b"\xa4", b"\xa3"), (b"prevData", b"prevDatb")]))
    assert outcome(bytes(frame)) == slowly(bytes(frame))


def test_frames_of_the_reference_implementation() -> None:
    for name, kind, seq in (("commit", Commit, 77), ("account", Account, 78), ("identity", Identity, 79)):
        decoded = event(REFERENCE[name])
        assert (type(decoded), decoded.seq) == (kind, seq)
        assert decoded.frame == REFERENCE[name] == outgoing(REFERENCE[name], seq)
    assert frames.decode(REFERENCE["error"]) == StreamError("FutureCursor", "x")
    assert frames.error_frame("FutureCursor", "x") == REFERENCE["error"]


def test_info_and_error_frames() -> None:
    assert frames.decode(frames.info_frame("OutdatedCursor", "x")) == Info("OutdatedCursor", "x")
    assert frames.decode(message("#info", {"name": "Other"})) == Info("Other", None)
    assert frames.decode(frames.error_frame("FutureCursor", "x")) == StreamError("FutureCursor", "x")
    assert frames.decode(drisl.encode({"op": -1}) + drisl.encode({"error": "E"})) == StreamError("E", None)
    null = drisl.encode({"op": -1, "t": None})
    assert frames.decode(null + drisl.encode({"error": "FutureCursor", "message": None})) == StreamError(
        "FutureCursor", None
    )
    assert frames.decode(drisl.encode({"op": -1, "t": "#x"}) + drisl.encode({"error": "E"})) == StreamError("E", None)


def test_the_headers_of_frames_without_seq() -> None:
    assert cbor2.loads(frames.error_frame("ConsumerTooSlow", "x")) == {"op": -1}
    assert cbor2.loads(frames.info_frame("OutdatedCursor", "x")) == {"op": 1, "t": "#info"}


@pytest.mark.parametrize(
    "header",
    [{"op": 1, "t": "#handle"}, {"op": 1, "t": "commit"}, {"op": 2, "t": "#commit"}, {"op": 0}, {"op": -2}],
)
def test_unknown_frames_are_ignored(header: dict[str, Any]) -> None:
    assert frames.decode(drisl.encode(header) + drisl.encode(COMMIT)) is None
    assert frames.decode(drisl.encode(header)) is None


# What goes out


@payloads
def test_only_seq_changes(name: str, payload: dict[str, Any]) -> None:
    for seq in (1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, MAX_SEQ):
        assert outgoing(message(name, payload), seq) == message(name, payload | {"seq": seq})
        assert outgoing(message(name, payload | {"seq": seq}), 7) == message(name, payload | {"seq": 7})


@payloads
def test_unknown_fields_are_dropped(name: str, payload: dict[str, Any]) -> None:
    for extra in ({"$type": "com.atproto.sync.subscribeRepos" + name}, {"": 1}, {"a": {"seq": 1}}, {"zzzzzzzzz": LINK}):
        raw = message(name, payload | extra)
        assert event(raw).frame == message(name, payload)
        assert outgoing(raw, 7) == message(name, payload | {"seq": 7})


def test_unknown_fields_of_operations_are_dropped() -> None:
    ops = [op | {"extra": 1} if op["action"] == "update" else op for op in COMMIT["ops"]]
    assert event(message("#commit", COMMIT | {"ops": ops})).frame == message("#commit", COMMIT)


def test_unknown_header_fields_are_dropped() -> None:
    raw = drisl.encode({"op": 1, "t": "#commit", "x": 1}) + drisl.encode(COMMIT)
    assert event(raw).frame == message("#commit", COMMIT)


@pytest.mark.parametrize(
    ("name", "given_", "kept"),
    [
        ("#commit", COMMIT | {"prevData": None}, without(COMMIT, "prevData")),
        ("#commit", without(COMMIT, "blobs", "rebase", "tooBig"), COMMIT),
        ("#commit", COMMIT | {"blobs": None, "rebase": 0, "tooBig": None}, COMMIT),
        ("#commit", COMMIT | {"blobs": [RECORD, drisl.UnknownCid(b"\x01\x70\x12\x20" + bytes(32))]}, COMMIT),
        ("#commit", COMMIT | {"blobs": "none", "tooBig": "no"}, COMMIT),
        ("#commit", without(COMMIT, "since"), COMMIT | {"since": None}),
        ("#commit", COMMIT | {"since": ""}, COMMIT | {"since": None}),
        ("#commit", COMMIT | {"since": "3jzfcijpj2z2"}, COMMIT | {"since": None}),
        ("#commit", COMMIT | {"ops": [COMMIT["ops"][0] | {"prev": None}]}, COMMIT | {"ops": COMMIT["ops"][:1]}),
        (
            "#commit",
            COMMIT | {"ops": [without(COMMIT["ops"][2], "cid")]},
            COMMIT | {"ops": COMMIT["ops"][2:]},
        ),
        ("#identity", IDENTITY | {"handle": None}, without(IDENTITY, "handle")),
        ("#account", ACCOUNT | {"status": None}, without(ACCOUNT, "status")),
    ],
)
def test_what_a_validating_consumer_would_stumble_over_is_mended(
    name: str, given_: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert event(message(name, given_)).frame == message(name, kept)


def test_deprecated_fields_are_kept_as_they_came() -> None:
    payload = COMMIT | {"blobs": [RECORD], "rebase": True, "tooBig": True}
    decoded = event(message("#commit", payload))
    assert decoded.frame == message("#commit", payload)
    assert isinstance(decoded, Commit)
    assert (decoded.rebase, decoded.too_big) == (True, True)


@pytest.mark.parametrize("seq", [5, 100, 70_000, 0x63736571, 0x1B63736571, 0x1F_FFFF_6373_6571])
@pytest.mark.parametrize("field", ["ops", "rev", "blobs", "blocks", "commit", "prevData"])
def test_seq_is_found_whatever_else_looks_like_it(seq: int, field: str) -> None:
    """The bytes of the key and its value stand in another field as well, before it or behind it."""
    needle = b"\x63seq" + frames.uint(seq)
    text = needle.decode("ascii", "ignore")
    link = Cid(LINK[:4] + needle.ljust(32, b"\0"))
    fakes = {
        "ops": [COMMIT["ops"][0] | {"path": text, "cid": link}],
        "rev": text + text,
        "blobs": [link, link],
        "blocks": needle + b"--" + needle + needle[:4],
    }
    payload = COMMIT | {"seq": seq, field: fakes.get(field, link)}
    assert outgoing(message("#commit", payload), 9) == message("#commit", payload | {"seq": 9})
    assert outgoing(message("#commit", payload), MAX_SEQ) == message("#commit", payload | {"seq": MAX_SEQ})


@given(st.integers(1, MAX_SEQ), st.integers(1, MAX_SEQ), st.binary(max_size=40), st.data())
def test_any_seq_in_any_blocks(old: int, new: int, noise: bytes, data: st.DataObject) -> None:
    needle = b"\x63seq" + frames.uint(old)
    cut = data.draw(st.integers(0, len(needle)))
    for blocks in (noise + needle + noise, noise + needle[:cut], needle[cut:] + noise):
        payload = COMMIT | {"seq": old, "blocks": blocks}
        assert outgoing(message("#commit", payload), new) == message("#commit", payload | {"seq": new})


def test_frames_of_the_relays_own() -> None:
    for status in (None, "takendown"):
        head, tail = frames.account_frame(DID, TIME, status is None, status)
        assert frames.decode(head + b"\x07" + tail) == Account(
            DID, 7, TIME, status is None, status, head + b"\x07" + tail
        )
    head, tail = frames.sync_frame(DID, REV, TIME, b"the blocks")
    assert frames.decode(head + b"\x07" + tail) == Sync(DID, 7, TIME, REV, b"the blocks", head + b"\x07" + tail)
    assert head + b"\x07" + tail == message("#sync", SYNC | {"seq": 7})
    for handle in (None, "user.example.com"):
        head, tail = frames.identity_frame(DID, TIME, handle)
        assert frames.decode(head + b"\x07" + tail) == Identity(DID, 7, TIME, handle, head + b"\x07" + tail)


@given(st.integers(0, 2**64 - 1))
def test_uint_encodes_as_drisl_does(value: int) -> None:
    assert frames.uint(value) == drisl.encode(value)

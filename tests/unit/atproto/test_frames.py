"""Event stream frames: what hosts really send, what hostile ones might, and `seq` put in without touching the rest."""

import random
from itertools import count
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
from tests.support.budget import assert_cheap
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete, update

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


def message(name: str, payload: Any) -> bytes:
    return drisl.encode({"op": 1, "t": name}) + drisl.encode(payload)


def without(payload: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in names}


def outgoing(frame: bytes, seq: int) -> bytes:
    """The frame as the relay sends it on with a `seq` of its own."""
    head, tail = frames.split_at_seq(event(frame))
    return head + frames.uint(seq) + tail


def event(frame: bytes) -> frames.Event:
    decoded = frames.decode(frame)
    assert isinstance(decoded, frames.Event)
    return decoded


def refusal(frame: bytes) -> FrameError:
    with pytest.raises(FrameError) as caught:
        frames.decode(frame)
    assert caught.value.reason in frames.REASONS
    assert len(str(caught.value)) < 300
    return caught.value


# What is read


def test_a_commit() -> None:
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
        return error.reason, error.fatal, error.did, error.seq


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
        (b"factionfcreate", b"faction\x78\x06create"),
        (b"cops\x81", b"cops\x98\x01"),
        (b"crev\x6d", b"crev\x78\x0d"),
        (b"\xaccops", b"\xb8\x0ccops"),
    ],
)
def test_usual_commits_must_be_canonical(written: bytes, instead: bytes) -> None:
    frame = usual()
    assert frame.count(written) == 1
    error = refusal(frame.replace(written, instead))
    assert (error.reason, error.fatal, error.did) == ("frame-not-canonical", False, DID)


@settings(max_examples=3000, deadline=None)
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
        ("#commit", without(COMMIT, "since"), COMMIT | {"since": None}),
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
    for handle in (None, "user.example.com"):
        head, tail = frames.identity_frame(DID, TIME, handle)
        assert frames.decode(head + b"\x07" + tail) == Identity(DID, 7, TIME, handle, head + b"\x07" + tail)


@given(st.integers(0, 2**64 - 1))
def test_uint(value: int) -> None:
    assert frames.uint(value) == drisl.encode(value)


# What is refused


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "frame-header"),
        (b"\xa0", "frame-header"),
        (b"\x01", "frame-header"),
        (b"\xff" * 100, "frame-header"),
        (b"\x00\x00\x00\x00", "frame-header"),
        (drisl.encode({"op": 1}) + drisl.encode(COMMIT), "frame-header"),
        (drisl.encode({"op": 1, "t": ""}) + drisl.encode(COMMIT), "frame-header"),
        (drisl.encode({"op": 1, "t": 1}) + drisl.encode(COMMIT), "frame-header"),
        (drisl.encode({"op": True, "t": "#commit"}) + drisl.encode(COMMIT), "frame-header"),
        (drisl.encode({"op": "1", "t": "#commit"}) + drisl.encode(COMMIT), "frame-header"),
        (drisl.encode({"t": "#commit"}) + drisl.encode(COMMIT), "frame-header"),
        (b"\xa2\x62op\x01\x61t\x67#commit" + drisl.encode(COMMIT), "frame-header"),
        (b"\xbf\x61t\x67#commit\x62op\x01\xff" + drisl.encode(COMMIT), "frame-header"),
        (drisl.encode({"op": 1, "t": "#commit", "x": "x" * 300}) + drisl.encode(COMMIT), "frame-header"),
        (message("#commit", COMMIT)[:-1], "frame-encoding"),
        (message("#commit", COMMIT)[:15], "frame-encoding"),
        (message("#commit", COMMIT)[:15] + b"\xbf\xff", "frame-encoding"),
        (message("#commit", COMMIT)[:15] + b"\xc1\x01", "frame-encoding"),
        (message("#commit", []), "frame-payload"),
        (message("#commit", None), "frame-payload"),
        (message("#info", 1), "frame-payload"),
        (drisl.encode({"op": -1}), "frame-encoding"),
        (bytes(frames.MAX_FRAME + 1), "frame-size"),
    ],
    ids=map(str, count()),
)
def test_broken_framing_is_fatal(frame: bytes, reason: str) -> None:
    error = refusal(frame)
    assert (error.reason, error.fatal, error.did, error.seq) == (reason, True, None, None)


def bad_event(name: str, payload: Any) -> str:
    error = refusal(message(name, payload))
    assert not error.fatal
    assert error.seq in (100, None)
    return error.reason


@payloads
def test_every_field_has_its_type(name: str, payload: dict[str, Any]) -> None:
    for field, value in payload.items():
        for other in (None, 1, True, "x", b"x", 1.5, LINK, drisl.UnknownCid(b"\1\2"), [], [1], {}, {"a": 1}):
            if type(other) is type(value) or (other is None and field in ("handle", "status", "prevData", "since")):
                continue
            reason = bad_event(name, payload | {field: other})
            assert reason in ("frame-field", "frame-seq", "frame-time"), (field, other)


@payloads
def test_every_field_without_a_default_is_needed(name: str, payload: dict[str, Any]) -> None:
    for field in payload.keys() - {"handle", "status", "prevData", "since", "blobs", "rebase", "tooBig"}:
        assert bad_event(name, without(payload, field)) in ("frame-field", "frame-seq")


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("#commit", COMMIT | {"blocks": bytes(frames.MAX_BLOCKS + 1)}, "frame-blocks-size"),
        ("#sync", SYNC | {"blocks": bytes(frames.MAX_SYNC_BLOCKS + 1)}, "frame-blocks-size"),
        ("#commit", COMMIT | {"ops": COMMIT["ops"][:1] * 201}, "frame-ops-count"),
        ("#commit", COMMIT | {"ops": [1]}, "frame-field"),
        ("#commit", COMMIT | {"ops": [{}]}, "frame-field"),
        ("#commit", COMMIT | {"ops": [COMMIT["ops"][0] | {"cid": 1}]}, "frame-field"),
        ("#commit", COMMIT | {"ops": [COMMIT["ops"][0] | {"prev": "x"}]}, "frame-field"),
        ("#commit", COMMIT | {"ops": [COMMIT["ops"][0] | {"path": None}]}, "frame-field"),
        ("#commit", COMMIT | {"blobs": ["x"]}, "frame-field"),
        ("#commit", COMMIT | {"since": "x"}, "frame-field"),
        ("#commit", COMMIT | {"time": "yesterday"}, "frame-time"),
        ("#sync", SYNC | {"time": "2026-01-01T00:00:00"}, "frame-time"),
        ("#account", ACCOUNT | {"time": ""}, "frame-time"),
        ("#identity", IDENTITY | {"seq": 0}, "frame-seq"),
        ("#identity", IDENTITY | {"seq": -1}, "frame-seq"),
        ("#identity", IDENTITY | {"seq": MAX_SEQ + 1}, "frame-seq"),
        ("#identity", IDENTITY | {"seq": True}, "frame-seq"),
        ("#identity", IDENTITY | {"extra": [1.5, float(2**60)], "seq": 0}, "frame-seq"),
    ],
)
def test_a_bad_event(name: str, payload: dict[str, Any], reason: str) -> None:
    assert bad_event(name, payload) == reason


def test_the_limits_themselves_are_allowed() -> None:
    event(message("#commit", COMMIT | {"blocks": bytes(frames.MAX_BLOCKS), "ops": COMMIT["ops"][:1] * 200}))
    event(message("#sync", SYNC | {"blocks": bytes(frames.MAX_SYNC_BLOCKS)}))
    event(message("#account", ACCOUNT | {"seq": MAX_SEQ}))
    event(message("#account", ACCOUNT | {"seq": 1}))


@payloads
def test_what_is_decodable_but_not_canonical_names_its_event(name: str, payload: dict[str, Any]) -> None:
    header = drisl.encode({"op": 1, "t": name})
    backwards = dict(sorted(drisl.load(drisl.encode(payload)).items(), reverse=True))  # type: ignore[union-attr]
    longer = drisl.encode(payload).replace(b"\x63seq\x18\x64", b"\x63seq\x19\x00\x64")
    for body in (
        cbor2.dumps(backwards, encoders=drisl._ENCODERS),
        longer,
        drisl.encode(payload) + b"\x00",
        drisl.encode(payload | {"zzzzzzzzz": 0})[:-1] + b"\xf7",
    ):
        error = refusal(header + body)
        assert (error.reason, error.fatal) == ("frame-not-canonical", False)
        assert (error.did, error.seq) == (DID, 100)


def test_a_did_that_is_none_is_not_passed_on() -> None:
    assert refusal(message("#identity", IDENTITY | {"did": "x\n" * 1000, "time": ""})).did is None
    assert refusal(message("#identity", IDENTITY | {"did": 7, "time": ""})).did is None


# Hostile bytes


@given(st.sampled_from(sorted(PAYLOADS)), st.data())
def test_mutations_are_read_or_refused(name: str, data: st.DataObject) -> None:
    mutated = bytearray(message(name, PAYLOADS[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(mutated))


@given(st.binary(), st.sampled_from(sorted(PAYLOADS)))
def test_random_bytes_are_read_or_refused(data: bytes, name: str) -> None:
    check(data)
    check(message(name, {})[:-1] + data)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text() | st.binary() | st.just(LINK),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(sorted(PAYLOADS)), st.data())
def test_odd_payloads_are_read_or_refused(name: str, data: st.DataObject) -> None:
    field = st.sampled_from([*PAYLOADS[name], "extra"])
    check(message(name, PAYLOADS[name] | data.draw(st.dictionaries(field, json_like, max_size=3))))


def check(frame: bytes) -> None:
    """Refused for a listed reason, or readable again after a new `seq` was put in."""
    try:
        decoded = frames.decode(frame)
    except FrameError as error:
        assert error.reason in frames.REASONS
        return
    if isinstance(decoded, frames.Event):
        head, tail = frames.split_at_seq(decoded)
        again = event(head + frames.uint(7) + tail)
        assert (again.seq, again.did, again.time) == (7, decoded.did, decoded.time)
        assert again.frame == head + b"\x07" + tail


COMMIT_HEADER = message("#commit", {})[:-1]


@pytest.mark.parametrize(
    "frame",
    [
        message("#commit", COMMIT | {"blobs": [LINK] * 120_000}),
        message("#commit", COMMIT | {"extra": ["x"] * 240_000}),
        message("#commit", COMMIT | {"extra": [[]] * 240_000}),
        message("#commit", COMMIT | {"ops": [{"x": 1}] * 80_000}),
        message("#commit", COMMIT | {"ops": [COMMIT["ops"][0] | {"path": "x" * 24_000}] * 200}),
        message("#commit", COMMIT | {"blocks": b"cseq\x18\x64" * 333_333}),
        message("#commit", COMMIT | {"extra": "cseq\x18\x64" * 800_000}),
        message("#account", ACCOUNT | {"did": "did:web:" + "a" * 4_900_000}),
        message("#account", ACCOUNT | {"time": "2" * 4_900_000}),
        message("#x" + "x" * 4_900_000, {}),
        COMMIT_HEADER + b"\x9a\x00\x4c\x4b\x00" + b"\x80" * 4_999_936,
        COMMIT_HEADER + b"\x81" * 4_999_000,
        COMMIT_HEADER + b"\xa1\x60" * 2_499_000,
        b"\x81" * 5_000_000,
        b"\xa1\x61t" * 1_666_666,
    ],
    ids=map(str, count()),
)
def test_five_megabytes_cost_neither_time_nor_memory(frame: bytes) -> None:
    assert len(frame) <= frames.MAX_FRAME
    assert_cheap(check_split, frame)


def check_split(frame: bytes) -> None:
    decoded = frames.decode(frame)
    if isinstance(decoded, frames.Event):
        frames.split_at_seq(decoded)

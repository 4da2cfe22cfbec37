"""Frames that cannot be passed on: what is wrong with them is named, and what is left of them found."""

from itertools import count
from typing import Any, NamedTuple

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import drisl, frames
from relay.atproto.errors import FrameError
from relay.atproto.fields import MAX_SEQ
from relay.atproto.frames import Account, Commit, Identity, Sync
from tests.support.budget import assert_cheap
from tests.support.frame_samples import (
    ACCOUNT,
    COMMIT,
    DID,
    IDENTITY,
    LINK,
    PAYLOADS,
    REV,
    SYNC,
    TIME,
    event,
    message,
    without,
)

payloads = pytest.mark.parametrize(("name", "payload"), PAYLOADS.items(), ids=list(PAYLOADS))


class Refused(NamedTuple):
    """`remains`: that the signed commit of the frame can still be found."""

    reason: str
    did: str | None
    seq: int | None
    remains: bool = False


def refusal(frame: bytes) -> Refused:
    try:
        decoded = frames.decode(frame)
    except FrameError as error:
        assert len(str(error)) < 300
        refused = Refused(error.reason, error.did, error.seq)
    else:
        assert isinstance(decoded, Commit | Sync)
        assert decoded.fault is not None
        refused = Refused(decoded.fault, decoded.did, decoded.seq, True)
    assert refused.reason in frames.REASONS
    return refused


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
        (drisl.encode({"op": 1, "t": "#commit", "x": "x" * 300}) + drisl.encode(COMMIT), "frame-header"),
        (b"\xbf\x61t\x67#commit\x62op\x01" + drisl.encode(COMMIT), "frame-header"),
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
def test_frames_of_which_nothing_can_be_read(frame: bytes, reason: str) -> None:
    assert refusal(frame) == (reason, None, None, False)


def bad_event(name: str, payload: Any) -> str:
    """Why this payload is refused. What is left of it depends on the fields that are needed for that alone."""
    refused = refusal(message(name, payload))
    fields = payload if isinstance(payload, dict) else {}
    did, seq = fields.get("repo" if name == "#commit" else "did"), fields.get("seq")
    assert refused.did == (DID if did == DID else None)
    assert refused.seq == (100 if seq == 100 and seq is not True else None)
    needed = {"#commit": ("rev", "commit", "blocks"), "#sync": ("blocks",)}.get(name, ("none",))
    sound = all(type(fields.get(field)) is type(PAYLOADS[name].get(field, 0)) for field in needed)
    assert refused.remains == (sound and None not in (refused.did, refused.seq))
    return refused.reason


@payloads
def test_every_field_has_its_type(name: str, payload: dict[str, Any]) -> None:
    for field, value in payload.items():
        if field in ("blobs", "rebase", "tooBig") or (field == "time" and name in ("#identity", "#account")):
            # Whatever they say, nobody looks at them, or another one is put in.
            continue
        for other in (None, 1, True, "x", b"x", 1.5, LINK, drisl.UnknownCid(b"\1\2"), [], [1], {}, {"a": 1}):
            if type(other) is type(value) or (other is None and field in ("handle", "status", "prevData", "since")):
                continue
            reason = bad_event(name, payload | {field: other})
            assert reason in ("frame-field", "frame-seq", "frame-time"), (field, other)


@payloads
def test_every_field_without_a_default_is_needed(name: str, payload: dict[str, Any]) -> None:
    replaced = {"time"} if name in ("#identity", "#account") else set()
    for field in payload.keys() - {"handle", "status", "prevData", "since", "blobs", "rebase", "tooBig"} - replaced:
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
        ("#commit", COMMIT | {"since": 7}, "frame-field"),
        ("#commit", COMMIT | {"extra": [[]] * 4_000}, "frame-encoding"),
        ("#sync", SYNC | {"zzzzzzzzz": [[]] * 1_000}, "frame-encoding"),
        ("#identity", IDENTITY | {"zzzzzzzzz": [{}] * 1_000}, "frame-encoding"),
        ("#account", ACCOUNT | {"zzzzzzzzz": [{}] * 15_000}, "frame-encoding"),
        ("#identity", IDENTITY | {"extra": "x" * 16_384}, "frame-size"),
        ("#identity", IDENTITY | {"zzzzzzzzz": [{}] * 248_000}, "frame-size"),
        ("#account", ACCOUNT | {"status": "x" * 16_384}, "frame-size"),
        ("#commit", COMMIT | {"time": "yesterday"}, "frame-time"),
        ("#sync", SYNC | {"time": "2026-01-01T00:00:00"}, "frame-time"),
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
    event(message("#account", ACCOUNT | {"status": "x" * (frames.MAX_NOTICE - 200)}))


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
        assert refusal(header + body) == ("frame-not-canonical", DID, 100, name in ("#commit", "#sync"))


# What is left


def remains(frame: bytes, fault: str) -> None:
    """What the frame says of its commit is there, and nothing else."""
    decoded = event(frame)
    if isinstance(decoded, Sync):
        assert decoded == Sync(DID, 100, TIME, REV, b"the blocks", frame, fault)
        return
    assert decoded == Commit(DID, 100, TIME, REV, None, LINK, None, b"the blocks", (), False, False, frame, fault=fault)


BROKEN_TEXT = b"\x64\xff\xfe\xff\xfe"
EPOCH_TAG = b"\xc1\x1a\x00\x00\x00\x00"


@pytest.mark.parametrize("name", ["#commit", "#sync"])
@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        (BROKEN_TEXT, "frame-encoding"),
        (EPOCH_TAG, "frame-encoding"),
        (b"\x81" * 100 + b"\x80", "frame-encoding"),
        (b"\x9f\x01\x9f\xff\xff", "frame-encoding"),
        (b"\x7f\x61a\x61b\xff", "frame-encoding"),
        (b"\xbf\x61a\x01\xff", "frame-encoding"),
        (b"\xa1\x01\x01", "frame-encoding"),
        (b"\xa2\x61a\x01\x61a\x02", "frame-encoding"),
        (b"\xf9\x7e\x00", "frame-not-canonical"),
        (b"\xf7", "frame-not-canonical"),
        (b"\x18\x01", "frame-not-canonical"),
        (b"\xa2\x61b\x01\x61a\x01", "frame-not-canonical"),
    ],
    ids=range(12),
)
def test_one_odd_value_leaves_the_commit(name: str, odd: bytes, fault: str) -> None:
    """Wherever it stands: in front of what is needed, or behind it."""
    for field in ("a", "zzzzzzzzz"):
        frame = message(name, PAYLOADS[name] | {field: "the odd value"})
        remains(frame.replace(drisl.encode("the odd value"), odd), fault)


def test_operations_that_cannot_be_read_leave_the_commit() -> None:
    for ops, fault in (
        (None, "frame-field"),
        ("x", "frame-field"),
        ([1], "frame-field"),
        ([{"action": 1}], "frame-field"),
        ([COMMIT["ops"][0] | {"prev": drisl.UnknownCid(b"\x01\x70\x12\x20" + bytes(32))}], "frame-field"),
        (COMMIT["ops"][:1] * 201, "frame-ops-count"),
        (COMMIT["ops"][:1] * 2_000, "frame-encoding"),
    ):
        remains(message("#commit", COMMIT | {"ops": ops}), fault)
    for name in ("since", "prevData"):
        remains(message("#commit", COMMIT | {name: 7}), "frame-field")
    remains(
        message("#commit", COMMIT | {"ops": ["the odd value"]}).replace(b"the odd value", b"\xff" * 13),
        "frame-encoding",
    )


def test_blocks_of_more_than_may_be_leave_the_commit() -> None:
    for name, size in (("#commit", frames.MAX_BLOCKS), ("#sync", frames.MAX_SYNC_BLOCKS)):
        decoded = event(message(name, PAYLOADS[name] | {"blocks": bytes(size + 1)}))
        assert isinstance(decoded, Commit | Sync)
        assert (decoded.fault, len(decoded.blocks)) == ("frame-blocks-size", size + 1)


def test_a_time_or_rev_that_is_none_leaves_the_commit() -> None:
    for time in ("", "yesterday", 7, None):
        for name in ("#commit", "#sync"):
            decoded = event(message(name, PAYLOADS[name] | {"time": time}))
            assert isinstance(decoded, Commit | Sync)
            assert decoded.time == ""
            assert decoded.fault in ("frame-field", "frame-time")
    decoded = event(message("#sync", without(SYNC, "rev")))
    assert isinstance(decoded, Sync)
    assert (decoded.rev, decoded.fault) == ("", "frame-field")


@pytest.mark.parametrize("time", ["", "yesterday", "2026-01-01T00:00:00", "2026-01-01 00:00:00+00:00", 7, None])
def test_a_time_that_is_none_leaves_an_identity_and_an_account(time: object) -> None:
    for name, payload in (("#identity", IDENTITY), ("#account", ACCOUNT)):
        for fields in (payload | {"time": time}, without(payload, "time")):
            decoded = event(message(name, fields))
            assert isinstance(decoded, Identity | Account)
            assert (decoded.did, decoded.seq, decoded.time) == (DID, 100, "")


@pytest.mark.parametrize(
    "header",
    [
        b"\xa2\x62op\x01\x61t\x67#commit",
        b"\xbf\x61t\x67#commit\x62op\x01\xff",
        b"\xbf\x62op\x01\x61t\x67#commit\xff",
        b"\xa2\x61t\x67#commit\x62op\x18\x01",
        b"\xb8\x02\x61t\x67#commit\x62op\x01",
        b"\xa3\x61t\x67#commit\x62op\x01\x61x\xc1\x01",
        b"\xa3\x61t\x67#commit\x62op\x01\x61x\x61\xff",
        b"\xa2\x61t\x67#commit\x78\x02op\x01",
    ],
    ids=bytes.hex,
)
def test_an_odd_header_leaves_the_commit(header: bytes) -> None:
    remains(header + drisl.encode(COMMIT), "frame-header")
    for name in ("#sync", "#account", "#identity"):
        other = header.replace(drisl.encode("#commit"), drisl.encode(name))
        refused = refusal(other + drisl.encode(PAYLOADS[name]))
        assert refused == ("frame-header", DID, 100, name == "#sync")


def test_whose_event_it_was_is_told_as_far_as_it_can_be_read() -> None:
    for name in ("#identity", "#account"):
        frame = message(name, PAYLOADS[name] | {"a": "the odd value"})
        for odd in (BROKEN_TEXT, EPOCH_TAG):
            broken = frame.replace(drisl.encode("the odd value"), odd)
            assert refusal(broken) == ("frame-encoding", DID, 100, False)
    handle = message("#identity", IDENTITY).replace(b"user.example.com", b"us\xff\xfe.example.com")
    assert refusal(handle) == ("frame-encoding", DID, 100, False)
    cut = message("#identity", IDENTITY)
    assert refusal(cut[: cut.index(b"dtime")]) == ("frame-encoding", DID, 100, False)
    assert refusal(cut[: cut.index(b"cseq")]) == ("frame-encoding", DID, None, False)
    assert refusal(cut[: cut.index(b"cseq") + 5]) == ("frame-encoding", DID, None, False)


def test_a_did_that_is_none_is_not_passed_on() -> None:
    assert refusal(message("#identity", IDENTITY | {"did": "x\n" * 1000, "handle": 1})).did is None
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
    if isinstance(decoded, Commit | Sync) and decoded.fault is not None:
        assert decoded.fault in frames.REASONS
    elif isinstance(decoded, frames.Event):
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
        message("#identity", IDENTITY | {"a": [{}] * 248_000}),
        COMMIT_HEADER + b"\x81" * 4_999_000,
        COMMIT_HEADER + b"\x9f" * 4_999_000,
        COMMIT_HEADER + b"\x7f" * 4_999_000,
        COMMIT_HEADER + b"\xc1" * 4_999_000,
        b"\xbf" + b"\x60" * 4_999_000,
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
    if isinstance(decoded, frames.Event) and getattr(decoded, "fault", None) is None:
        frames.split_at_seq(decoded)

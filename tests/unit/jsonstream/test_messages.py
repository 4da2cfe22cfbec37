"""What an event says as JSON, by rule."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest

from relay.atproto import frames
from relay.atproto.cid import Cid
from relay.jsonstream.messages import Message, RecordUnreadable, of_frame
from tests.support.blocks import link
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete, update

DID = account_did(1)
LINK = Cid.of_raw(b"a blob")
OTHER = b"\x01\x70\x12\x20" + bytes(32)


@pytest.fixture
def repo() -> RepoBuilder:
    return RepoBuilder(DID, SigningKey.create("k256"))


def said(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(message.text())
    return value


def test_1_a_message_for_each_operation(repo: RepoBuilder) -> None:
    repo.commit(create("app.bsky.feed.post/one", {"text": "1"}), create("app.bsky.feed.like/two", {"text": "2"}))
    commit = repo.commit(
        update("app.bsky.feed.post/one", {"text": "new"}),
        delete("app.bsky.feed.like/two"),
        create("app.bsky.feed.post/three", {"text": "3"}),
    )
    messages = of_frame(commit.frame(77), 1_000_000)
    event = frames.decode(commit.frame(77))
    assert isinstance(event, frames.Commit)
    texts = [said(message) for message in messages]
    assert [list(text) for text in texts] == [["did", "time_us", "kind", "commit", "seq"]] * 3
    assert {(text["did"], text["kind"], text["seq"]) for text in texts} == {(DID, "commit", 77)}
    for text, op, message in zip(texts, event.ops, messages, strict=True):
        collection, rkey = op.path.split("/")
        expected: dict[str, Any] = {"rev": event.rev, "operation": op.action, "collection": collection, "rkey": rkey}
        if op.cid is not None:
            record = {"one": "new", "three": "3"}[rkey]
            expected |= {"record": {"text": record}, "cid": str(op.cid)}
        assert (text["commit"], message.collection) == (expected, collection)


def test_2_times_rise(repo: RepoBuilder) -> None:
    operations = [create(f"app.bsky.feed.post/{number}", {}) for number in range(150)]
    frame = repo.commit(*operations).frame(1)
    messages = of_frame(frame, 500)
    assert [message.time_us for message in messages] == list(range(500, 650))
    assert [said(message)["time_us"] for message in messages] == list(range(500, 650))
    assert frames.op_count(frame) == 150


@pytest.mark.parametrize("count", [1, 2, 23, 24, 25, 200])
def test_the_count_of_operations_is_known_from_the_beginning(repo: RepoBuilder, count: int) -> None:
    commit = repo.commit(*(create(f"app.bsky.feed.post/{number}", {}) for number in range(count)))
    event = frames.decode(commit.frame(1))
    assert isinstance(event, frames.Commit)
    assert frames.op_count(frames.split_at_seq(event)[0]) == count == len(event.ops)


def test_an_event_without_operations_counts_as_one(repo: RepoBuilder) -> None:
    assert frames.op_count(repo.identity_frame(5)) == 1
    assert frames.op_count(repo.account_frame(5, active=True, status=None)) == 1
    repo.commit(create("app.bsky.feed.post/one", {}))
    assert frames.op_count(repo.commit().frame(5)) == 1


def test_4_records_are_in_the_json_of_the_data_model(repo: RepoBuilder) -> None:
    record = {
        "$type": "com.example.thing",
        "link": link(LINK),
        "other": link(OTHER),
        "bytes": b"\x00\xffx",
        "text": 'é \u2028 " \\ \x01 😀',
        "numbers": [0, -1, 2**63 - 1, -(2**63)],
        "nothing": None,
        "flags": [True, False],
        "empty": [{}, [], ""],
    }
    message = of_frame(repo.commit(create("com.example.thing/self", record)).frame(1), 1)[0]
    assert said(message)["commit"]["record"] == record | {
        "link": {"$link": str(LINK)},
        "other": {"$link": "b" + base64.b32encode(OTHER).decode().rstrip("=").lower()},
        "bytes": {"$bytes": "AP94"},
    }


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -(2**63) - 1, -(2**64)])
def test_4_numbers_of_any_size(repo: RepoBuilder, number: int) -> None:
    message = of_frame(repo.commit(create("com.example.thing/self", {"n": number, "l": link(LINK)})).frame(1), 1)[0]
    assert said(message)["commit"]["record"] == {"n": number, "l": {"$link": str(LINK)}}


@pytest.mark.parametrize(
    "record", [{1: "one"}, {"n": math.nan}, {"n": [0, {"m": math.inf}]}, {"n": -math.inf, "m": -(2**64)}], ids=repr
)
def test_what_is_not_a_record_is_not_sent(repo: RepoBuilder, record: dict[Any, Any]) -> None:
    """`com.example.thing/other` stands beside it, and is."""
    writes = [create("com.example.thing/other", {"n": 1.5}), create("com.example.thing/self", record)]
    other, message = of_frame(repo.commit(*writes).frame(1), 1)
    with pytest.raises(RecordUnreadable) as caught:
        message.text()
    assert caught.value.reason == "record-encoding"
    assert said(other)["commit"]["record"] == {"n": 1.5}


def test_identity_and_account_events_have_their_own_objects(repo: RepoBuilder) -> None:
    identity, account = (
        of_frame(repo.identity_frame(5), 10),
        of_frame(repo.account_frame(6, active=False, status="deleted"), 11),
    )
    texts = [said(*identity), said(*account)]
    assert [list(text) for text in texts] == [
        ["did", "time_us", "kind", "identity", "seq"],
        ["did", "time_us", "kind", "account", "seq"],
    ]
    assert texts[0]["identity"]["did"] == DID and texts[0]["identity"]["seq"] == 5
    account_said = texts[1]["account"]
    # The order of Jetstream's.
    order = ["did", "handle", "seq", "time"]
    assert list(texts[0]["identity"]) == [name for name in order if name in texts[0]["identity"]]
    assert list(account_said) == ["active", "did", "seq", "status", "time"]
    assert (account_said["active"], account_said["did"], account_said["status"]) == (False, DID, "deleted")


def test_5_sync(repo: RepoBuilder) -> None:
    repo.commit(create("app.bsky.feed.post/one", {}))
    text = said(*of_frame(repo.sync_frame(9), 12))
    assert (text["kind"], text["sync"]["did"], text["sync"]["rev"], text["seq"]) == ("sync", DID, repo.rev, 9)


def test_what_is_not_an_event_says_nothing() -> None:
    assert of_frame(frames.info_frame("OutdatedCursor", "x"), 1) == []

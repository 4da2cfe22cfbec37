"""Which messages a consumer wants, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from relay.jsonstream.filters import (
    MAX_COLLECTIONS,
    MAX_DIDS,
    TOGETHER,
    USUAL_KINDS,
    Filter,
    FilterInvalid,
    of_query,
    of_update,
)

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"
DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


def test_1_collections_and_prefixes() -> None:
    wanted = of_query([POST, "app.bsky.graph.*", "any.*"], [], None)
    assert wanted.takes("commit", POST) and wanted.takes("commit", FOLLOW) and wanted.takes("commit", "any.thing.else")
    assert not wanted.takes("commit", LIKE) and not wanted.takes("commit", "app.bsky.graph")
    assert wanted.takes("identity", "") and wanted.takes("account", "")


@pytest.mark.parametrize("text", ["", "*", "app.bsky.fo*", "post", "app bsky.feed.post", "https://example.com"])
def test_1_what_is_no_collection(text: str) -> None:
    with pytest.raises(FilterInvalid):
        of_query([text], [], None)


def test_1_a_hundred_at_most() -> None:
    names = [f"com.example.n{number}" for number in range(MAX_COLLECTIONS)]
    assert len(of_query(names * 2, [], None).collections) == MAX_COLLECTIONS
    with pytest.raises(FilterInvalid, match="100"):
        of_query([*names, POST], [], None)


def test_2_dids_are_checked_and_bounded() -> None:
    assert of_query([], [DID, DID], None).dids == {DID}
    with pytest.raises(FilterInvalid):
        of_query([], ["did"], None)
    with pytest.raises(FilterInvalid, match="10000"):
        of_query([], [f"did:web:a{number}.test" for number in range(MAX_DIDS + 1)], None)


def test_2_a_long_list_is_checked_in_pieces() -> None:
    dids = [f"did:web:a{number}.test" for number in range(MAX_DIDS)]
    pauses: list[str] = []
    of_query([], dids, None, pause=lambda: pauses.append("query"))
    of_update({"wantedDids": dids}, USUAL_KINDS, lambda: pauses.append("update"))
    assert pauses.count("query") == pauses.count("update") == MAX_DIDS // TOGETHER


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("-1", 0),
        ("x", 0),
        ("9" * 5000, 0),
        (str(2**32), 0),
        ("\u0663", 0),
        ("1500", 1500),
        ("+1500", 1500),
        ("00000001500", 1500),
    ],
)
def test_4_sizes(text: str | None, bound: int) -> None:
    assert of_query([], [], text).max_bytes == bound


def test_5_kinds() -> None:
    assert not Filter().takes("sync", "") and Filter().takes("commit", POST)
    wanted = of_query([], [], None, ["sync", "commit"])
    assert wanted.takes("sync", "") and wanted.takes("commit", POST) and not wanted.takes("identity", "")
    with pytest.raises(FilterInvalid, match="kinds"):
        of_query([], [], None, ["commits"])


def test_an_update_replaces_all_but_the_kinds() -> None:
    payload = {"wantedCollections": [POST], "wantedDids": [DID], "maxMessageSizeBytes": 10}
    kinds = frozenset({"sync"})
    wanted = of_update(payload, kinds)
    assert wanted == of_query([POST], [DID], "10", ["sync"])
    assert wanted.kinds == kinds and wanted.collections == {POST} and wanted.dids == {DID} and wanted.max_bytes == 10
    assert of_update({}, USUAL_KINDS) == Filter() == of_update({"wantedDids": None}, USUAL_KINDS)


def test_an_update_as_decoders_in_go_take_it() -> None:
    assert of_update(None, USUAL_KINDS) == Filter()
    payload = {"WantedCollections": [POST, POST], "wantedDIDs": [DID], "MAXMESSAGESIZEBYTES": -5, "cursor": 3}
    assert of_update(payload, USUAL_KINDS) == of_query([POST], [DID], None)
    assert of_update({"maxMessageSizeBytes": None, "wantedCollections": []}, USUAL_KINDS) == Filter()


def test_a_filter_says_how_much_memory_it_takes() -> None:
    dids = [f"did:plc:{number:024d}" for number in range(MAX_DIDS)]
    assert Filter().size == of_query([], [], "1000").size == 0
    assert 1_000_000 < of_query([], dids * 2, None).size < 2_000_000
    assert of_query(["app.bsky.graph.*", POST], [], None).size > 200


@pytest.mark.parametrize(
    "payload",
    [
        [],
        "x",
        {"wantedCollections": POST},
        {"wantedDids": [1]},
        {"maxMessageSizeBytes": "1"},
        {"wantedDids": ["x"]},
    ],
)
def test_what_is_no_update(payload: Any) -> None:
    with pytest.raises(FilterInvalid):
        of_update(payload, USUAL_KINDS)

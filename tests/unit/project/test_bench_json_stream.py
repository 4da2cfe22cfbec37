"""The comparison with Jetstream knows what must come, and counts what is better in the right direction."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.jsonstream.messages import of_frame
from tests.bench.jsonstream import contenders
from tests.bench.jsonstream.rounds import faults
from tests.bench.jsonstream.table import EDGE, JETSTREAM, NOBODY, RELAY, columns, text
from tests.bench.jsonstream.wanted import EVERYTHING, READERS, Wanted, _said, digest, filters, key_of
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"


def test_filters_let_through_what_they_say() -> None:
    assert EVERYTHING.takes("did:a", POST) and EVERYTHING.query == ""
    wanted = Wanted((POST, "app.bsky.graph.*"), ("did:a",))
    assert (
        wanted.query == "wantedCollections=app.bsky.feed.post&wantedCollections=app.bsky.graph.%2A&wantedDids=did%3Aa"
    )
    assert wanted.takes("did:a", POST) and wanted.takes("did:a", FOLLOW) and wanted.takes("did:a", "")
    assert not wanted.takes("did:b", POST) and not wanted.takes("did:b", "") and not wanted.takes("did:a", LIKE)
    many = filters([account_did(number) for number in range(200)])
    assert len(many) == READERS and all(one.collections or one.dids for one in many)
    assert many == filters([account_did(number) for number in range(200)])


def test_what_must_come_is_what_our_stream_says() -> None:
    repo = RepoBuilder(account_did(1), SigningKey.create("k256"))
    repo.commit(create(f"{POST}/one", {"text": "1"}))
    frames = [
        repo.commit(delete(f"{POST}/one"), create(f"{LIKE}/two", {"text": "2"})).frame(1),
        repo.identity_frame(2),
        repo.account_frame(3, active=True, status=None),
    ]
    expected = [said.key for frame in frames for said in _said(frame)]
    came = [key_of(json.loads(message.text())) for frame in frames for message in of_frame(frame, 1)]
    assert came == expected and len(set(came)) == 4
    assert digest(came) == digest(reversed(came)) != digest(came[1:])


def figures(cpu_us: float, deliveries: int, **others: Any) -> dict[str, Any]:
    return {
        "complete": True,
        "events": 1000,
        "cpu_us_per_event": cpu_us,
        "deliveries": deliveries,
        "deliveries_per_second": deliveries / 10,
        "rss_mib": 80.0,
        "rss_peak_mib": 90.0,
        **others,
    }


def test_ratios_say_how_many_times_better() -> None:
    runs = {
        NOBODY: [figures(200, 0, firehose_p99_ms=12.0)],
        RELAY: [figures(280, 9000), figures(300, 9000), {"failed": "first events are missing"}],
        EDGE: [figures(100, 9000)],
        JETSTREAM: [figures(300, 9000)],
        "failed": [{"failed": "Jetstream does not listen"}],
    }
    found = columns(runs)
    assert found.keys() == runs.keys() - {"failed"}
    assert {name: column.json_us for name, column in found.items()} == {NOBODY: 0, RELAY: 90, EDGE: 100, JETSTREAM: 300}
    assert found[RELAY].per_cpu_second("deliveries") == pytest.approx(100_000)
    lines = text("500 events/s", runs, paced=True).split("\n")
    assert "| - per CPU second of the JSON stream | - | 100,000 | 90,000 | 30,000 | 3 | ≥ 2 times |" in lines
    assert "| - p99 ms | 12 | - | - | - | - | as with nobody |" in lines
    assert "| RSS at the end, MiB | 80 | 80 | 80 | 80 | 1 |  |" in lines


def test_a_run_that_is_not_right_is_marked() -> None:
    assert faults(figures(1, 1, json_missing=0, missing=0)) == ""
    assert faults(figures(1, 1, json_missing=2, out_of_order=1)) == "json missing 2, out of order 1"
    assert faults({"failed": "Jetstream does not listen"}) == "Jetstream does not listen"


def test_without_a_binary_ours_go_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JETSTREAM", raising=False)
    assert contenders.jetstream_binary() == (None, "JETSTREAM names no binary of Jetstream")
    monkeypatch.setenv("JETSTREAM", "/nowhere/jetstream")
    assert contenders.jetstream_binary() == (None, "/nowhere/jetstream cannot be run")
    monkeypatch.setenv("JETSTREAM", "/bin/echo")
    assert contenders.jetstream_binary()[1].endswith("it has no flag --ws-url")

"""Promise 17: What goes out is canonical, has known fields only, and `blocks` byte for byte; an edge passes frames byte
for byte.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import cbor2
import pytest

from relay.eventlog.reader import LogReader
from tests.support.blocks import car, cbor
from tests.support.edge import Consumer, edge_of
from tests.support.event_path import EventPath
from tests.support.pds import FakePds
from tests.support.repo import frame, post

FIELDS = {
    "#commit": {
        "seq",
        "repo",
        "rev",
        "since",
        "commit",
        "time",
        "blobs",
        "rebase",
        "tooBig",
        "ops",
        "blocks",
        "prevData",
    },
    "#sync": {"seq", "did", "rev", "blocks", "time"},
    "#identity": {"seq", "did", "time", "handle"},
    "#account": {"seq", "did", "time", "active", "status"},
}


def unknown(good: bytes) -> bytes:
    """The frame with fields that nobody knows, short ones and long ones."""
    data = BytesIO(good)
    header, payload = cbor2.load(data), cbor2.load(data)
    return frame(header["t"], {**payload, "a": 1, "zzz": [{"deep": [b"bytes"]}], "handler": "x", "x" * 70: None})


def test_what_goes_out_is_canonical_and_has_known_fields_only(path: EventPath, pds: FakePds) -> None:
    host, repo = path.host(pds.url), path.repo(pds.url)
    sent = [post(repo, "3kaaa"), post(repo, "3kaab")]
    path.put(host, unknown(sent[0].frame(1)))
    path.put(host, unknown(repo.identity_frame(2, "user.test")))
    path.put(host, unknown(repo.account_frame(3)))
    path.put(host, unknown(sent[1].frame(4)))
    path.put(host, unknown(repo.sync_frame(5)))
    path.logged(5)
    out: list[dict[str, Any]] = []
    for record in LogReader(path.stream.log).read(0):
        data = BytesIO(record.frame)
        header, payload = cbor2.load(data), cbor2.load(data)
        assert not data.read(), "something behind the payload"
        assert record.frame == cbor(header) + cbor(payload), "not canonical"
        assert set(header) == {"op", "t"} and set(payload) <= FIELDS[header["t"]]
        out.append(payload)
    blocks = [payload["blocks"] for payload in out if "blocks" in payload]
    stated = [car([event.root], event.blocks) for event in sent] + [car([repo.head], {repo.head: repo.head_block})]
    assert blocks == stated


@pytest.mark.timeout(180)
def test_an_edge_passes_frames_byte_for_byte(tmp_path: Path, pds: FakePds) -> None:
    """Also what no relay of today would send: unknown fields, an unknown kind of account status."""
    sent = []
    for seq in range(1, 20):
        payload = {"seq": seq, "did": "did:plc:" + "a" * 24, "time": "2026-01-01T00:00:00.000Z", "news": [seq] * seq}
        kind = ("#identity", "#account")[seq % 2]
        sent.append(frame(kind, payload if seq % 2 == 0 else {**payload, "active": False, "status": "resting"}))
        pds.publish(seq, sent[-1])
    edge = edge_of(pds.url, tmp_path)
    try:
        edge.start()
        consumer = Consumer(edge.firehose)
        edge.wait_until(lambda: len(consumer.frames) >= len(sent))
        consumer.stop()
        assert consumer.frames == sent
    finally:
        edge.close()

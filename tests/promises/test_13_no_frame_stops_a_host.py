"""Promise 13: A frame that cannot be read, or is too large (its bytes are skipped unread), never stops its host's
stream: it is counted, logged and passed over. Only broken WebSocket framing, a stream error of the host's own or a
flood ends a connection.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from relay.hosts.hosts import Hosts
from relay.net.http import GuardedHttp
from tests.support.blocks import cbor
from tests.support.event_path import EventPath
from tests.support.fake_relay import LOCAL
from tests.support.pds import TEXT, FakePds, websocket_frame
from tests.support.repo import post
from tests.support.wait import until


@pytest.fixture
def hosts(path: EventPath) -> Iterator[Hosts]:
    ingest = path.ingest
    http = GuardedHttp("relay-test", allow_insecure=True)
    limit_raised = ingest.places.look_at
    running = Hosts(path.db, path.registry, ingest.lanes, ingest.renumbering.starts_again, limit_raised, http, LOCAL)
    running.start()
    yield running
    running.stop(5)


def unreadable(good: bytes, chance: random.Random) -> Iterator[bytes]:
    """Messages that are no event, some of them close to being one."""
    yield b""
    yield b"\xff" * 40
    yield b"\xa0" * 2
    yield b"\x9b" + b"\xff" * 8
    yield b"\x81" * 5_000
    yield cbor({"op": 1, "t": "#commit"})
    yield cbor({"op": 1, "t": "#commit"}) + cbor([1])
    yield cbor({"op": 1, "t": "#account"}) + cbor({"seq": "one", "did": 5})
    yield cbor({"op": 1, "t": "#account"}) + cbor({"seq": 2**63, "did": "did:plc:x"})
    yield good[: len(good) // 2]
    yield good + b"\0"
    yield good + bytes(6_000_000)
    for _ in range(12):
        spoilt = bytearray(good)
        for _ in range(8):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        yield bytes(spoilt)


def test_good_events_pass_between_all_that_cannot_be_read(path: EventPath, hosts: Hosts, pds: FakePds) -> None:
    repo, other, seq = path.repo(pds.url), path.repo(pds.url), 1
    pds.publish(1, post(repo, "3kaaa").frame(1))
    hosts.new_hosts.request(pds.url, admin=True)
    path.logged(1)
    damaged = list(unreadable(post(other, "3kaaa").frame(2), random.Random(13)))
    for message in damaged:
        seq += 2
        pds.publish(seq - 1, message)
        pds.publish(seq, post(repo, f"3k{seq:03}").frame(seq))
    seq += 2
    pds.publish(seq - 1, b"text")
    pds.unframed[seq - 1] = websocket_frame(b"some words", TEXT)
    pds.publish(seq, post(repo, f"3k{seq:03}").frame(seq))
    host = hosts.known(pds.hostname)
    until(lambda: host.cursor.position == seq, timeout=15)
    passed = [event for event in path.events() if event.did == repo.did]
    assert len(passed) == len(damaged) + 2
    assert len(pds.cursors) == 1, "it was dialled again"
    assert sum(hosts.report(pds.hostname).drops.values()) >= len(damaged)

"""Promise 8: Every wait has a timeout or names in a comment what ends it; every loop yields; nothing blocks the hub.

Each wait without a timeout that the code has is found: a new one needs a line here, with what ends it. Then the largest
that hosts may send is sent, and the CPU counted that passes until another greenlet has its turn.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cbor2 import CBORTag

from relay.atproto.payloads import MAX_OPS
from relay.eventlog.log import SegmentLog
from relay.jsonstream.cursor import Cursor
from relay.jsonstream.encodings import PLAIN
from relay.jsonstream.filter_room import Place
from relay.jsonstream.filters import Filter
from relay.jsonstream.stream import JsonStream, Options
from relay.stream.firehose import Firehose
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail, chunk_of
from tests.support.event_path import EventPath
from tests.support.holds import holds
from tests.support.pds import FakePds
from tests.support.repo import POST, RepoBuilder, SigningKey, account_did, create, post
from tests.support.stream import append, record
from tests.support.wait import until

RELAY = Path(__file__).parents[2] / "relay"
WAITS = {"acquire", "get", "join", "result", "wait"}
# The conformance suite is a program of its own, without a hub.
ELSEWHERE = "conformance"
HOLD_SECONDS = 0.5

ENDED = {
    "admin/siblings.py queue.get": "the next change, or the end of the relay",
    "app.py stopped.wait": "a signal",
    "healing/accounts.py places.join": "the timeouts of each account",
    "healing/accounts.py _tasks.join": "the timeouts of each account",
    "healing/host_tasks.py _greenlets.join": "the timeouts of what is asked of each host",
    "healing/hosts.py _tasks.join": "the timeouts of each page that a host is asked for",
    "identity/fair_queue.py _turns.get": "the next lookup, or the end of the relay",
    "ingest/lanes.py check.wait": "the supervisor, which kills a worker that hangs",
    "ingest/lanes.py queue.get": "the next event, or the end of the relay",
    "ingest/lanes.py room.acquire": "the lane, which goes on for ever",
    "ingest/worker_supervisor.py _waiter.get": "the answer, or the end of the worker",
    "kit/background.py waiter.get": "the native thread: it waits for a disk, and a greenlet cannot do that",
    "net/gathering.py waiter.get": "the next look at all sockets once there is something, or the time is over",
    "store/sqlite.py pool.join": "the thread's last statement, which has a timeout of its own",
    "stream/projector.py _caught_up.wait": "the projector, which goes on until SQL has everything",
    "stream/tail.py waiter.get": "the next batch, or the timeout that the caller has begun",
}


def endless(path: Path) -> Iterator[str]:
    """The waits of a module that are given no time."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITS:
            waited = node.func.value
            name = waited.attr if isinstance(waited, ast.Attribute) else ast.unparse(waited)
            if not node.args and not node.keywords:
                yield f"{path.relative_to(RELAY)} {name}.{node.func.attr}"


def test_each_wait_has_an_end() -> None:
    modules = [path for path in sorted(RELAY.rglob("*.py")) if ELSEWHERE not in path.parts]
    assert {wait for path in modules for wait in endless(path)} == ENDED.keys()


def largest(repo: RepoBuilder) -> list[Callable[[int], bytes]]:
    """What is dear to read or to verify, each as the frame of a seq."""
    writes = [create(f"{POST}/3k{number:04}", {"text": "x" * 4_000}) for number in range(MAX_OPS)]
    return [repo.commit(*writes).frame, repo.sync_frame]


def test_the_largest_events_leave_others_their_turn(path: EventPath, pds: FakePds) -> None:
    host, repo, other = path.host(pds.url), path.repo(pds.url), path.repo(pds.url)
    path.put(host, post(other, "3kaaa").frame(1))
    path.logged(1)
    strangers = [path.repo(pds.url).identity_frame for _ in range(200)]
    made = [make(seq) for seq, make in enumerate([*largest(repo), *strangers], 2)]
    with holds() as longest:
        for event in made:
            path.put(host, event)
        until(lambda: host.cursor.position == len(made) + 1, timeout=60)
    assert longest[0] < HOLD_SECONDS


def small_and_manifold(repo: RepoBuilder) -> Iterator[Callable[[int], bytes]]:
    """What takes the most to convert: small events, and commits of as many operations as there may be."""
    for _ in range(2000):
        yield repo.identity_frame
    for number in range(12):
        yield repo.commit(*(create(f"{POST}/3k{number:02}{index:03}", {}) for index in range(MAX_OPS))).frame


@pytest.mark.parametrize("of", ["the log", "memory"])
def test_json_of_much_leaves_others_their_turn(tmp_path: Path, of: str) -> None:
    log, suppressions = SegmentLog(tmp_path), Suppressions()
    made = small_and_manifold(RepoBuilder(account_did(1), SigningKey.create("k256")))
    records = [record(seq, frame=make(seq)) for seq, make in enumerate(made, 1)]
    append(log, records)
    tail = Tail(len(records) if of == "the log" else 0, suppressions)
    if of == "memory":
        # What a group commit takes in a backlog.
        tail.publish(records)
    stream = JsonStream(Firehose(log, tail, suppressions), None)
    options = Options(Filter(), Place(stream.room, "192.0.2.1"), waits=False)
    feed = stream.attach(Cursor("seq:0"), PLAIN, options)
    size = 0
    with holds() as longest:
        while feed.position < len(records):
            size += len(feed.next(60.0) or b"")
            feed.give_way()
    assert size > 1_000_000
    assert feed.convert is not None
    began = time.thread_time()
    feed.convert(chunk_of(records, len(records), suppressions), 0)
    assert longest[0] < (time.thread_time() - began) / 4
    feed.close()
    log.close()


def tiny_items(repo: RepoBuilder) -> bytes:
    """A commit of what takes the most to write as JSON for its bytes: empty byte strings, and links to nothing."""
    bytes_, links = [b""] * 9_000, [CBORTag(42, b"\0")] * 2_000
    writes = [
        create(f"{POST}/3k{number:04}", {"n": number, "v": links if number % 2 else bytes_}) for number in range(180)
    ]
    return repo.commit(*writes).frame(1)


def test_tiny_items_as_json_leave_others_their_turn(tmp_path: Path) -> None:
    log, suppressions = SegmentLog(tmp_path), Suppressions()
    tail = Tail(0, suppressions)
    stream = JsonStream(Firehose(log, tail, suppressions), None)
    feed = stream.attach(Cursor(None), PLAIN, Options(Filter(), Place(stream.room, "192.0.2.1"), waits=False))
    tail.publish([record(1, frame=tiny_items(RepoBuilder(account_did(1), SigningKey.create("k256"))))])
    began = time.thread_time()
    with holds() as longest:
        feed.next(60.0)
    assert feed.position == 1
    assert longest[0] < 0.05
    assert time.thread_time() - began < 0.3
    feed.close()
    log.close()

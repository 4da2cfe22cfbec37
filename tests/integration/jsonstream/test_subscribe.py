"""The JSON stream's WebSocket over a real log, by a client that others wrote."""

from __future__ import annotations

import json
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import zstandard
from gevent.monkey import get_original
from prometheus_client import REGISTRY
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection

from relay.atproto import frames
from relay.atproto.frames import Kind
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import last_seq_before
from relay.eventlog.record import FLAG_HIDES, FLAG_REVEALS, Record
from relay.jsonstream import stream, update_pace
from relay.jsonstream.connection import MAX_UPDATE_BYTES, JsonConnection
from relay.jsonstream.filter_room import FilterRoom
from relay.jsonstream.filters import MAX_COLLECTIONS, MAX_DIDS, USUAL_KINDS, of_update
from relay.net.websocket import RSV1
from relay.stream import firehose
from relay.web import consumer_connection, server
from relay.web.consumer_connection import MAX_UNREAD_SECONDS
from relay.web.http_input import MAX_HEAD_BYTES
from tests.support.fixtures import StartWeb
from tests.support.holds import holds
from tests.support.http import call
from tests.support.one_engine import new_database_url  # noqa: F401
from tests.support.repo import RepoBuilder, SigningKey, account_did, create
from tests.support.stream import append
from tests.support.wait import until
from tests.support.web import Web
from tests.support.websocket import connect

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"


class Network:
    """Accounts whose events are in the log of a relay, and what its consumers must be told of them."""

    def __init__(self, web: Web) -> None:
        self.web = web
        key = SigningKey.create("k256")
        self.repos = [RepoBuilder(account_did(number), key) for number in range(3)]
        self._count = 0

    def commit(self, *collections: str, account: int = 0, text: str = "") -> int:
        """A record in each collection, in one commit; its seq."""
        self._count += 1
        writes = [
            create(f"{name}/{self._count:05d}-{index}", {"text": text or str(self._count)})
            for index, name in enumerate(collections)
        ]
        return self.log(self.repos[account].commit(*writes).frame(1), account)

    def log(self, frame: bytes, account: int = 0, flags: int = 0) -> int:
        event = frames.decode(frame)
        assert event is not None and not isinstance(event, frames.Info | frames.StreamError)
        log, seq = self.web.log, self.web.log.next_seq
        head, tail = frames.split_at_seq(event)
        time_us = max(log.time_us(), log.last_time_us + frames.MAX_OPS)
        record = Record(seq, time_us, account + 1, 0, 0, event.kind, 0, flags, head + frames.uint(seq) + tail)
        append(log, [record])
        self.web.tail.publish([record])
        return seq


@pytest.fixture
def web(start_web: StartWeb) -> Web:
    return start_web(json_stream=True)


@pytest.fixture
def network(web: Web) -> Network:
    return Network(web)


@contextmanager
def consumer(web: Web, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    with connect(web.json_stream + query, max_size=None, ping_interval=None, compression=None, **options) as client:
        until(lambda: list(web.services.consumers))
        yield client


def take(client: ClientConnection, count: int) -> list[dict[str, Any]]:
    return [json.loads(client.recv(timeout=60)) for _ in range(count)]


def seqs(client: ClientConnection, count: int) -> list[int]:
    return [message["seq"] for message in take(client, count)]


def nothing_comes(client: ClientConnection) -> bool:
    try:
        client.recv(timeout=0.2)
    except TimeoutError:
        return True
    return False


def refusal(web: Web, query: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught, connect(web.json_stream + query):
        pass
    body = json.loads(caught.value.response.body or b"{}")
    return caught.value.response.status_code, body["error"]


def closing(client: ClientConnection) -> tuple[int, str]:
    try:
        while True:
            client.recv(timeout=60)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code, closed.rcvd.reason


def test_live_messages_are_those_of_jetstream(web: Web, network: Network) -> None:
    with consumer(web) as client:
        seq = network.commit(POST, LIKE)
        network.log(network.repos[0].identity_frame(1))
        network.log(network.repos[0].account_frame(1, active=True))
        messages = take(client, 4)
    assert [message["kind"] for message in messages] == ["commit", "commit", "identity", "account"]
    assert {message["did"] for message in messages} == {account_did(0)}
    assert [message["seq"] for message in messages] == [seq, seq, seq + 1, seq + 2]
    commit = messages[0]["commit"]
    assert set(commit) == {"rev", "operation", "collection", "rkey", "record", "cid"}
    times = [message["time_us"] for message in messages]
    assert times == sorted(set(times)) and abs(times[0] / 1e6 - time.time()) < 60


def test_each_consumer_gets_what_its_filter_takes(web: Web, network: Network) -> None:
    with (
        consumer(web, f"?wantedCollections={POST}") as posts,
        consumer(web, "?wantedCollections=app.bsky.graph.*&kinds=commit") as graph,
        consumer(web, f"?wantedDids={account_did(1)}&wantedDids={account_did(2)}") as two,
        consumer(web, f"?wantedDids={account_did(1)}&wantedCollections={LIKE}&kinds=commit") as both,
        consumer(web, "?kinds=sync") as syncs,
        consumer(web, "?maxMessageSizeBytes=1000") as small,
    ):
        until(lambda: len(list(web.services.consumers)) == 6)
        first = network.commit(POST)
        network.commit(LIKE, account=1)
        network.commit(FOLLOW, POST, account=2)
        network.commit(LIKE, text="x" * 1000)
        network.log(network.repos[0].identity_frame(1))
        network.log(network.repos[1].sync_frame(1), 1)
        assert seqs(posts, 3) == [first, first + 2, first + 4]
        assert seqs(graph, 1) == [first + 2]
        assert seqs(two, 3) == [first + 1, first + 2, first + 2]
        assert seqs(both, 1) == [first + 1]
        assert seqs(syncs, 1) == [first + 5]
        assert seqs(small, 5) == [first, first + 1, first + 2, first + 2, first + 4]
        assert all(nothing_comes(client) for client in (posts, graph, two, both, syncs, small))


@pytest.mark.parametrize("tail_bytes", [64 << 20, 1], ids=["memory", "disk"])
def test_a_cursor_is_a_time_or_a_seq(start_web: StartWeb, tail_bytes: int) -> None:
    web = start_web(tail_bytes=tail_bytes, json_stream=True)
    network = Network(web)
    for number in range(20):
        network.commit(POST, LIKE, FOLLOW, account=number % 3)
    with consumer(web, "?cursor=seq:0") as client:
        everything = take(client, 60)
    times = [message["time_us"] for message in everything]
    assert times == sorted(set(times))
    for index in (0, 1, 2, 3, 31, 58, 59):
        with consumer(web, f"?cursor={times[index] - 1}") as client:
            assert take(client, 60 - index) == everything[index:]
        with consumer(web, f"?cursor={times[index]}") as client:
            network_seq = everything[index]["seq"]
            assert take(client, 59 - index) == everything[index + 1 :]
        with consumer(web, f"?cursor=seq:{network_seq}") as client:
            following = [message for message in everything if message["seq"] > network_seq]
            assert take(client, len(following)) == following
            assert nothing_comes(client)
    with consumer(web, f"?cursor={times[0] - 10**9}") as oldest, consumer(web, "?cursor=3") as small:
        assert take(oldest, 60) == everything
        assert take(small, 51) == everything[9:]
    for odd in ("?cursor=3&cursor=x", "?cursor=0003", "?cursor=%2B3", f"?cursor=00{times[8]}&cursor="):
        with consumer(web, odd) as client:
            assert take(client, 51) == everything[9:], odd
    until(lambda: not list(web.services.consumers))
    with consumer(web, "?cursor=&cursor=3") as live:
        until(lambda: [one.position for one in web.services.consumers] == [web.firehose.last_seq])
        assert nothing_comes(live)
    until(lambda: not list(web.services.consumers))
    with consumer(web, f"?cursor={times[-1] + 10**12}") as future, consumer(web, "?cursor=seq:99999") as ahead:
        # The place of a time is looked up in a thread.
        until(lambda: [consumer.position > 0 for consumer in web.services.consumers] == [True, True])
        seq = network.commit(POST)
        assert seqs(future, 1) == seqs(ahead, 1) == [seq]


def test_events_that_come_while_a_time_is_looked_for_are_not_passed_over(
    web: Web, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of all with a time that is still to come, which is now: nothing would come until then."""
    network.commit(POST)
    looked, go_on = [False], [False]
    search, sleep = last_seq_before, get_original("time", "sleep")

    def slow(log: SegmentLog, time_us: int) -> int:
        found = search(log, time_us)
        looked[0] = True
        while not go_on[0]:
            sleep(0.01)
        return found

    monkeypatch.setattr(firehose, "last_seq_before", slow)
    for ahead in (10**12, frames.MAX_OPS, frames.MAX_OPS - 1, 0):
        looked[0], go_on[0] = False, False
        with consumer(web, f"?cursor={web.log.last_time_us + ahead}") as client:
            until(lambda: looked[0] or [one.position for one in web.services.consumers] == [web.firehose.last_seq])
            seq = network.commit(POST)
            go_on[0] = True
            assert seqs(client, 1) == [seq], ahead
        until(lambda: not list(web.services.consumers))


def test_a_time_of_an_event_that_is_not_published_yet(web: Web, network: Network) -> None:
    network.commit(POST)
    seq, time_us = web.log.next_seq, web.log.last_time_us + frames.MAX_OPS
    durable = Record(seq, time_us, 1, 0, 0, Kind.COMMIT, 0, 0, network.repos[0].commit().frame(seq))
    append(web.log, [durable])
    with consumer(web, f"?cursor={time_us + frames.MAX_OPS - 1}") as client:
        until(lambda: [consumer.position for consumer in web.services.consumers] == [seq - 1])
        web.tail.publish([durable])
        following = network.commit(POST)
        assert seqs(client, 1) == [following]


def test_what_is_hidden_is_not_replayed_and_comes_back(web: Web, network: Network) -> None:
    first = network.commit(POST)
    network.commit(POST, account=1)
    with consumer(web, "?cursor=seq:0&kinds=commit") as client:
        assert seqs(client, 2) == [first, first + 1]
    suppressions = web.firehose._suppressions

    def say(active: bool, flags: int) -> None:
        status = None if active else "takendown"
        seq = network.log(network.repos[0].account_frame(1, active=active, status=status), 0, flags)
        suppressions.apply(Record(seq, 1, 1, 0, 0, Kind.ACCOUNT, 0, flags, b""))

    say(False, FLAG_HIDES)
    with consumer(web, "?cursor=seq:0&kinds=commit") as client:
        assert seqs(client, 1) == [first + 1] and nothing_comes(client)
    say(True, FLAG_REVEALS)
    with consumer(web, "?cursor=seq:0&kinds=commit") as client:
        assert seqs(client, 2) == [first, first + 1]


def test_options_can_be_changed(web: Web, network: Network) -> None:
    with consumer(web, f"?wantedCollections={POST}&kinds=commit") as client:
        first = network.commit(POST, LIKE)
        assert seqs(client, 1) == [first]
        client.send("{}")
        client.send(json.dumps({"type": "of another time", "payload": 1}))
        client.send(b"binary is ignored")
        client.send(json.dumps({"type": "options_update", "payload": {"wantedCollections": [LIKE]}}))
        until(lambda: network.commit(LIKE) and not nothing_comes(client), 20)
        while not nothing_comes(client):
            pass
        dids = [account_did(number) for number in range(10_000)]
        client.send(json.dumps({"type": "options_update", "payload": {"wantedDids": dids}}))
        until(lambda: network.commit(FOLLOW) and not nothing_comes(client), 20)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "options_update", "payload": None},
        {"Type": "options_update", "Payload": {"WantedCollections": [], "wantedDIDs": None}},
        {"type": "options_update", "payload": {"wantedCollections": [LIKE, LIKE, "app.bsky.feed.*"], "other": 1}},
    ],
)
def test_updates_as_other_clients_write_them(web: Web, network: Network, message: Any) -> None:
    seq = network.commit(LIKE)
    with consumer(web, f"?requireHello=true&cursor=seq:{seq - 1}&wantedCollections={POST}") as client:
        client.send(json.dumps(message))
        assert seqs(client, 1) == [seq]


@pytest.mark.parametrize(
    "message",
    ["no json", '{"type": "options_update"}', '{"type": "options_update", "payload": {"wantedCollections": ["x"]}}'],
)
def test_a_wrong_update_ends_the_consumer(web: Web, message: str) -> None:
    with consumer(web) as client:
        client.send(message)
        assert closing(client)[0] == 1008


def test_an_update_has_a_bound(web: Web, network: Network) -> None:
    with consumer(web) as client:
        client.send("x" * (MAX_UPDATE_BYTES + 1))
        assert closing(client)[0] == 1009
    with consumer(web, "?requireHello=true&cursor=seq:0") as client:
        seq = network.commit(POST)
        client.send(json.dumps({"type": "options_update", "payload": {}}).ljust(MAX_UPDATE_BYTES))
        assert seqs(client, 1) == [seq]


@contextmanager
def raw(web: Web, extra: str = "") -> Iterator[socket.socket]:
    """A connection that has shaken hands and holds little of what it sends."""
    request = (
        "GET /subscribe HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", web.server.port))
        sock.sendall(request.encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        yield sock


def close_code(sock: socket.socket) -> int:
    """The code of the close frame with which a silent stream ends, after which the connection must end in order."""
    data = b""
    while more := sock.recv(1024):
        data += more
    assert data[0] == 0x88
    return int.from_bytes(data[2:4])


def test_an_update_that_is_too_long_is_told_to_who_is_still_sending_it(web: Web) -> None:
    with raw(web) as sock:
        sock.sendall(Frame(Opcode.TEXT, b"x" * (MAX_UPDATE_BYTES + 1)).serialize(mask=True))
        sock.shutdown(socket.SHUT_WR)
        assert close_code(sock) == 1009


def begun(size: int) -> bytes:
    """A message of so many bytes that lacks its end."""
    return Frame(Opcode.TEXT, b" " * size).serialize(mask=True)[:-1]


def test_a_message_has_to_come_to_its_end_in_time(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_connection, "WHOLE_SECONDS", 2.0)
    for beginning in (begun(1000), Frame(Opcode.TEXT, b" ", fin=False).serialize(mask=True)):
        with raw(web) as sock:
            sock.sendall(beginning)
            assert close_code(sock) == 1008
    with consumer(web) as client:
        for _ in range(8):
            client.send("{}")
            time.sleep(0.5)
        assert client.close_code is None


def test_what_consumers_have_begun_to_say_is_bounded_together(
    start_web: StartWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = MAX_UPDATE_BYTES - 1
    # Three of an address.
    monkeypatch.setattr(stream, "FilterRoom", partial(FilterRoom, 6 * size))
    web = start_web(json_stream=True)

    def taken() -> float:
        return REGISTRY.get_sample_value("relay_queue_size", {"queue": "json-filter-bytes"}) or 0.0

    with ExitStack() as opened:
        *first, last = (opened.enter_context(raw(web)) for _ in range(4))
        for sock in first:
            sock.sendall(begun(size))
        until(lambda: taken() > 2.9 * size)
        last.sendall(begun(size))
        assert close_code(last) == 1013
        for sock in first:
            sock.sendall(b" ")
            # Spaces are not JSON.
            assert close_code(sock) == 1008
    until(lambda: taken() == 0)


def test_updates_are_bounded_as_they_are_heard(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed, a thousand bytes are a megabyte of JSON."""
    heard: list[int] = []
    hear = JsonConnection.hear

    def counted(connection: JsonConnection, text: bytes) -> None:
        heard.append(len(text))
        hear(connection, text)

    monkeypatch.setattr(JsonConnection, "hear", counted)
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"
    text = b"{%s}" % (b" " * (MAX_UPDATE_BYTES - 2))
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    short = (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(short) < 1000
    frame = bytearray(Frame(Opcode.TEXT, short).serialize(mask=True))
    frame[0] |= RSV1
    with raw(web, offer) as sock:
        sock.sendall(frame * 40)
        assert close_code(sock) == 1008
    assert heard and sum(heard) <= JsonConnection.bytes_per_second * MAX_UNREAD_SECONDS
    assert len(heard) < 40


def test_a_request_may_say_all_that_may_be_wanted(web: Web, network: Network) -> None:
    collections = [POST, *(f"com.example.{'a' * 20}.c{number}" for number in range(MAX_COLLECTIONS - 1))]
    dids = [account_did(number) for number in range(1, MAX_DIDS + 1)]
    wanted = [("wantedCollections", name) for name in collections] + [("wantedDids", did) for did in dids]
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in wanted)
    for few in (query[:12_000].rpartition("&")[0], query):
        with consumer(web, f"?cursor=seq:0&compress=false&{few}") as client:
            network.commit(POST)
            network.commit(LIKE, account=1)
            seq = network.commit(POST, account=1)
            while seqs(client, 1) != [seq]:
                pass
            assert nothing_comes(client)
    assert refusal(web, f"?{query}&wantedDids={account_did(0)}") == (400, "InvalidRequest")


def test_long_requests_are_bounded(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LONG_HEADS", 3)

    def asked(web: Web, target: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", web.server.port), timeout=30)
        sock.sendall(f"GET {target}?wantedDids={'x' * MAX_HEAD_BYTES}".encode())
        return sock

    web = start_web(json_stream=True)
    for other, target in ((web, "/subscribed"), (web, "/"), (start_web(), "/subscribe")):
        with asked(other, target) as sock:
            assert sock.recv(100).startswith(b"HTTP/1.1 431 ")
    listener = web.server._server
    held = [asked(web, "/subscribe") for _ in range(3)]
    until(lambda: len(listener.long_heads) == 3)
    with asked(web, "/subscribe") as sock:
        assert sock.recv(100).startswith(b"HTTP/1.1 429 ")
    assert call(web.url + "/_healthz").status == 200
    for sock in held:
        sock.close()
    until(lambda: len(listener.long_heads) == 0)
    with asked(web, "/subscribe") as sock:
        sock.sendall(b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 426 ")
        until(lambda: len(listener.long_heads) == 0)
    with asked(web, "/subscribe") as sock, suppress(OSError):
        sock.sendall(b" HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 431 ")


def test_all_filters_together_have_a_bound(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two of an address.
    monkeypatch.setattr(stream, "FilterRoom", partial(FilterRoom, 4 * MAX_DIDS * 150))
    web = start_web(json_stream=True)
    network = Network(web)
    dids = [account_did(number) for number in range(1, MAX_DIDS + 1)]
    long = "?" + "&".join(f"wantedDids={did}" for did in dids)
    update = json.dumps({"type": "options_update", "payload": {"wantedDids": dids}})

    def taken() -> float:
        return REGISTRY.get_sample_value("relay_queue_size", {"queue": "json-filter-bytes"}) or 0.0

    with consumer(web, long), consumer(web) as other, consumer(web, "?requireHello=true") as third:
        until(lambda: len(list(web.services.consumers)) == 3)
        other.send(update)
        until(lambda: taken() > MAX_DIDS * 200)
        assert refusal(web, long) == (429, "RateLimitExceeded")
        third.send(update)
        code, reason = closing(third)
        assert code == 1013 and "filter" in reason
        seq = network.commit(POST)
        with consumer(web, f"?cursor=seq:{seq - 1}&wantedDids={account_did(0)}") as short:
            assert seqs(short, 1) == [seq]
        other.send(json.dumps({"type": "options_update", "payload": {}}))
        until(lambda: taken() < MAX_DIDS * 200)
        with consumer(web, long + f"&cursor=seq:{seq - 1}"):
            until(lambda: taken() > MAX_DIDS * 200)
    until(lambda: not list(web.services.consumers))
    assert taken() == 0


def test_what_consumers_say_is_read_at_a_pace(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_pace, "PIECES_BURST", 100)
    web = start_web(json_stream=True)
    network = Network(web)
    long = json.dumps({"type": "options_update", "payload": {"wantedDids": [account_did(n) for n in range(MAX_DIDS)]}})
    pieces = len(long) // update_pace.PIECE_BYTES + 1
    with ExitStack() as opened:
        clients = [opened.enter_context(consumer(web, "?requireHello=true&cursor=seq:0")) for _ in range(4)]
        seq, began = network.commit(POST), time.monotonic()
        for client in clients:
            client.send(long)
        assert [seqs(client, 1) for client in clients] == [[seq]] * 4
        assert time.monotonic() - began > (4 * pieces - 100) / update_pace.PIECES_PER_SECOND - 0.1


def test_who_waits_for_its_turn_does_not_hold_up_the_end(start_web: StartWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_pace, "PIECES_BURST", 1)
    monkeypatch.setattr(update_pace, "PIECES_PER_SECOND", 1)
    web = start_web(json_stream=True)
    with consumer(web) as client:
        client.send(json.dumps({"type": "other", "payload": "x" * 400_000}))
        time.sleep(1.5)
        assert web.services.consumers.leave(30)


def test_a_long_filter_leaves_others_their_turn(web: Web) -> None:
    payload = {"wantedDids": [account_did(number) for number in range(MAX_DIDS)]}
    update = json.dumps({"type": "options_update", "payload": payload})
    began = time.thread_time()
    of_update(payload, USUAL_KINDS)
    at_once = time.thread_time() - began
    with consumer(web) as client, holds() as longest:
        client.send(update)
        until(lambda: (REGISTRY.get_sample_value("relay_queue_size", {"queue": "json-filter-bytes"}) or 0) > 0)
    assert longest[0] < at_once


def test_what_has_very_many_items_is_not_read(web: Web) -> None:
    with consumer(web) as client:
        client.send('{"type": "other", "payload": [' + "[]," * 150_000 + "[]]}")
        assert closing(client) == (1008, "a message has too many items")


def test_hello_comes_first(web: Web, network: Network) -> None:
    first = network.commit(POST)
    with consumer(web, "?requireHello=true&cursor=seq:0") as client:
        assert nothing_comes(client)
        client.send(json.dumps({"type": "options_update", "payload": {}}))
        assert seqs(client, 1) == [first]


def test_a_consumer_that_says_no_hello_does_not_hold_up_the_end(start_web: StartWeb) -> None:
    web = start_web(json_stream=True)
    Network(web).commit(POST)
    with consumer(web, "?requireHello=true&cursor=seq:0") as client:
        assert web.services.consumers.leave(60)
        assert closing(client)[0] == 1001


@pytest.mark.parametrize(
    "query",
    [
        "?cursor=x",
        "?cursor=-1",
        "?cursor=seq:",
        "?cursor=" + "9" * 30,
        "?wantedCollections=post",
        "?wantedDids=did",
        "?kinds=posts",
        "?compress=true",
    ],
)
def test_what_is_wrong_is_told_before_the_upgrade(web: Web, query: str) -> None:
    assert refusal(web, query) == (400, "InvalidRequest")


def test_without_an_upgrade_or_without_the_stream(web: Web, start_web: StartWeb) -> None:
    assert call(web.url + "/subscribe").status == 426
    other = start_web()
    assert call(other.url + "/subscribe").status == 404
    assert refusal(other, "")[0] == 404


def test_compressed_with_the_operators_dictionary(start_web: StartWeb, tmp_path: Path) -> None:
    samples: list[bytes | bytearray | memoryview] = [
        json.dumps({"did": account_did(n), "kind": "commit", "n": n * 7919}).encode() for n in range(2000)
    ]
    dictionary = zstandard.train_dictionary(4096, samples)
    path = tmp_path / "dictionary"
    path.write_bytes(dictionary.as_bytes())
    web = start_web(json_stream=True, json_zstd_dictionary=path)
    network = Network(web)
    with (
        consumer(web, "?compress=true") as asked,
        consumer(web, additional_headers={"Socket-Encoding": "zstd"}) as by_header,
        consumer(web) as plain,
    ):
        until(lambda: len(list(web.services.consumers)) == 3)
        network.commit(POST, text="hello " * 50)
        frame, text = asked.recv(timeout=60), plain.recv(timeout=60)
        assert isinstance(frame, bytes) and isinstance(text, str) and frame == by_header.recv(timeout=60)
        reader = zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(path.read_bytes()))
        assert reader.decompress(frame) == text.encode() and len(frame) < len(text)


def test_compressed_as_most_libraries_offer(web: Web, network: Network) -> None:
    with connect(web.json_stream, compression="deflate") as asked, consumer(web) as plain:
        until(lambda: len(list(web.services.consumers)) == 2)
        assert [type(extension).__name__ for extension in asked.protocol.extensions] == ["PerMessageDeflate"]
        for _ in range(3):
            network.commit(POST, text="hello " * 100)
            assert asked.recv(timeout=60) == plain.recv(timeout=60)
        asked.send(json.dumps({"type": "options_update", "payload": {"wantedCollections": [LIKE]}}))
        until(lambda: network.commit(FOLLOW) and network.commit(LIKE) and f'"{LIKE}"' in asked.recv(timeout=10), 20)


def test_a_bomb_ends_the_consumer(web: Web) -> None:
    with connect(web.json_stream, compression="deflate") as client:
        client.send(" " * (10 << 20))
        assert closing(client)[0] == 1009


def test_consumers_are_listed(web: Web) -> None:
    with consumer(web, user_agent_header="bot/1"), connect(web.stream):
        until(lambda: len(list(web.services.consumers)) == 2)
        listed = web.admin("/admin/consumers/list").json
        assert {(row["user_agent"], row["stream"]) for row in listed} >= {("bot/1", "json")}
        assert sorted(row["stream"] for row in listed) == ["firehose", "json"]

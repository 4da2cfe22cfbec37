"""One attack on a relay, by hosts in a process of its own: `python -m tests.bench.neighbours.attackers NAME`.

Prints what the attack needs as one JSON line: the `hosts` that the relay is to crawl, whether they have no limits of
their own (`lifted`), and the `documents` of their accounts. Attacks from the first line on stdin to its end.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from hashlib import sha256  # noqa: E402
from itertools import count, cycle, islice  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402
from gevent.server import StreamServer  # noqa: E402

from tests.bench.neighbours.swing import Swing, paths_on  # noqa: E402
from tests.support.blocks import cbor  # noqa: E402
from tests.support.pds import FakePds, websocket_frame  # noqa: E402
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, did_document, frame, timestamp  # noqa: E402

# All of the same width, so that a frame can be sent again under another one.
FIRST_SEQ = 1 << 24
_SEQ = b"cseq\x1a"
NOW = timestamp(int(time.time() * 1_000_000))

Messages = Iterator[bytes]


class Attack(NamedTuple):
    """`messages` gives what a host sends, `rate` of them a second, or as fast as the relay takes them."""

    messages: Callable[[FakePds, dict[str, Any]], Messages]
    hosts: int = 1
    rate: float = 0.0
    lifted: bool = True


def renumbered(event: bytes, seqs: Iterator[int]) -> Messages:
    """The event again and again, under rising numbers."""
    head, _, rest = event.partition(_SEQ)
    for seq in seqs:
        yield head + _SEQ + seq.to_bytes(4) + rest[4:]


def swinging(make: Callable[[int], Swing]) -> Callable[[FakePds, dict[str, Any]], Messages]:
    def messages(pds: FakePds, documents: dict[str, Any]) -> Messages:
        swing = make(600_000)
        documents[swing.did] = did_document(swing.did, swing.key, pds.url)
        return map(swing.frame, count(FIRST_SEQ))

    return messages


def tiny_items(number: int) -> Swing:
    tail = cbor([{}] * 9600)
    paths = [f"app.bsky.feed.post/3k{index:07d}" for index in range(180)]
    return Swing(number, [], paths, lambda side, index: b"\xa2aii%07dav%b" % (side * 1000 + index, tail))


def big(number: int) -> Swing:
    return Swing(number, [], ["a.b.c/1", "a.b.c/2"], lambda side, _: cbor({"x": bytes([side]) * 950_000}))


def wide_node(number: int) -> Swing:
    first, *others = paths_on(0, 15_000)
    return Swing(number, others, [first], lambda side, _: cbor({"n": side}))


def wide_tree(number: int) -> Swing:
    others = paths_on(1, 11_000)
    return Swing(number, others, paths_on(0, 200, step=200), lambda side, index: cbor({"n": side, "i": index}))


def many_blocks(number: int) -> Swing:
    blocks = {b"\x01\x55\x12\x20" + sha256(block).digest(): block for block in map(cbor, range(9_900))}
    return Swing(number, [], ["a.b.c/1"], lambda side, _: cbor({"n": side}), blocks)


def unknown_fields(_: FakePds, __: dict[str, Any]) -> Messages:
    commit = RepoBuilder(account_did(700_001), SigningKey.create()).commit(create("a.b.c/1", {}))
    commit.fields["zzz"] = [{}] * 3_900
    return renumbered(commit.frame(FIRST_SEQ), count(FIRST_SEQ))


def unknown_identities(_: FakePds, __: dict[str, Any]) -> Messages:
    event = {"did": account_did(700_002), "seq": FIRST_SEQ, "time": NOW, "zzz": [{}] * 249_000}
    return renumbered(frame("#identity", event), count(FIRST_SEQ))


def unknown_accounts(pds: FakePds, _: dict[str, Any]) -> Messages:
    """Whose names nobody answers for: their events wait for minutes."""
    ports = islice(cycle(range(10_000, 30_000)), int(pds.hostname.rpartition(":")[2]) * 1_500 % 20_000, None)
    for seq, port in enumerate(ports, FIRST_SEQ):
        event = {"did": f"did:web:localhost%3A{port}", "seq": seq, "time": NOW, "active": True}
        yield frame("#account", event)


def tar_pits(_: FakePds, __: dict[str, Any]) -> Messages:
    """Names whose servers take a connection and never answer."""
    servers = [StreamServer(("127.0.0.1", 0), _silent) for _ in range(300)]
    for server in servers:
        server.start()
    for seq, server in enumerate(cycle(servers), FIRST_SEQ):
        did = f"did:web:localhost%3A{server.server_port}"
        yield frame("#account", {"did": did, "seq": seq, "time": NOW, "active": True})


def _silent(sock: socket.socket, _address: object) -> None:
    while sock.recv(4096):
        pass


def new_dids(_: FakePds, __: dict[str, Any]) -> Messages:
    """Accounts that the directory has never heard of."""
    for seq in count(FIRST_SEQ):
        yield frame("#account", {"did": account_did(800_000 + seq), "seq": seq, "time": NOW, "active": True})


def foreign(_: FakePds, __: dict[str, Any]) -> Messages:
    """The honest hosts' accounts, as if they were this host's."""
    for seq in count(FIRST_SEQ):
        yield frame("#identity", {"did": account_did(seq % 100), "seq": seq, "time": NOW})


def unreadable(_: FakePds, __: dict[str, Any]) -> Messages:
    return cycle([b"\xa2atg#commitbop\x01" + bytes(range(256)) * 8, b"\xff" * 3_000, cbor([{}] * 9_000)])


def flood(pds: FakePds, documents: dict[str, Any]) -> Messages:
    """Sound commits, until they begin again."""
    repos = [RepoBuilder(account_did(900_000 + number), SigningKey.create(seed=number)) for number in range(20)]
    documents.update({repo.did: did_document(repo.did, repo.key, pds.url) for repo in repos})
    commits = [
        repo.commit(create(f"app.bsky.feed.post/3k{index:07d}", {"text": "hello"})).frame(FIRST_SEQ)
        for index in range(200)
        for repo in repos
    ]
    return (next(renumbered(event, iter([seq]))) for seq, event in enumerate(cycle(commits), FIRST_SEQ))


# Hosts that nobody knows may send 50 messages a second. The others have no limit here, as large hosts have none in
# practice: what is to protect their neighbours is not the limit.
ATTACKS = {
    "commits of tiny items": Attack(swinging(tiny_items), rate=50),
    "commits of 2 MB": Attack(swinging(big), rate=50),
    "commits of one wide node": Attack(swinging(wide_node)),
    "commits of a wide tree": Attack(swinging(wide_tree)),
    "commits of many blocks": Attack(swinging(many_blocks)),
    "unknown fields": Attack(unknown_fields),
    "unknown fields of 249 kB": Attack(unknown_identities),
    "unknown accounts of ten hosts": Attack(unknown_accounts, hosts=10),
    "did:web tar pits": Attack(tar_pits),
    "429 of the directory": Attack(new_dids, rate=50),
    "foreign #identity": Attack(foreign),
    "unreadable frames": Attack(unreadable),
    "flood": Attack(flood),
}


def serve(pds: FakePds, messages: Messages, rate: float, go: Event) -> None:
    def stream(sock: socket.socket) -> None:
        # Ended by the harness.
        go.wait()
        due = time.monotonic()
        for message in messages:
            sock.sendall(websocket_frame(message))
            if rate:
                due = max(due + 1 / rate, time.monotonic() - 1)
            gevent.sleep(max(0.0, due - time.monotonic()) if rate else 0)

    pds.on_stream = stream


def main(name: str) -> None:
    attack, go = ATTACKS[name], Event()
    documents: dict[str, Any] = {}
    hosts = [FakePds() for _ in range(attack.hosts)]
    for pds in hosts:
        pds.__enter__()
        serve(pds, attack.messages(pds, documents), attack.rate, go)
    needs = {"hosts": [pds.url for pds in hosts], "lifted": attack.lifted and not attack.rate, "documents": documents}
    print(json.dumps(needs), flush=True)
    read = gevent.get_hub().threadpool.apply
    read(sys.stdin.readline)
    go.set()
    read(sys.stdin.read)


if __name__ == "__main__":
    main(sys.argv[1])

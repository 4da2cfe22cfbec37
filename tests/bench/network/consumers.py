"""The downstream side in a process of its own: M consumers, of which the first checks every event against the index.

Run by the harness: `python -m tests.bench.network.consumers URL COUNT FOLDER...`; the URL may carry a cursor. Prints
`{"loaded": true}`, connects, for a minute if nothing listens there yet, prints `{"connected": M}`, then how much has
been seen whenever that has changed. Takes JSON commands on stdin: `{"start": T, "seconds": S}` says when the measured
run begins, so that latency counts from when an event was due, not from when it was sent, and is answered with
`{"counting": true}`; `{"report": true}` prints the result, with `"each": true` every latency beside the moment when
its event was due. Latencies are of the first folder's events alone; all are checked. Every consumer checks that `seq`
rises; checking all of them in full would cost more than the relay does.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Protocol  # noqa: E402
from urllib.parse import urlsplit  # noqa: E402

import gevent  # noqa: E402
from gevent.socket import create_connection, socket  # noqa: E402

from tests.bench.network.traffic import index_of  # noqa: E402
from tests.bench.network.upgrade import request_for, split_upgrade  # noqa: E402

CONNECT_SECONDS = 60
# With what follows a key: a record key may have the same letters in it.
find_seq = re.compile(rb"cseq([\x00-\x17]|\x18.|\x19..|\x1a.{4}|\x1b.{8})", re.DOTALL).search
find_rev = re.compile(rb"crev\x6d([2-7a-z]{13})cseq").search


def seq_of(frame: bytes) -> int:
    """The `seq` of an event's frame: the CBOR integer after that key."""
    found = find_seq(frame)
    assert found, "no seq"
    number = found[1]
    return int.from_bytes(number[1:]) if len(number) > 1 else number[0]


def rev_of(frame: bytes) -> str:
    """The `rev` of a commit's frame."""
    found = find_rev(frame)
    assert found, "no rev"
    return found[1].decode()


def did_of(frame: bytes, key: bytes) -> str:
    """The DID after `key`, which includes its own length byte."""
    at = frame.find(key) + len(key)
    if frame[at] == 0x78:
        return frame[at + 2 : at + 2 + frame[at + 1]].decode()
    return frame[at + 1 : at + 1 + (frame[at] & 0x1F)].decode()


class Looker(Protocol):
    """Looks at every event of a consumer; `now` is monotonic seconds."""

    def take(self, frame: bytes, now: float) -> None: ...


class Checker:
    """What must come, what has come, in which order, and how late."""

    def __init__(self, folders: list[Path]) -> None:
        self.due: dict[
            tuple[str, str], float
        ] = {}  # (did, rev) of a commit -> its share of the run; below 0: it is not measured
        self.others: Counter[tuple[str, str]] = Counter()  # (did, kind) of what is no commit
        self.last_rev: dict[str, str] = {}
        self.seen = self.out_of_order = self.unexpected = 0
        self.start = self.seconds = 0.0
        self.latencies: list[tuple[float, float]] = []  # when an event was due, and how late it came
        self.unmeasured_at = 0.0  # when the last event came that is not measured
        for number, folder in enumerate(folders):
            for host in index_of(folder):
                for position, event in enumerate(host.events):
                    if event.kind == "commit":
                        self.due[event.did, event.rev] = -1.0 if number else host.due(position)
                    else:
                        self.others[event.did, event.kind] += 1

    def take(self, frame: bytes, now: float) -> None:
        self.seen += 1
        if frame.find(b"#commit", 0, 24) < 0:
            kind = "identity" if frame.find(b"#identity", 0, 24) > 0 else "account"
            self.others[did_of(frame, b"cdid"), kind] -= 1
            return
        did, rev = did_of(frame, b"drepo"), rev_of(frame)
        if rev <= self.last_rev.get(did, ""):
            self.out_of_order += 1
        self.last_rev[did] = rev
        due = self.due.pop((did, rev), None)
        if due is None:
            self.unexpected += 1
        elif due < 0:
            self.unmeasured_at = now
        elif self.seconds:
            due_at = self.start + due * self.seconds
            self.latencies.append((due_at, now - due_at))

    def missing(self) -> int:
        return len(self.due) + sum(count for count in self.others.values() if count > 0)


def connect(host: str, port: int) -> socket:
    """A connection, waited for when nothing listens there yet."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return create_connection((host, port), timeout=30)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            gevent.sleep(0.02)


class Consumer:
    """One connection: counts events and bytes, checks that `seq` rises."""

    def __init__(self, url: str, checker: Looker | None) -> None:
        self.checker = checker
        self.events = self.bytes = self.wire_bytes = self.not_rising = self.last_seq = 0
        self.first_at = self.last_at = 0.0
        self.ended = ""
        self.parts = b""
        parts = urlsplit(url)
        assert parts.hostname
        self.socket = connect(parts.hostname, parts.port or 80)
        self.socket.sendall(request_for(url))
        received = b""
        while (rest := split_upgrade(received)) is None:
            data = self.socket.recv(4096)
            assert data, "closed before the upgrade"
            received += data
        self.buffer = rest
        self.socket.settimeout(None)

    def run(self) -> None:
        """Read until the connection ends; `ended` says how."""
        try:
            while data := self.socket.recv(1 << 18):
                self._take(self.buffer + data if self.buffer else data)
                gevent.sleep(0)
            self.ended = "end of stream"
        except OSError as error:
            self.ended = repr(error)

    def _take(self, data: bytes) -> None:
        """Go through the whole WebSocket frames in `data`; keep the rest for later."""
        position, size = 0, len(data)
        now = time.monotonic()
        while size - position >= 2:
            length, at = data[position + 1], position + 2
            if length == 126:
                length, at = int.from_bytes(data[at : at + 2]), at + 2
            elif length == 127:
                length, at = int.from_bytes(data[at : at + 8]), at + 8
            if at + length > size:
                break
            self._frame(data[position], data[at : at + length], now)
            self.wire_bytes += at + length - position
            position = at + length
        self.buffer = data[position:]

    def _frame(self, first: int, payload: bytes, now: float) -> None:
        if first & 0x0F >= 8:
            self._control(first & 0x0F, payload)
        elif first == 0x82:
            self._message(payload, now)
        else:  # part of a message: some relays send long ones in pieces
            self.parts += payload
            if first & 0x80:
                self._message(self.parts, now)
                self.parts = b""

    def _message(self, payload: bytes, now: float) -> None:
        self.events += 1
        self.bytes += len(payload)
        self.first_at = self.first_at or now
        self.last_at = now
        seq = seq_of(payload)
        if seq <= self.last_seq:
            self.not_rising += 1
        self.last_seq = seq
        if self.checker:
            self.checker.take(payload, now)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:  # a ping: the pong is masked with zeros
            self.socket.sendall(bytes((0x8A, 0x80 | len(payload))) + bytes(4) + payload)
        elif opcode == 8:
            self.ended = f"closed by the relay: {payload[2:].decode(errors='replace')}"


def percentile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 6) if ordered else None


def report(consumers: list[Consumer], checker: Checker) -> dict[str, Any]:
    ordered = sorted(latency for _, latency in checker.latencies)
    first = min((one.first_at for one in consumers if one.first_at), default=0.0)
    last = max(one.last_at for one in consumers)
    return {
        "checked_events": checker.seen,
        "missing": checker.missing(),
        "unexpected_or_repeated": checker.unexpected,
        "out_of_order": checker.out_of_order,
        "seq_not_rising": sum(one.not_rising for one in consumers),
        "connections_lost": sum(bool(one.ended) for one in consumers),
        "deliveries": sum(one.events for one in consumers),
        "wire_bytes": consumers[0].wire_bytes,
        "delivered_bytes": sum(one.bytes for one in consumers),
        "first_at": first,
        "last_at": last,
        "unmeasured_at": checker.unmeasured_at,
        "latency_s": {
            name: percentile(ordered, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
        },
    }


def main(url: str, count: int, folders: list[Path]) -> None:
    checker = Checker(folders)
    print(json.dumps({"loaded": True}), flush=True)
    consumers = [Consumer(url, None if number else checker) for number in range(count)]
    for one in consumers:
        gevent.spawn(one.run)
    print(json.dumps({"connected": count}), flush=True)
    gevent.spawn(_tell_progress, checker, consumers)
    while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
        command = json.loads(line)
        if "report" in command:
            each = {"each": checker.latencies} if "each" in command else {}
            print(json.dumps({"report": report(consumers, checker) | each}), flush=True)
        else:
            checker.start, checker.seconds = command["start"], command["seconds"]
            for one in consumers:
                one.events = one.bytes = 0
                one.first_at = 0.0
            print(json.dumps({"counting": True, "slowest": 0}), flush=True)


def _tell_progress(checker: Checker, consumers: list[Consumer]) -> None:
    told = (-1, -1)
    while True:
        gevent.sleep(0.1)
        now = (checker.seen, min(one.events for one in consumers))
        if now != told:
            print(json.dumps({"seen": now[0], "slowest": now[1]}), flush=True)
            told = now


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [Path(folder) for folder in sys.argv[3:]])

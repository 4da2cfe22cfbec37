"""The consumers of a JSON stream, in a process of their own: all count messages, some look at each.

Run by the harness: `python -m tests.bench.jsonstream.readers URL PLAN`. PLAN is a file of JSON: `[{"query": "…",
"checked": false}, …]`. Prints `{"connected": N}`, then how many messages each has, when the last came (monotonic
seconds) and how many connections were lost, whenever that has changed. `{"report": true}` on stdin prints a digest of
all keys that each checked one has seen, how many messages of an account were out of order, and all bytes. Ends when
stdin closes.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from tests.bench.jsonstream.wanted import digest, key_of
from tests.bench.network.upgrade import split_upgrade, upgrade_request

PATH = "/subscribe"
READ_BYTES = 1 << 20
TELL_SECONDS = 0.1
# With an empty payload, masked with zeros.
FIN, OPCODE, CLOSE, PING = 0x80, 0x0F, 0x8, 0x9


class Checked:
    """What one reader has seen, message by message."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.out_of_order = 0
        self._last_rev: dict[str, str] = {}
        self._last_time = 0

    def take(self, text: bytes) -> None:
        message = orjson.loads(text)
        self.keys.append(key_of(message))
        rev = message["commit"]["rev"] if message["kind"] == "commit" else ""
        earlier = self._last_rev.get(message["did"], "")
        if message["time_us"] <= self._last_time or (rev and rev < earlier):
            self.out_of_order += 1
        self._last_rev[message["did"]] = rev or earlier
        self._last_time = message["time_us"]


class Reader:
    """One connection: counts messages."""

    def __init__(self, url: str, query: str, checked: Checked | None) -> None:
        self.checked = checked
        self.messages = self.bytes = 0
        self._parts = b""
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.socket.sendall(upgrade_request(f"{PATH}?{query}", f"{host}:{port}"))
        received = b""
        while (rest := split_upgrade(received)) is None:
            data = self.socket.recv(4096)
            assert data, "closed before the upgrade"
            received += data
        self._rest = b""
        self.take(rest)
        self.socket.setblocking(False)

    def take(self, data: bytes) -> bool:
        """Go through the whole frames of what came, keep the rest for later. False when the server ends it."""
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        while size - at >= 2:
            length, begin = data[at + 1], at + 2
            if length == 126:
                length, begin = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif length == 127:
                length, begin = int.from_bytes(data[at + 2 : at + 10]), at + 10
            if begin + length > size:
                break
            first, at = data[at], begin + length
            if first & OPCODE >= CLOSE:
                if first & OPCODE == CLOSE:
                    return False
                if first & OPCODE == PING:
                    self.socket.sendall(bytes((0x8A, 0x80 | length, 0, 0, 0, 0)) + data[begin:at])
            else:
                self._part(first, data, begin, at)
        self._rest = data[at:]
        return True

    def _part(self, first: int, data: bytes, begin: int, end: int) -> None:
        self.bytes += end - begin
        if self.checked:
            self._parts += data[begin:end]
        if first & FIN:
            self.messages += 1
            if self.checked:
                self.checked.take(self._parts)
                self._parts = b""


def report(readers: list[Reader]) -> dict[str, Any]:
    checked = [reader.checked for reader in readers if reader.checked]
    return {
        "digests": [digest(one.keys) for one in checked],
        "out_of_order": sum(one.out_of_order for one in checked),
        "bytes": sum(reader.bytes for reader in readers),
    }


def main(url: str, plan: Path) -> None:
    readers = [Reader(url, one["query"], Checked() if one["checked"] else None) for one in json.loads(plan.read_text())]
    by_number = {reader.socket.fileno(): reader for reader in readers}
    ready = select.epoll()
    for number in (sys.stdin.fileno(), *by_number):
        ready.register(number, select.EPOLLIN)
    print(json.dumps({"connected": len(readers)}), flush=True)
    told: list[int] = []
    last_at, tell_at, lost = 0.0, 0.0, 0
    while True:
        for number, _ in ready.poll(TELL_SECONDS):
            if number not in by_number:
                if not sys.stdin.readline():
                    return
                print(json.dumps({"report": report(readers)}), flush=True)
                continue
            data = by_number[number].socket.recv(READ_BYTES)
            last_at = time.monotonic()
            if not data or not by_number[number].take(data):
                ready.unregister(number)
                lost += 1
        if time.monotonic() >= tell_at:
            tell_at = time.monotonic() + TELL_SECONDS
            counts = [*(reader.messages for reader in readers), lost]
            if counts != told:
                told = counts
                print(json.dumps({"messages": counts[:-1], "last_at": last_at, "lost": lost}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

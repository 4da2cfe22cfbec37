"""Consumers that only count bytes, in a process of their own: for runs in which looking at events would cost too much.

Run by the harness: `python -m tests.bench.network.counting URL COUNT`; the URL may carry a cursor. Prints
`{"connected": N}`, then how many bytes the slowest has, when the first and the last came (monotonic seconds) and how
many connections were lost, whenever that has changed. Every consumer is sent the same bytes, so one that has as many
as a checking consumer has had the same events. Pings are not answered. Ends when stdin closes.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from tests.bench.network.upgrade import request_for, split_upgrade

READ_BYTES = 1 << 20
TELL_SECONDS = 0.1


@dataclass
class Counts:
    slowest_bytes: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    lost: int = 0


def connect(url: str) -> tuple[socket.socket, int]:
    """A connected consumer and how many bytes it has had already."""
    parts = urlsplit(url)
    sock = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)
    sock.sendall(request_for(url))
    buffer = b""
    while (rest := split_upgrade(buffer)) is None:
        data = sock.recv(4096)
        assert data, "closed before the upgrade"
        buffer += data
    sock.setblocking(False)
    return sock, len(rest)


def main(url: str, count: int) -> None:
    ready = select.epoll()
    sockets: dict[int, socket.socket] = {}
    received: dict[int, int] = {}
    for _ in range(count):
        sock, had = connect(url)
        sockets[sock.fileno()], received[sock.fileno()] = sock, had
    counts, told, tell_at = Counts(), Counts(), 0.0
    for number in (sys.stdin.fileno(), *sockets):
        ready.register(number, select.EPOLLIN)
    print(json.dumps({"connected": count}), flush=True)
    buffer = bytearray(READ_BYTES)
    while True:
        for number, _ in ready.poll(TELL_SECONDS):
            if number not in sockets:
                return
            size = sockets[number].recv_into(buffer)
            received[number] += size
            counts.last_at = time.monotonic()
            counts.first_at = counts.first_at or counts.last_at
            if not size:
                ready.unregister(number)
                counts.lost += 1
        if time.monotonic() >= tell_at:
            tell_at = time.monotonic() + TELL_SECONDS
            counts.slowest_bytes = min(received.values())
            if counts != told:
                told = Counts(**asdict(counts))
                print(json.dumps(asdict(counts)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

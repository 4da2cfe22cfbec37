"""The upstream side in a process of its own: a PLC directory and N hosts that replay prebuilt traffic.

Run by the harness: `python -m tests.bench.network.fleet --help`. Prints its addresses as one JSON line, then takes one
JSON command a line on stdin: `{"send": "first", "traffic": N}` lets every host of the Nth folder, from 0, send each
account's first event, `{"send": "all", "traffic": N, "start": T, "seconds": S}` the rest, spread over S seconds from T
on the monotonic clock, or as fast as the relay reads when S is 0. `{"count": true}` prints how often the directory was
asked, and how many hosts have a subscriber. Ends when stdin closes. A relay that connects with a cursor gets what comes
after it.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import ssl  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from urllib.parse import parse_qs, urlsplit  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402
from gevent.server import StreamServer  # noqa: E402
from gevent.socket import socket  # noqa: E402
from websockets.frames import Frame, Opcode  # noqa: E402
from websockets.http11 import Request  # noqa: E402
from websockets.server import ServerProtocol  # noqa: E402

from tests.bench.network.traffic import HostIndex, frames_of, index_of  # noqa: E402
from tests.support.certificate import server_context  # noqa: E402
from tests.support.plc import FakePlc  # noqa: E402
from tests.support.repo import did_document  # noqa: E402

CHUNK_FRAMES = 64


class FleetHost:
    """One host: answers `describeServer` and `getRepoStatus`, and streams its frames to whoever subscribes."""

    def __init__(self, index: HostIndex, frames: list[bytes], tls: ssl.SSLContext | None) -> None:
        self.index = index
        self.frames = frames
        self.released = 0
        self.subscribers = 0
        self.more = Event()
        self.start = 0.0
        self.seconds = 0.0
        options: dict[str, Any] = {} if tls is None else {"ssl_context": tls}
        self.server = StreamServer(("127.0.0.1", 0), self._serve, backlog=64, **options)
        self.server.start()
        self.url = f"{'https' if tls else 'http'}://localhost:{self.server.server_port}"

    def release(self, count: int, start: float = 0.0, seconds: float = 0.0) -> None:
        """Let the stream go on up to `count` frames, paced when `seconds` is not 0."""
        self.start, self.seconds = start, seconds
        self.released = count
        self.more.set()

    def _serve(self, client: socket, _: Any) -> None:
        with client:
            try:
                head = client.recv(65536)
                target = urlsplit(head.split(b" ", 2)[1].decode())
                if target.path.endswith("subscribeRepos"):
                    self._subscribe(client, head, parse_qs(target.query).get("cursor"))
                else:
                    client.sendall(
                        _json_response({"did": "did:web:localhost", "availableUserDomains": [], "active": True})
                    )
            except OSError:
                return

    def _subscribe(self, client: socket, head: bytes, cursor: list[str] | None) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(head)
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        client.sendall(b"".join(protocol.data_to_send()))
        position = int(cursor[0]) if cursor else self.released
        sender = gevent.spawn(self._stream, client, position)
        self.subscribers += 1
        try:
            while data := client.recv(4096):
                protocol.receive_data(data)
                client.sendall(b"".join(protocol.data_to_send()))
                if any(
                    isinstance(frame, Frame) and frame.opcode is Opcode.CLOSE for frame in protocol.events_received()
                ):
                    return
        finally:
            self.subscribers -= 1
            sender.kill()

    def _stream(self, client: socket, position: int) -> None:
        while True:
            if position >= self.released:
                self.more.clear()
                self.more.wait()
                continue
            end = self._due_until(position)
            client.sendall(b"".join(self.frames[position:end]))
            position = end
            gevent.sleep(0)

    def _due_until(self, position: int) -> int:
        """The end of the chunk that may be sent now, waited for."""
        end = min(position + CHUNK_FRAMES, self.released)
        if not self.seconds:
            return end
        gevent.sleep(max(0.0, self._due(position) - time.monotonic()))
        now, last = time.monotonic(), position + 1
        while last < end and self._due(last) <= now:
            last += 1
        return last

    def _due(self, position: int) -> float:
        return self.start + self.index.due(position) * self.seconds


def _json_response(value: Any) -> bytes:
    body = json.dumps(value).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def main(options: argparse.Namespace) -> None:
    plc = FakePlc(options.plc_latency, options.plc_failures, options.plc_port)
    tls = server_context(options.certificate) if options.certificate else None
    fleets: list[list[FleetHost]] = []
    for folder in options.folder:
        hosts = [FleetHost(one, frames_of(folder, number), tls) for number, one in enumerate(index_of(folder))]
        fleets.append(hosts)
        for host in hosts:
            for account in host.index.accounts:
                plc.documents[account.did] = json.dumps(did_document(account.did, account.key(), host.url)).encode()
    with plc:
        print(json.dumps({"plc": plc.url, "hosts": [host.url for hosts in fleets for host in hosts]}), flush=True)
        while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
            obey(json.loads(line), fleets, plc)


def obey(command: dict[str, Any], fleets: list[list[FleetHost]], plc: FakePlc) -> None:
    if "count" in command:
        subscribed = sum(bool(host.subscribers) for hosts in fleets for host in hosts)
        print(json.dumps({"plc_requests": plc.requests, "subscribed": subscribed}), flush=True)
        return
    for host in fleets[command["traffic"]]:
        if command["send"] == "first":
            host.release(len(host.index.accounts))
        else:
            host.release(len(host.frames), command["start"], command["seconds"])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="+", help="traffic that `traffic.load_or_build` made")
    parser.add_argument("--certificate", type=Path, help="PEM file of key and certificate; hosts have TLS with it")
    parser.add_argument("--plc-port", type=int, default=0)
    parser.add_argument("--plc-latency", type=float, default=0.0, help="seconds before each answer of the directory")
    parser.add_argument("--plc-failures", type=float, default=0.0, help="share of its answers that are a 500")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())

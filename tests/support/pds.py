"""A PDS host on loopback that serves prebuilt frames over real WebSockets, and can be told to misbehave.

Answers subscribeRepos with a cursor, describeServer, getRepoStatus and listHosts. The frames are opaque to it: tests
say what each one's seq is. `on_accept` and `on_stream` hand a test the raw socket, for what no real host would do.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

import gevent
from gevent.event import Event as Signal
from gevent.server import StreamServer

from tests.support.blocks import car, cbor, cid_text
from tests.support.repo import RepoBuilder, frame

ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, TEXT, CLOSE, PING, PONG = 0x2, 0x1, 0x8, 0x9, 0xA


def websocket_frame(payload: bytes, opcode: int = BINARY, *, fin: bool = True) -> bytes:
    """One unmasked WebSocket frame, as servers send them."""
    first = opcode | (0x80 if fin else 0)
    if len(payload) < 126:
        return struct.pack("!BB", first, len(payload)) + payload
    if len(payload) < 1 << 16:
        return struct.pack("!BBH", first, 126, len(payload)) + payload
    return struct.pack("!BBQ", first, 127, len(payload)) + payload


def identity_frame(seq: int, did: str = "did:plc:" + "a" * 24) -> bytes:
    """The smallest real event."""
    return frame("#identity", {"seq": seq, "did": did, "time": "2026-11-24T00:00:00.000Z"})


def sync_frame(seq: int, did: str = "did:plc:" + "a" * 24) -> bytes:
    """A `#sync` of the right form, and nothing more."""
    stated = {"rev": "3kabcdefghij2", "blocks": b"", "time": "2026-11-24T00:00:00.000Z"}
    return frame("#sync", {"seq": seq, "did": did, **stated})


def error_frame(error: str, message: str = "") -> bytes:
    """What a host sends before it closes."""
    return cbor({"op": -1}) + cbor({"error": error, "message": message})


class FakePds:
    """One listening host. `events` are (seq, frame) in order; `publish` adds one and wakes open streams."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.events: list[tuple[int, bytes]] = []
        self.cursors: list[str | None] = []
        self.requests: list[str] = []
        self.user_agents: list[str] = []
        self.pings = 0
        self.open_streams = 0
        self.server_header = "fake-pds"
        self.refuse_upgrade: int | None = None
        # With what body and headers; and whether a cursor that is ahead is refused so, and which were.
        self.refusal = b""
        self.refusal_headers: dict[str, str] = {}
        self.refuse_future = False
        self.refused_cursors: list[str | None] = []
        self.describe_status = 200
        self.future_cursor = False
        self.answer_pings = True
        self.repo_status: dict[str, dict[str, Any]] = {}
        self.collections: dict[str, list[str]] = {}
        self.hosts: list[object] = []
        # The repositories that can be read, and answers in place of what they would give: method -> (status, body).
        self.repos: dict[str, RepoBuilder] = {}
        self.repos_per_page = 1000
        self.answers: dict[str, Callable[[dict[str, str]], tuple[int, bytes]]] = {}
        self.on_accept: Callable[[socket.socket], None] | None = None
        self.on_stream: Callable[[socket.socket], None] | None = None
        # By seq: bytes that are sent as they are, in place of a WebSocket frame.
        self.unframed: dict[int, bytes] = {}
        self._news = Signal()
        self._sockets: set[socket.socket] = set()
        arguments: dict[str, Any] = {} if tls is None else {"ssl_context": tls}
        self._server = StreamServer(("127.0.0.1", 0), self._serve, **arguments)
        self._scheme = "http" if tls is None else "https"

    def __enter__(self) -> FakePds:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._server.stop(timeout=0.1)

    @property
    def hostname(self) -> str:
        return f"localhost:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.hostname}"

    def publish(self, seq: int, event: bytes) -> None:
        self.events.append((seq, event))
        news, self._news = self._news, Signal()
        news.set()

    def drop_tls(self) -> None:
        """Serve on the same port without TLS from now on: `on_accept` is handed the bytes of a handshake."""
        port = self._server.server_port or 0
        self._server.stop(timeout=1)
        self._server = StreamServer(("127.0.0.1", port), self._serve)
        self._server.start()

    def hang_up(self) -> None:
        """Cut every connection."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _serve(self, sock: socket.socket, _address: object) -> None:
        self._sockets.add(sock)
        try:
            if self.on_accept is not None:
                self.on_accept(sock)
            else:
                self._answer(sock)
        except OSError:
            pass
        finally:
            self._sockets.discard(sock)
            sock.close()

    def _answer(self, sock: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(4096)
            if not data:
                return
            head += data
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        target = urlsplit(lines[0].split()[1])
        self.requests.append(lines[0])
        method = target.path.rpartition("/")[2]
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        if headers.get("upgrade") == "websocket" and method == "com.atproto.sync.subscribeRepos":
            self.user_agents.append(headers.get("user-agent", ""))
            self._upgrade(sock, headers["sec-websocket-key"], query.get("cursor"))
        else:
            status, body = self._method(method, query)
            self._send_head(sock, status, {"Content-Length": str(len(body)), "Content-Type": "application/json"}, body)

    def _method(self, method: str, query: dict[str, str]) -> tuple[int, bytes]:
        if (answer := self.answers.get(method.rpartition(".")[2])) is not None:
            return answer(query)
        repo = self.repos.get(query.get("did", ""))
        if repo is not None and (found := self._of_repo(method, repo)) is not None:
            return found
        if method == "com.atproto.server.describeServer":
            return self.describe_status, json.dumps({"did": "did:web:localhost", "availableUserDomains": []}).encode()
        if method == "com.atproto.sync.getRepoStatus" and query.get("did") in self.repo_status:
            return 200, json.dumps(self.repo_status[query["did"]]).encode()
        if method == "com.atproto.repo.describeRepo" and query.get("repo") in self.collections:
            did = query["repo"]
            return 200, json.dumps({"did": did, "collections": self.collections[did]}).encode()
        if method == "com.atproto.sync.listRepos":
            repos = list(self.repos.values())
            start = int(query.get("cursor", 0))
            size = min(int(query.get("limit", 500)), self.repos_per_page)
            listed = [self._listed(repo) for repo in repos[start : start + size]]
            more = {"cursor": str(start + size)} if start + size < len(repos) else {}
            return 200, json.dumps({"repos": listed, **more}).encode()
        if method == "com.atproto.sync.listHosts":
            start, limit = int(query.get("cursor", 0)), int(query.get("limit", 200))
            page: dict[str, Any] = {"hosts": self.hosts[start : start + limit]}
            if start + limit < len(self.hosts):
                page["cursor"] = str(start + limit)
            return 200, json.dumps(page).encode()
        return 404, b'{"error":"NotFound"}'

    def _listed(self, repo: RepoBuilder) -> dict[str, Any]:
        status = self.repo_status.get(repo.did, {"active": True})
        return {"did": repo.did, "head": cid_text(repo.head), "rev": repo.rev, **status}

    def _of_repo(self, method: str, repo: RepoBuilder) -> tuple[int, bytes] | None:
        if method == "com.atproto.sync.getLatestCommit":
            return 200, json.dumps({"cid": cid_text(repo.head), "rev": repo.rev}).encode()
        if method == "com.atproto.sync.getBlocks":
            # The reference PDS names no root here.
            return 200, car([], {repo.head: repo.head_block})
        if method in ("com.atproto.sync.getRecord", "com.atproto.sync.getRepo"):
            return 200, car([repo.head], {repo.head: repo.head_block})
        return None

    def _upgrade(self, sock: socket.socket, key: str, cursor: str | None) -> None:
        refused = self.refuse_upgrade
        if self.refuse_future and int(cursor or 0) > (self.events[-1][0] if self.events else 0):
            refused = 400
            self.refused_cursors.append(cursor)
        if refused is not None:
            headers = {"Content-Length": str(len(self.refusal)), **self.refusal_headers}
            self._send_head(sock, refused, headers, self.refusal)
            return
        accept = base64.b64encode(hashlib.sha1(key.encode() + ACCEPT_SUFFIX).digest()).decode()
        self._send_head(sock, 101, {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept})
        self.cursors.append(cursor)
        self.open_streams += 1
        try:
            if self.on_stream is not None:
                self.on_stream(sock)
            else:
                self._stream(sock, cursor)
        finally:
            self.open_streams -= 1

    def _send_head(self, sock: socket.socket, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        lines = [f"HTTP/1.1 {status} Status", f"Server: {self.server_header}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def _stream(self, sock: socket.socket, cursor: str | None) -> None:
        last = self.events[-1][0] if self.events else 0
        sent = len(self.events) if cursor is None else sum(seq <= int(cursor) for seq, _ in self.events)
        if cursor is not None and (int(cursor) > last or self.future_cursor):
            sock.sendall(websocket_frame(error_frame("FutureCursor")))
            return
        reader = gevent.spawn(self._read, sock)
        try:
            while not reader.dead:
                news = self._news
                while sent < len(self.events):
                    seq, event = self.events[sent]
                    sock.sendall(self.unframed.get(seq) or websocket_frame(event))
                    sent += 1
                ends: list[Signal | gevent.Greenlet[[socket.socket], None]] = [news, reader]
                gevent.wait(ends, timeout=60, count=1)
        finally:
            reader.kill()

    def _read(self, sock: socket.socket) -> None:
        """Answer pings until the client says goodbye or hangs up. Clients' frames are small and masked."""
        stream = sock.makefile("rb")
        with contextlib.suppress(OSError):
            self._read_frames(sock, stream)

    def _read_frames(self, sock: socket.socket, stream: BinaryIO) -> None:
        while True:
            header = stream.read(2)
            if len(header) < 2 or header[0] & 0xF == CLOSE:
                return
            mask = stream.read(4)
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(stream.read(header[1] & 0x7F)))
            if header[0] & 0xF == PING:
                self.pings += 1
                if self.answer_pings:
                    sock.sendall(websocket_frame(payload, PONG))

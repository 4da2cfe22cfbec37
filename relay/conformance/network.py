"""The fake network: a PLC directory, and hosts that send what scenarios give them to whoever subscribes.

Both say of an account what a scenario has set, which may be changed while they serve.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from relay.atproto import drisl
from relay.conformance.server import Answer, LoopbackServer


class Directory(LoopbackServer):
    """The PLC directory: `documents` by DID, `gone` for tombstones, `failing` for those that it fails on."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.documents: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()
        self.failing: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.user_agents: set[str | None] = set()

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, query: dict[str, str], agent: str | None) -> Answer:
        """As plc.directory does."""
        did = path.strip("/")
        self.user_agents.add(agent)
        self.asked[did] += 1
        if did in self.failing:
            return 500, {"message": "internal error"}
        if did in self.gone:
            return 410, {"message": f"DID not available: {did}"}
        if did not in self.documents:
            return 404, {"message": f"DID not registered: {did}"}
        return 200, self.documents[did]


class FakeHost(LoopbackServer):
    """A PDS. Everything that it ever sent is its replay window; `statuses` is what getRepoStatus says."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: dict[str, dict[str, Any]] = {}
        self.web_documents: dict[str, dict[str, Any]] = {}
        self.cursors: list[int | None] = []
        self.user_agents: list[str | None] = []
        self.held = False
        self._messages: list[tuple[int, bytes]] = []
        self._seq = 0
        self._changed = threading.Condition()
        self._connections: set[ServerConnection] = set()

    @property
    def hostname(self) -> str:
        """The name that relays know it by."""
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        """Its address, as DID documents have it."""
        return f"http://{self.hostname}"

    @property
    def connected(self) -> bool:
        """Whether somebody follows it."""
        return bool(self._connections)

    def send(self, make: Callable[[int], bytes], *, seq: int | None = None) -> int:
        """Send `make(seq)` under the next seq, or the one that is given, which is returned."""
        with self._changed:
            number = self._seq + 1 if seq is None else seq
            self._seq = max(self._seq, number)
            self._messages.append((number, make(number)))
            self._changed.notify_all()
        return number

    def hang_up(self, farewell: bytes | None = None) -> None:
        """Break all connections off, or end them properly after a last message. They may come again."""
        for connection in list(self._connections):
            if farewell is not None:
                connection.send(farewell)
                connection.close()
            else:
                with contextlib.suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_RDWR)

    def hold(self, held: bool) -> None:
        """Keep back what is to be sent, and not take connections, or go on."""
        with self._changed:
            self.held = held
            self._changed.notify_all()

    def answer(self, path: str, query: dict[str, str], agent: str | None) -> Answer:
        """As a PDS does."""
        method = path.rpartition("/")[2]
        if method == "com.atproto.server.describeServer":
            return 200, {"did": f"did:web:{self.hostname}", "availableUserDomains": []}
        if method == "com.atproto.sync.getRepoStatus" and query.get("did") in self.statuses:
            return 200, self.statuses[query["did"]]
        if method == "did.json" and f"did:web:localhost%3A{self.port}" in self.web_documents:
            return 200, self.web_documents[f"did:web:localhost%3A{self.port}"]
        return 404, {"error": "NotFound", "message": "not here"}

    def stream(self, connection: ServerConnection, query: dict[str, str]) -> None:
        """Send what comes, or what is after the cursor, until the other side is gone."""
        assert connection.request is not None
        cursor = int(query["cursor"]) if "cursor" in query else None
        with self._changed:
            sent = len(self._messages) if cursor is None else 0
        self.cursors.append(cursor)
        self.user_agents.append(connection.request.headers.get("User-Agent"))
        self._connections.add(connection)
        threading.Thread(target=self._read, args=[connection], daemon=True).start()
        try:
            while connection in self._connections:
                with self._changed:
                    if self.held or sent == len(self._messages):
                        self._changed.wait(0.5)
                    waiting = [] if self.held else self._messages[sent:]
                for seq, message in waiting:
                    sent += 1
                    if cursor is None or seq > cursor:
                        connection.send(message)
        finally:
            self._connections.discard(connection)

    def _read(self, connection: ServerConnection) -> None:
        """Read, so that pings are answered and the end is noticed."""
        with contextlib.suppress(ConnectionClosed):
            for _ in connection:
                pass
        self._connections.discard(connection)
        with self._changed:
            self._changed.notify_all()


def error_frame(name: str) -> bytes:
    """What a host says before it closes."""
    return drisl.encode({"op": -1}) + drisl.encode({"error": name, "message": "as the scenario wants it"})

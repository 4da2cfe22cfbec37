"""A consumer of the relay's firehose: one that keeps all that comes, by account, and one that reads a few messages.

Decoding is `relay.atproto.frames`, which is stricter than consumers need to be: what it cannot read is kept as such.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from relay.atproto import drisl, frames
from relay.atproto.errors import ProtocolError
from relay.atproto.events import Event, Info, StreamError

MAX_MESSAGE = 8_000_000


class Message(NamedTuple):
    """One message; `event` is None when it cannot be read or is not of a known kind."""

    data: bytes
    event: Event | Info | StreamError | None


def open_firehose(address: str, cursor: int | str | None = None) -> ClientConnection:
    """A connection to `subscribeRepos` of a relay at `ws://…`. Raises InvalidStatus when it is refused."""
    query = "" if cursor is None else f"?cursor={cursor}"
    return connect(
        f"{address}/xrpc/com.atproto.sync.subscribeRepos{query}",
        max_size=MAX_MESSAGE,
        compression=None,
        proxy=None,
        user_agent_header="relay-conformance",
        close_timeout=2,
    )


def read(message: bytes | str) -> Message:
    """A message with what it says."""
    data = message if isinstance(message, bytes) else message.encode()
    try:
        return Message(data, frames.decode(data))
    except ProtocolError:
        return Message(data, None)


class Watcher:
    """Follows the firehose from now on, in a thread, and keeps everything."""

    def __init__(self, address: str) -> None:
        self._connection = open_firehose(address)
        self._lock = threading.Lock()
        self._by_account: dict[str, list[Message]] = defaultdict(list)
        self.messages: list[Message] = []
        self.ended: str | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def of(self, did: str) -> list[Message]:
        """What came of an account so far, in order."""
        with self._lock:
            return list(self._by_account.get(did, ()))

    def events(self, did: str) -> list[Event]:
        """Those that can be read."""
        return [
            message.event
            for message in self.of(did)
            if message.event and not isinstance(message.event, Info | StreamError)
        ]

    def close(self) -> None:
        """Leave."""
        with contextlib.suppress(WebSocketException):
            self._connection.close()

    def _run(self) -> None:
        try:
            for data in self._connection:
                message = read(data)
                did = getattr(message.event, "did", None) or _account_of(message.data)
                with self._lock:
                    self.messages.append(message)
                    self._by_account[did].append(message)
        except WebSocketException as error:
            self.ended = str(error)
        else:
            self.ended = "closed"


def replay(address: str, cursor: int | None, seconds: float, last: int | None = None) -> list[Message]:
    """What a new consumer gets: until the event with seq `last` came, the relay closes, or the seconds are over."""
    messages: list[Message] = []
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ConnectionClosed, TimeoutError), open_firehose(address, cursor) as connection:
        while (left := deadline - time.monotonic()) > 0:
            data = connection.recv(timeout=left)
            messages.append(read(data))
            if last is not None and getattr(messages[-1].event, "seq", -1) >= last:
                break
    return messages


def refusal(address: str, cursor: str) -> int | None:
    """The HTTP status with which a connection is refused, None when it is not."""
    try:
        with open_firehose(address, cursor):
            return None
    except InvalidStatus as error:
        return error.response.status_code


def _account_of(data: bytes) -> str:
    """Whose message it is, as far as it can be read at all."""
    try:
        _, start = drisl.decode_prefix(data)
        payload = drisl.load(data[start:])
    except ProtocolError:
        return ""
    return str(payload.get("repo") or payload.get("did") or "") if isinstance(payload, dict) else ""

"""The process beside a node that talks to NATS: does what the node asks over a socket, and ends when the node does.

Started by `link` as `python -m relay.cluster.nats_process SOCKET REPLICAS SECONDS BYTES`. nats-py is asyncio,
which the relay's own process does not load. It keeps no state and decides nothing: what an answer means is the node's
to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import APIError, NotFoundError

from relay.cluster import wire
from relay.kit.messages import Inbox, encode

STREAM = "relay"
SUBJECT = "relay.log"
TIP_SUBJECT = "relay.tip"
# What one message may have: a full batch and the largest event.
MAX_MESSAGE = 7 << 20
ANSWER_SECONDS = 2.0
CONNECT_SECONDS = 1.0
RETRY_SECONDS = 0.2
READ_BYTES = 256 << 10
WRONG_LAST_SEQUENCE = 10071
_PR_SET_PDEATHSIG = 1


class Servant:
    """Does what the node on `writer` asks, each request for itself."""

    def __init__(self, writer: asyncio.StreamWriter, config: StreamConfig) -> None:
        self._writer = writer
        self._config = config
        self._made = False
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None

    async def connect(self, urls: list[str]) -> None:
        """Connect, and stay connected from then on."""
        while self._client is None:
            try:
                self._client = await nats.connect(
                    urls,
                    connect_timeout=CONNECT_SECONDS,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RETRY_SECONDS,
                    ping_interval=1,
                    max_outstanding_pings=2,
                    # What cannot go out now is asked for again: it must not go out later.
                    pending_size=-1,
                    error_cb=_ignore,
                    disconnected_cb=self._cut,
                    reconnected_cb=self._connected,
                )
            except (NatsError, OSError):
                await asyncio.sleep(RETRY_SECONDS)
        self._stream = self._client.jetstream(timeout=ANSWER_SECONDS)
        await self._client.subscribe(TIP_SUBJECT, cb=self._tip)
        await self._connected()

    async def answer(self, number: int, request: tuple[Any, ...]) -> None:
        """Do one request."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                result = await self._do(*request)
        except (NatsError, OSError, TimeoutError) as error:
            result = (wire.AWAY, f"{type(error).__name__} {error}".strip())
        if number and result is not None:
            self._say(number, *result)

    async def _do(self, what: str, *arguments: Any) -> tuple[Any, ...] | None:
        if self._client is None or self._stream is None or not self._client.is_connected:
            return (wire.AWAY, "not connected to NATS")
        if self._client.max_payload < MAX_MESSAGE:
            return (wire.AWAY, f"the NATS server takes {self._client.max_payload} bytes: set max_payload: 8MB there")
        if what == wire.TIP:
            await self._client.publish(TIP_SUBJECT, str(arguments[0]).encode())
            return None
        if not self._made:
            await self._make()
        if what == wire.APPEND:
            return await self._append(*arguments)
        if what == wire.GET:
            return await self._get(*arguments)
        state = (await self._stream.stream_info(STREAM)).state
        return (wire.FOUND, state.first_seq, state.last_seq)

    async def _append(self, last: int, data: bytes) -> tuple[Any, ...]:
        assert self._stream is not None
        try:
            done = await self._stream.publish(SUBJECT, data, headers={"Nats-Expected-Last-Sequence": str(last)})
        except APIError as error:
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
            return (wire.REFUSED,)
        return (wire.APPENDED, done.seq)

    async def _get(self, place: int) -> tuple[Any, ...]:
        assert self._stream is not None
        try:
            return (wire.FOUND, (await self._stream.get_msg(STREAM, seq=place)).data or b"")
        except NotFoundError:
            return (wire.NONE,)

    async def _make(self) -> None:
        """Have the stream, which another node may have made."""
        assert self._stream is not None
        try:
            await self._stream.stream_info(STREAM)
        except NotFoundError:
            await self._stream.add_stream(self._config)
        self._made = True

    async def _tip(self, message: Msg) -> None:
        if message.data.isdigit():
            self._say(0, wire.TIP, int(message.data))

    async def _connected(self) -> None:
        assert self._client is not None
        url = self._client.connected_url
        self._say(0, wire.CONNECTED, url.netloc.rpartition("@")[2] if url else "")

    async def _cut(self) -> None:
        self._say(0, wire.CUT)

    def _say(self, number: int, *result: Any) -> None:
        self._writer.write(encode((number, *result)))


async def _ignore(_: Exception) -> None:
    """Whoever asked is told."""


async def serve(connection: socket.socket, urls: list[str], config: StreamConfig) -> None:
    """Answer until the node closes the connection."""
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    servant = Servant(writer, config)
    connecting = asyncio.create_task(servant.connect(urls))
    inbox = Inbox()
    # A node asks for few things at a time: appending, reading, looking at the ends.
    tasks: set[asyncio.Task[None]] = set()
    while data := await reader.read(READ_BYTES):
        for number, *request in inbox.feed(data):
            task = asyncio.create_task(servant.answer(number, tuple(request)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    connecting.cancel()


def main() -> None:
    """Serve on the socket that the command line names; die with the node."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    number, replicas, seconds, size = sys.argv[1:]
    config = StreamConfig(
        name=STREAM,
        subjects=[SUBJECT],
        num_replicas=int(replicas),
        max_age=float(seconds),
        max_bytes=int(size) or -1,
        max_msg_size=MAX_MESSAGE,
        discard=DiscardPolicy.OLD,
    )
    with contextlib.suppress(ConnectionError):
        # Not on the command line: there may be a password in an address.
        asyncio.run(serve(socket.socket(fileno=int(number)), os.environ["RELAY_CLUSTER"].split(","), config))


if __name__ == "__main__":
    main()

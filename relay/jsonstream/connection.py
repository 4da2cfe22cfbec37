"""A consumer of the JSON stream: what it may say, and how it is told that it is over.

Made by `routes` in the place of a firehose consumer's connection. Must not know of the log, or how messages are made.
"""

from __future__ import annotations

import logging

import orjson
from gevent.socket import socket as Socket  # noqa: N812

from relay.jsonstream.filter_room import FiltersFull
from relay.jsonstream.filters import MAX_COLLECTIONS, MAX_DIDS, FilterInvalid, of_update
from relay.jsonstream.stream import Options
from relay.jsonstream.update_pace import UpdatePace
from relay.kit.background import Stints
from relay.net.websocket import CloseCode, close_frame
from relay.web.consumer_connection import BYTES_PER_SECOND, FAREWELL_BYTES, Connection, ConsumerEnded
from relay.web.consumers import Consumer

log = logging.getLogger(__name__)

# Ten thousand DIDs take 350 kB.
MAX_UPDATE_BYTES = 512 << 10
# What has more items is not read at all: 512 KiB have room for so many small ones that reading them takes very long.
MAX_COMMAS = 2 * (MAX_DIDS + MAX_COLLECTIONS)


class JsonConnection(Connection):
    """The socket of one consumer, whose `options` it may change."""

    __slots__ = ("_options", "_pace")

    hears = True
    message_bytes = MAX_UPDATE_BYTES
    # The longest update, as it comes and as it is heard, with its frame and what else there may be.
    bytes_per_second = 2 * MAX_UPDATE_BYTES + BYTES_PER_SECOND
    # One that sends an update that is too long is to read why.
    farewell_bytes = MAX_UPDATE_BYTES + FAREWELL_BYTES

    def __init__(
        self,
        options: Options,
        pace: UpdatePace,
        deflate: bool,
        socket: Socket,
        received: bytes,
        consumer: Consumer,
        stall: float,
        _: float,
    ) -> None:
        self._options = options
        self._pace = pace
        # How much of the log a consumer has left does not say how much it still has to take.
        super().__init__(socket, received, consumer, stall, window=0, deflate=deflate)

    def farewell(self, name: str, message: str) -> bytes:
        """A close frame: there are no error messages on this stream."""
        return close_frame(CloseCode.POLICY_VIOLATION, f"{name}: {message}")

    def _count(self) -> None:
        """Nothing: how far a consumer is does not say what it was sent."""

    def hear(self, text: bytes) -> None:
        """Take an `options_update`; other types are ignored, as Jetstream does. Waits for its turn. Raises
        ConsumerEnded.
        """
        if text.count(b",") > MAX_COMMAS:
            raise _refused("a message has too many items")
        self.hold(len(text))
        self._pace.wait(self._consumer.remote_address, len(text), self._leaving)
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise _refused("a message is not JSON") from None
        if not isinstance(message, dict):
            return
        message = {name.lower(): value for name, value in message.items()}
        if message.get("type") != "options_update":
            return
        if "payload" not in message:
            raise _refused("an options_update has no payload")
        try:
            wanted = of_update(message["payload"], self._options.wanted.kinds, Stints().pause)
            # What was said makes room for what it asked for.
            self.hold(0)
            self._options.change(wanted)
        except FilterInvalid as error:
            raise _refused(str(error)) from None
        except FiltersFull as error:
            raise full(error) from None
        if self._feed is not None:
            self._feed.waits = False

    def hold(self, size: int) -> None:
        """Have room for so many bytes of what was said. Raises ConsumerEnded."""
        try:
            self._options.place.hold(size)
        except FiltersFull as error:
            raise full(error) from None


def full(error: FiltersFull) -> ConsumerEnded:
    """The end of a consumer for whose filter there is no room."""
    return ConsumerEnded(error.reason, close_frame(CloseCode.TRY_AGAIN_LATER, error.detail))


def _refused(detail: str) -> ConsumerEnded:
    return ConsumerEnded("options-invalid", close_frame(CloseCode.POLICY_VIOLATION, detail))

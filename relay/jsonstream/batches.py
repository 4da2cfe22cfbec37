"""The messages of a chunk of the firehose, made once for all consumers, with an index by which each finds its own.

`stream` has one made of each chunk that is asked for. Nothing is made while nobody asks; a text is made for the
first consumer that wants it, and the frames of consumers with equal filters are joined once. Must not know of sockets.
"""

from __future__ import annotations

import logging
from itertools import chain

from relay.atproto.errors import ProtocolError
from relay.jsonstream.encodings import Encoding
from relay.jsonstream.filters import Filter
from relay.jsonstream.messages import Message, RecordUnreadable, of_frame
from relay.kit import metrics
from relay.kit.background import Stints
from relay.stream.tail import Chunk

# Bytes of memory that the messages and texts of an event take beside its own bytes.
EVENT_OVERHEAD = 1_000
# How many joined frames are kept with a batch, one for each filter and encoding, and their bytes as a multiple of the
# batch's. Those of filters with DIDs are not: such a filter rarely has an equal.
MAX_JOINED = 64
JOINED_SHARE = 8

log = logging.getLogger(__name__)


class Batch:
    """The messages of one chunk, in order. `size` is bytes of memory, about, with all that may still be made."""

    __slots__ = ("_dids", "_groups", "_joined", "_joined_room", "_messages", "size")

    def __init__(self, chunk: Chunk) -> None:
        # Bytes of joined frames, and of their filters, that may still be kept.
        self._joined_room = JOINED_SHARE * len(chunk.data)
        self.size = 3 * len(chunk.data) + EVENT_OVERHEAD * len(chunk.events) + self._joined_room
        self._messages: list[Message] = []
        # (kind, collection) -> where its messages stand.
        self._groups: dict[tuple[str, str], list[int]] = {}
        self._dids: set[str] = set()
        self._joined: dict[tuple[Filter, str], bytes] = {}
        for event in chunk.events:
            try:
                messages = of_frame(chunk.frame(event), event.time_us)
            except ProtocolError as error:
                # An edge passes on what it did not read whole. It must cost no other event.
                metrics.JSON_SKIPPED.labels("event-unreadable").inc()
                log.debug("event %d cannot be read: %s", event.seq, error)
                continue
            for message in messages:
                self._groups.setdefault((message.kind, message.collection), []).append(len(self._messages))
                self._messages.append(message)
                self._dids.add(message.did)

    def frames(self, wanted: Filter, encoding: Encoding) -> bytes:
        """The frames of all messages that are `wanted`, joined."""
        if wanted.dids:
            return self._join(self._wanted(wanted), wanted, encoding)
        key = (wanted, encoding.name)
        joined = self._joined.get(key)
        if joined is None:
            joined = self._join(self._wanted(wanted), wanted, encoding)
            cost = len(joined) + wanted.size
            if len(self._joined) < MAX_JOINED and cost <= self._joined_room:
                self._joined_room -= cost
                self._joined[key] = joined
        return joined

    def frames_after(self, seq: int, time_us: int, wanted: Filter, encoding: Encoding) -> bytes:
        """As `frames`, of the messages behind the seq and not before the time."""
        messages = [message for message in self._wanted(wanted) if message.seq > seq and message.time_us >= time_us]
        return self._join(messages, wanted, encoding)

    def _wanted(self, wanted: Filter) -> list[Message]:
        # Nearly always, with hundreds of consumers who want a few accounts each.
        if wanted.dids and wanted.dids.isdisjoint(self._dids):
            return []
        groups = [places for group, places in self._groups.items() if wanted.takes(*group)]
        places = groups[0] if len(groups) == 1 else sorted(chain.from_iterable(groups))
        messages = [self._messages[place] for place in places]
        if wanted.dids:
            return [message for message in messages if message.did in wanted.dids]
        return messages

    def _join(self, messages: list[Message], wanted: Filter, encoding: Encoding) -> bytes:
        if not messages:
            return b""
        frames = []
        stints = Stints()
        for message in messages:
            if not message.is_written:
                # One commit may have hundreds of records, and what was made of the chunk stays as it is meanwhile.
                stints.pause()
            try:
                text = message.text()
            except RecordUnreadable as error:
                metrics.JSON_SKIPPED.labels(error.reason).inc()
                log.debug("seq %d: %s", message.seq, error)
                continue
            if not wanted.max_bytes or len(text) <= wanted.max_bytes:
                frames.append(message.framed(encoding))
        return b"".join(frames)

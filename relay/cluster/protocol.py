"""What the nodes of a cluster say to each other, and the rules by which they never give one seq to two events.

The nodes share one stream of messages, in which a message gets its place only if its sender named the place of the last
one before it. Pure: no socket, no clock. Followed by `replication` (the active node) and `following` (the others), and
held to by a model in tests/unit/cluster.

1. The stream's order is the truth. Every node takes all messages, in order.
2. A node becomes the active one by appending a `claim` behind the last message, having taken everything before. Its
   place is the number of the node's term.
3. The active node appends each block behind its own last message, and names its term. It publishes a block, and writes
   it into its own log, only once the block is in the stream.
4. Without an answer it looks at the next place: its own block there is appended, nothing there means once more, and
   anything else means that another node has claimed.
5. A node that finds another's claim no longer publishes anything, and stands by.
6. A stream that has lost messages, as its engine may when servers crash, is found by its end: it is before a place that
   a node has taken. The node that claims then appends what the stream lacks out of its own log, and passes seqs over.
7. While there is nothing to append the active node appends a `beat`. Those who stand by claim after some seconds
   without any message in a stream that answers, or at once after a `release`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import NamedTuple

from relay.kit.errors import RelayError

# kind, term, the relay's seq before this message, length of the node's name; then the name, then the block
_HEAD = struct.Struct("<BQQB")
MAX_NODE = 64

BEAT_SECONDS = 0.5
# How long nothing may come before another node claims, and for how long of that the stream must have answered.
QUIET_SECONDS = 3.0
ANSWERED_SECONDS = 1.0


class ClusterError(RelayError):
    """Reasons: `cluster-away` (the stream does not answer), `cluster-message` (one cannot be read, or is not in turn),
    `cluster-gap` (this node's log ends before the stream begins), `cluster-ahead` (it goes on behind the stream's end,
    and is not of the same events).
    """


class Kind(IntEnum):
    """The kinds of message."""

    BLOCK = 1
    BEAT = 2
    CLAIM = 3
    RELEASE = 4


class Message(NamedTuple):
    """`term` is the place of the sender's claim, 0 in a claim; `after` the relay's last seq before it; `block` the
    records as they stand in a segment, empty in all kinds but one.
    """

    kind: Kind
    term: int
    after: int
    node: str
    block: bytes = b""


def encode(message: Message) -> bytes:
    """`message` as it stands in the stream."""
    node = message.node.encode()
    return _HEAD.pack(message.kind, message.term, message.after, len(node)) + node + message.block


def decode(data: bytes) -> Message:
    """What `encode` was given. Raises ClusterError `cluster-message`."""
    try:
        kind, term, after, length = _HEAD.unpack_from(data)
        end = _HEAD.size + length
        if len(data) < end:
            raise ValueError("cut short")
        return Message(Kind(kind), term, after, data[_HEAD.size : end].decode(), data[end:])
    except (struct.error, ValueError) as error:
        raise ClusterError("cluster-message", str(error)) from None


class Found(Enum):
    """What has become of a message that may have been appended."""

    APPENDED = "appended"
    AGAIN = "again"
    SUPERSEDED = "superseded"


def judge(sent: bytes, found: bytes | None) -> Found:
    """Rule 4: `sent` was to go where now `found` is, None when nothing is there."""
    if found is None:
        return Found.AGAIN
    return Found.APPENDED if found == sent else Found.SUPERSEDED


class Place:
    """How far a node has taken the stream: `at` is the place of the last message, `term` and `active` the number and
    the node of the term that is under way, `last` the relay's last seq. `released`: it has ended in order. `tail` is
    the last seq that is in the stream, less than `last` where the stream has lost messages.
    """

    def __init__(self, at: int, last: int, tail: int | None = None) -> None:
        self.at = at
        self.last = last
        self.tail = last if tail is None else tail
        self.term = 0
        self.active = ""
        self.released = False

    def take(self, place: int, message: Message) -> bytes:
        """Rules 1 to 3: the block of the message at `place`, empty when there is nothing to log.

        Raises ClusterError `cluster-message` when it is not in turn, or `cluster-gap`.
        """
        if place != self.at + 1:
            raise ClusterError("cluster-message", f"message {place} comes after {self.at}")
        if message.kind is Kind.CLAIM:
            self.term, self.active, self.released = place, message.node, False
        elif self.term and message.term != self.term:
            raise ClusterError("cluster-message", f"message {place} is of term {message.term} within {self.term}")
        else:
            self.term, self.active, self.released = message.term, message.node, message.kind is Kind.RELEASE
        if message.after > self.last:
            raise ClusterError(
                "cluster-gap", f"this log ends at {self.last}, and message {place} follows {message.after}"
            )
        self.at = place
        return message.block

    def note(self, seq: int) -> None:
        """The records up to `seq` are taken from the stream."""
        self.last, self.tail = max(self.last, seq), max(self.tail, seq)

    def may_claim(self, quiet: float, answered: float) -> bool:
        """Rule 7: nothing came for `quiet` seconds, for the last `answered` of which the stream answered."""
        return self.released or self.term == 0 or (quiet >= QUIET_SECONDS and answered >= ANSWERED_SECONDS)


def find_place(
    first: int,
    end: int,
    last: int,
    message_at: Callable[[int], Message],
    newest_in: Callable[[bytes], int],
    is_same: Callable[[bytes], bool],
) -> Place:
    """Where a log that ends at the relay's seq `last` ends in the stream, which has the messages `first` to `end`.

    `message_at` reads one, some twenty of a million; of a block that is not empty `newest_in` is the last seq, and
    `is_same` whether the log has that record as it is there. The place may be a message early. Raises ClusterError:
    `cluster-gap`, `cluster-ahead`, and what `message_at` does.
    """
    if first > end:
        return Place(end, last)
    oldest = message_at(first)
    if last == 0:
        # A log that begins here: what was before is not in it.
        return Place(first - 1, oldest.after)
    if oldest.after > last:
        raise ClusterError(
            "cluster-gap",
            f"this log ends at {last}, before the cluster's stream begins: stop this node and delete its log, or copy"
            " the log of another node that is stopped",
        )
    tail, block = _newest(first, end, message_at, newest_in)
    if last > tail:
        if block and not is_same(block):
            raise ClusterError(
                "cluster-ahead",
                f"this log ends at {last} and the cluster's stream at {tail}, with other events: stop this node and"
                " delete its log",
            )
        return Place(end, last, tail)
    low, high = first, end
    while low < high:
        middle = (low + high + 1) // 2
        if message_at(middle).after <= last:
            low = middle
        else:
            high = middle - 1
    return Place(low - 1, last)


def _newest(
    first: int, end: int, message_at: Callable[[int], Message], newest_in: Callable[[bytes], int]
) -> tuple[int, bytes]:
    """The last seq in the stream, and the block that it is in; empty when that has left the stream."""
    newest = message_at(end)
    if newest.block:
        return newest_in(newest.block), newest.block
    # Behind it are beats: the first message that says that it follows on that seq comes right after the block.
    low, high = first, end
    while low < high:
        middle = (low + high) // 2
        if message_at(middle).after >= newest.after:
            high = middle
        else:
            low = middle + 1
    block = message_at(low - 1).block if low > first else b""
    return newest.after, block

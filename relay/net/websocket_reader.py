"""Reads what comes over a WebSocket, without I/O: messages and control frames out of bytes.

`websocket_connection` reads what hosts send with it, `web` what consumers send. It is done here and not by the library
that shakes hands, since it runs for every byte of every host. The rules are those of RFC 6455 section 5 and of the
event stream specification, each with a test of its number:

1. Reserved bits are 0, but for RSV1 in the first frame of a message where compression was agreed on.
2. Opcodes are those of the RFC.
3. A client masks its frames, a server does not.
4. A control frame is whole and has at most 125 bytes. It may come between the fragments of a message.
5. A continuation follows a fragment, and nothing else does.
6. A length is judged by its header, before a byte of the message is kept.
7. A server sends binary messages. What a client sends in messages is skipped, but for texts where they are asked for.
8. After a close frame nothing is read, and nothing after what breaks a rule if a client sent it.
9. A close frame is empty, or has a code that may be sent and a reason in UTF-8.
10. What a server sends against the rules 1 to 7 is passed over as far as its header says, and what comes behind it is
    read: a host has it in its backlog and would send it again after every reconnect.

Must not know of sockets, clocks or what is in a message.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.net.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROL,
    FIN,
    MASK_BYTES,
    MASKED,
    MAX_CONTROL_BYTES,
    OPCODE,
    PING,
    PONG,
    RESERVED,
    RSV1,
    TEXT,
    WHOLE,
    FrameInvalid,
    invalid,
    with_mask,
)
from relay.net.websocket_deflate import inflated

MAX_MESSAGE_BYTES = 5_000_000
SMALL_FRAME_BYTES = 126
# How much of the beginning of a message that is passed over is kept, to tell which one it was.
KEPT_BYTES = 64 << 10
# Nobody waits for the end of a frame that says it is longer.
MAX_PASSED_OVER_BYTES = 1 << 30


class PassedOver(NamedTuple):
    """What a server sent and must not send. `head` is its beginning, up to KEPT_BYTES; it had `size` bytes.

    Reasons are those of FrameInvalid.
    """

    reason: str
    detail: str
    head: bytes
    size: int


class FrameReader:
    """What has come of a stream. `failure` or `closed`, its close frame's payload, is its end: it has `ended` then.

    `masked`: the other end is a client. Its messages are skipped, but `max_bytes` still bounds them; with
    `texts`, those that are text are kept, and with `deflate` they may be compressed. `frames`
    counts all frames, `crumbs` those of them that are small and no whole message; `pings` are to be answered, `pongs`
    counts answers.
    """

    __slots__ = (
        "_buffer",
        "_deflate",
        "_deflated",
        "_keeps",
        "_masked",
        "_max_bytes",
        "_messages",
        "_part",
        "_size",
        "_skip",
        "_skips_last",
        "_texts",
        "_wrong",
        "closed",
        "crumbs",
        "ended",
        "failure",
        "frames",
        "pings",
        "pongs",
    )

    def __init__(
        self, *, masked: bool = False, max_bytes: int = MAX_MESSAGE_BYTES, texts: bool = False, deflate: bool = False
    ) -> None:
        self._masked = masked
        self._deflate = deflate
        # Whether the message that has begun is compressed.
        self._deflated = False
        self._texts = texts
        # Whether the client's message that has begun is kept.
        self._keeps = False
        self._max_bytes = max_bytes
        self.frames = 0
        self.crumbs = 0
        self.pongs = 0
        self.pings: list[bytes] = []
        self.closed: bytes | None = None
        self.failure: FrameInvalid | None = None
        self.ended = False
        self._messages: list[bytes | PassedOver] = []
        self._buffer = bytearray()
        # Of a message that has begun: its bytes so far, and how many; None between messages.
        self._part = bytearray()
        self._size: int | None = None
        # Reason and detail of why the message that has begun is passed over, if it is.
        self._wrong: tuple[str, str] | None = None
        # How many bytes to come belong to a frame that is not kept. Whether it is the last of a message that is passed
        # over; None when it is of no such message.
        self._skip = 0
        self._skips_last: bool | None = None

    @property
    def held(self) -> int:
        """Bytes of what has begun and is not whole."""
        return len(self._buffer) + len(self._part)

    def take(self) -> list[bytes | PassedOver]:
        """The messages that are whole since the last call, and in their places those that were passed over."""
        messages, self._messages = self._messages, []
        return messages

    def feed(self, data: bytes | memoryview) -> None:
        """The stream goes on with `data`, which is copied."""
        if self.ended:
            return
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            if self._skips_last is not None:
                self._keep_head(data[:skipped])
                if self._skips_last and not self._skip:
                    self._pass_over()
            data = data[skipped:]
        self._buffer += data
        try:
            with memoryview(self._buffer) as view:
                used = self._read_masked(view) if self._masked else self._read_frames(view)
        except FrameInvalid as error:
            self.failure, self.ended = error.with_traceback(None), True
            return
        del self._buffer[:used]

    def _read_frames(self, view: memoryview) -> int:
        """Take a server's whole frames at the start of `view`; how many bytes they are."""
        at, size = 0, len(view)
        while size - at >= 2:
            head, length, start = view[at], view[at + 1], at + 2
            masked = False
            if length > MAX_CONTROL_BYTES:
                if length & MASKED:
                    masked, length = True, length & ~MASKED
                if length > MAX_CONTROL_BYTES:
                    start += 2 if length == 126 else 8
                    if start > size:
                        break
                    length = int.from_bytes(view[at + 2 : start])
                if masked:
                    start += MASK_BYTES
                    if start > size:
                        break
            end = start + length
            if head == WHOLE and self._size is None and length <= self._max_bytes and not masked:
                if end > size:
                    break
                self._messages.append(view[start:end].tobytes())
            elif self._judge(head, length, masked):
                self._skip_wrong(head, view[start:end], length)
                end = min(end, size)
            elif end > size:
                break
            else:
                self._take_other(head, view[start:end].tobytes())
            self.frames += 1
            at = end
            if self.closed is not None:
                break
        return at

    def _judge(self, head: int, length: int, masked: bool) -> bool:
        """Note what is wrong with a server's frame; whether it is passed over, with its message if it is in one."""
        try:
            if masked:
                raise invalid("incorrect masking")
            self._check_head(head, length)
        except FrameInvalid as error:
            if length > MAX_PASSED_OVER_BYTES:
                raise
            if head & CONTROL:
                self._messages.append(PassedOver(error.reason, error.detail, b"", length))
                return True
            if self._size is not None and head & OPCODE != CONTINUATION:
                # A message begins within another, which has no end then.
                self._wrong = self._wrong or (error.reason, error.detail)
                self._pass_over()
                return self._judge(head, length, masked)
            self._wrong = self._wrong or (error.reason, error.detail)
        return self._wrong is not None and not head & CONTROL

    def _skip_wrong(self, head: int, payload: memoryview, length: int) -> None:
        """Pass over a frame of which `payload` is there and the rest of `length` bytes is to come."""
        self._skip, self._skips_last = length - len(payload), None
        if not head & CONTROL:
            self._size = (self._size or 0) + length
            self._keep_head(payload)
            self._skips_last = bool(head & FIN)
            if self._skips_last and not self._skip:
                self._pass_over()
        if length < SMALL_FRAME_BYTES:
            self.crumbs += 1

    def _keep_head(self, payload: bytes | memoryview) -> None:
        del self._part[KEPT_BYTES:]
        self._part += payload[: KEPT_BYTES - len(self._part)]

    def _pass_over(self) -> None:
        """The message that is passed over has come to its end."""
        assert self._wrong is not None
        self._keep_head(b"")
        self._messages.append(PassedOver(*self._wrong, bytes(self._part), self._size or 0))
        self._part, self._size, self._wrong = bytearray(), None, None

    def _read_masked(self, view: memoryview) -> int:
        """Take a client's frames at the start of `view`, messages without waiting for their payload."""
        at, size = 0, len(view)
        while size - at >= 2 and self.closed is None:
            head, length, start = view[at], view[at + 1] & ~MASKED, at + 2
            if not view[at + 1] & MASKED:
                raise invalid("incorrect masking")
            if length > MAX_CONTROL_BYTES:
                start += 2 if length == 126 else 8
                if start > size:
                    break
                length = int.from_bytes(view[at + 2 : start])
            self._check_head(head, length)
            end = start + MASK_BYTES + length
            if head & OPCODE in (TEXT, BINARY):
                self._keeps = self._texts and head & OPCODE == TEXT
                self._deflated = bool(head & RSV1)
            if head & CONTROL or self._keeps:
                if end > size:
                    break
                mask = view[start : start + MASK_BYTES]
                self._take_other(head, with_mask(view[start + MASK_BYTES : end], mask))
            else:
                self._skip_message(head, length)
                self._skip = max(0, end - size)
            self.frames += 1
            at = min(end, size)
        return at

    def _check_head(self, head: int, length: int) -> None:
        """Refuse a frame that must not be there or as it is, but for a server's whole message where one may come."""
        opcode = head & OPCODE
        if head & RESERVED and not (self._deflate and head & RESERVED == RSV1 and opcode in (TEXT, BINARY)):
            raise invalid("reserved bits must be 0")
        if opcode in (CLOSE, PING, PONG):
            if length > MAX_CONTROL_BYTES or not head & FIN:
                raise invalid("control frame too long or fragmented")
            return
        if opcode not in (CONTINUATION, TEXT, BINARY):
            raise invalid("invalid opcode")
        if (opcode == CONTINUATION) != (self._size is not None):
            raise invalid("a fragment out of turn")
        if opcode == TEXT and not self._masked:
            raise FrameInvalid("text-message", "a text message on a binary stream")
        if length + (self._size or 0) > self._max_bytes:
            raise self._too_big()

    def _take_other(self, head: int, payload: bytes) -> None:
        """A frame that is not a whole message of a server."""
        if len(payload) < SMALL_FRAME_BYTES:
            self.crumbs += 1
        opcode = head & OPCODE
        if opcode == PING:
            self.pings.append(payload)
        elif opcode == PONG:
            self.pongs += 1
        elif opcode == CLOSE:
            self.closed, self.ended = payload, True
        else:
            self._part += payload
            self._size = (self._size or 0) + len(payload)
            if head & FIN:
                part = bytes(self._part)
                self._messages.append(inflated(part, self._max_bytes) if self._deflated else part)
                self._part, self._size = bytearray(), None

    def _skip_message(self, head: int, length: int) -> None:
        if length < SMALL_FRAME_BYTES:
            self.crumbs += 1
        self._size = None if head & FIN else (self._size or 0) + length

    def _too_big(self) -> FrameInvalid:
        return FrameInvalid("message-too-big", f"a message of more than {self._max_bytes} bytes")


def close_words(payload: bytes) -> str:
    """Code and reason of a close frame's payload, for people. Raises FrameInvalid."""
    if not payload:
        return "1005"
    code = int.from_bytes(payload[:2])
    if len(payload) < 2 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code < 5000):
        raise invalid("invalid close code")
    try:
        return f"{code} {payload[2:].decode()}".strip()
    except UnicodeDecodeError:
        raise invalid("the close reason is not UTF-8") from None

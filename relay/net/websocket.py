"""Whole messages out of the bytes that a host sends after the handshake: WebSocket frames without I/O.

Used by `connection` for every byte of every host, which is why this is not left to the library that shakes hands: it
makes objects of each frame. Strict as that is (RFC 6455 section 5): no masks, no extensions, lengths bounded on the
header. Must not know of sockets, clocks or what is in a message.
"""

from __future__ import annotations

from relay.kit.errors import RelayError

MAX_MESSAGE_BYTES = 5_000_000
SMALL_FRAME_BYTES = 126

_MAX_CONTROL_BYTES = 125
_FIN, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_WHOLE = _FIN | _BINARY


class HostFrameInvalid(RelayError):
    """What a host must not send. Reasons `websocket-invalid`, `message-too-big`, `text-message`."""


class MessageReader:
    """What has come of a stream. `failure` or `closed` is its end: what comes after that is not looked at.

    `frames` counts all frames, `crumbs` those of them that are small and no message; `pings` are to be answered.
    """

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_bytes = max_bytes
        self.frames = 0
        self.crumbs = 0
        self.pings: list[bytes] = []
        self.closed: bytes | None = None
        self.failure: HostFrameInvalid | None = None
        self._messages: list[bytes] = []
        self._buffer = bytearray()
        self._part: bytearray | None = None

    @property
    def ended(self) -> bool:
        """True when no more messages will come."""
        return self.failure is not None or self.closed is not None

    def take(self) -> list[bytes]:
        """The messages that are whole since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def feed(self, data: bytes) -> None:
        """The stream goes on with `data`."""
        if self.ended:
            return
        self._buffer += data
        try:
            with memoryview(self._buffer) as view:
                used = self._read_frames(view)
        except HostFrameInvalid as error:
            self.failure = error
            return
        del self._buffer[:used]

    def _read_frames(self, view: memoryview) -> int:
        """Take the whole frames at the start of `view`; how many bytes they are."""
        at, size = 0, len(view)
        while size - at >= 2:
            head, length, start = view[at], view[at + 1], at + 2
            if length > _MAX_CONTROL_BYTES:
                if length & 0x80:
                    raise HostFrameInvalid("websocket-invalid", "incorrect masking")
                start += 2 if length == 126 else 8
                if start > size:
                    break
                length = int.from_bytes(view[at + 2 : start])
            if head != _WHOLE or self._part is not None:
                self._check_head(head, length)
            elif length > self._max_bytes:
                raise self._too_big()
            end = start + length
            if end > size:
                break
            self.frames += 1
            if head == _WHOLE:
                self._messages.append(view[start:end].tobytes())
            else:
                self._take_other(head, view[start:end].tobytes())
            at = end
            if self.closed is not None:
                break
        return at

    def _check_head(self, head: int, length: int) -> None:
        """Refuse a frame, other than a whole message where one may come, that must not be there or as it is."""
        opcode = head & _OPCODE
        if head & _RESERVED:
            raise HostFrameInvalid("websocket-invalid", "reserved bits must be 0")
        if opcode in (_CLOSE, _PING, _PONG):
            if length > _MAX_CONTROL_BYTES or not head & _FIN:
                raise HostFrameInvalid("websocket-invalid", "control frame too long or fragmented")
            return
        if opcode not in (_CONTINUATION, _TEXT, _BINARY):
            raise HostFrameInvalid("websocket-invalid", "invalid opcode")
        if (opcode == _CONTINUATION) != (self._part is not None):
            raise HostFrameInvalid("websocket-invalid", "a fragment out of turn")
        if opcode == _TEXT:
            raise HostFrameInvalid("text-message", "a text message on a binary stream")
        if length + len(self._part or b"") > self._max_bytes:
            raise self._too_big()

    def _take_other(self, head: int, payload: bytes) -> None:
        if len(payload) < SMALL_FRAME_BYTES:
            self.crumbs += 1
        opcode = head & _OPCODE
        if opcode == _PING:
            self.pings.append(payload)
        elif opcode == _CLOSE:
            self.closed = payload
        elif opcode == _BINARY:
            self._part = bytearray(payload)
        elif opcode == _CONTINUATION and self._part is not None:
            self._part += payload
            if head & _FIN:
                self._messages.append(bytes(self._part))
                self._part = None

    def _too_big(self) -> HostFrameInvalid:
        return HostFrameInvalid("message-too-big", f"a message of more than {self._max_bytes} bytes")

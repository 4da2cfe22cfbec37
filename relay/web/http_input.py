"""What a client may send in HTTP/1.1, strict and bounded: a request's head and its body, without I/O.

Read by `http_connection`. A proxy in front must never see other requests in the same bytes than we do, so what can be
read in two ways is refused. The rules are those of RFC 9112, each with a test of its number:

1. A head has at most 16 KiB and 100 fields, and its lines end with CRLF. One empty line may come before it.
2. A request line is a method, a target and HTTP/1.0 or 1.1, with one space between. A target has at most 8 KiB and
   100 parameters. A target that has the filter of a stream may have more of both, and its head with it: the
   caller says which that is.
3. A field is a name, a colon and text, on one line. A name with an underscore is ignored, as another may look like it.
4. There is one Host at most, and it is a name or an address, with or without a port, or empty.
5. A length is one number. A body in chunks has no length, and there is no other coding.
6. A body has at most 64 KiB, and what frames its chunks at most 16 KiB, of which each takes 32 bytes beside its line.
7. A request for a WebSocket has no body.

Must not know of sockets, clocks, routes or WSGI.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from relay.kit.errors import RelayError

MAX_HEAD_BYTES = 16 << 10
MAX_FIELDS = 100
MAX_TARGET_BYTES = 8 << 10
MAX_PARAMETERS = 100
MAX_BODY_BYTES = 64 << 10
MAX_FRAMING_BYTES = 16 << 10
MAX_CHUNK_LINE_BYTES = 1 << 10
# A chunk counts as this many bytes beside its line: taking one is work, whatever it holds.
CHUNK_COST = 32
HEAD_END = b"\r\n\r\n"


class Bounds(NamedTuple):
    """What a head may have: bytes, bytes of its target, parameters in that."""

    head: int
    target: int
    parameters: int


USUAL = Bounds(MAX_HEAD_BYTES, MAX_TARGET_BYTES, MAX_PARAMETERS)
# A hundred collections and ten thousand DIDs, whose colons may be escaped.
FILTER = Bounds(640 << 10, 624 << 10, 10_200)

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_HOST = re.compile(r"(?:[0-9A-Za-z_-]{1,63}(?:\.[0-9A-Za-z_-]{1,63})*\.?|\[[0-9A-Fa-f:.]{2,45}\])?(?::[0-9]{0,5})?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_BEYOND_ASCII = re.compile(r"[\x80-\xff]")


class RequestInvalid(RelayError):
    """A request that is not taken: `status` is the answer, after which the connection is closed.

    Reasons, which are labels of `relay_http_refused_total`: `head-malformed`, `head-too-large`, `body-malformed`,
    `body-too-large`; and those that `http_connection` raises, `head-timeout`, `body-timeout` and `too-many`.
    """

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.status = status


class Head(NamedTuple):
    """A request's head. `target` is path and query; `length` is the body's, None when it comes in chunks."""

    method: str
    target: str
    version: str
    fields: dict[str, str]
    length: int | None
    keep: bool

    def tokens(self, name: str) -> set[str]:
        """The words of a field that is a list, in lower case. `name` is in lower case, too."""
        return {word.strip().lower() for word in self.fields.get(name, "").split(",")}

    @property
    def expects_continue(self) -> bool:
        """True when the body comes once it is asked for. To HTTP/1.0 that would be the answer."""
        return self.version == "HTTP/1.1" and self.fields.get("expect", "").lower() == "100-continue"

    @property
    def wants_websocket(self) -> bool:
        """True when this is to become a WebSocket."""
        return "websocket" in self.tokens("upgrade") and "upgrade" in self.tokens("connection")


def head_end(received: bytearray, looked_at: int, bounds: Bounds = USUAL) -> int:
    """Where the head at the start of `received` ends, 0 when it is not all there. Raises RequestInvalid.

    The first `looked_at` bytes were looked at before.
    """
    if received.startswith(b"\r\n"):
        del received[:2]
    start = max(0, looked_at - len(HEAD_END))
    end = received.find(HEAD_END, start, bounds.head)
    # What follows the head is for whoever reads the body.
    stop = len(received) if end < 0 else end
    if received.count(b"\n", start, stop) != received.count(b"\r\n", max(0, start - 1), stop):
        raise _malformed("a line does not end with CRLF")
    if end < 0 and len(received) >= bounds.head:
        raise RequestInvalid(431, "head-too-large", f"a head of more than {bounds.head} bytes")
    return end + len(HEAD_END) if end >= 0 else 0


def parse_head(block: bytes, bounds: Bounds = USUAL) -> Head:
    """The head in `block`, which ends with an empty line. Raises RequestInvalid."""
    request_line, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    found = _REQUEST_LINE.fullmatch(request_line)
    if found is None:
        raise _malformed("not a request line of HTTP/1.1")
    method, target, major, minor = found.groups()
    if major != "1" or minor not in "01":
        raise RequestInvalid(505, "head-malformed", "the version is not HTTP/1.0 or 1.1")
    if len(target) > bounds.target:
        raise RequestInvalid(414, "head-too-large", f"a target of more than {bounds.target} bytes")
    if target.count("&") > bounds.parameters:
        raise _malformed(f"more than {bounds.parameters} parameters")
    if len(target) > MAX_TARGET_BYTES and not target.isascii():
        raise _malformed("a long target that is not ASCII")
    if len(block) - len(target) > MAX_HEAD_BYTES:
        raise RequestInvalid(431, "head-too-large", f"fields of more than {MAX_HEAD_BYTES} bytes")
    if len(lines) > MAX_FIELDS:
        raise RequestInvalid(431, "head-too-large", f"more than {MAX_FIELDS} fields")
    fields: dict[str, str] = {}
    for line in lines:
        _add_field(fields, line)
    if _HOST.fullmatch(fields.get("host", "")) is None:
        raise _malformed("the Host is neither a name nor an address")
    version = f"HTTP/1.{minor}"
    head = Head(method, _path(method, target), version, fields, _length(fields, version), keep=True)
    connection = head.tokens("connection")
    keep = "keep-alive" in connection if minor == "0" else "close" not in connection
    if head.wants_websocket and head.length != 0:
        raise _malformed("a request for a WebSocket has no body")
    return head._replace(keep=keep)


def _add_field(fields: dict[str, str], line: str) -> None:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise _malformed("a malformed header field")
    name, value = found[1].lower(), found[2]
    if "_" in name:
        return
    if name not in fields:
        fields[name] = value
    elif name in ("host", "content-length", "transfer-encoding", "content-type", "authorization"):
        raise _malformed(f"more than one {name}")
    else:
        fields[name] += ("; " if name == "cookie" else ", ") + value


def _path(method: str, target: str) -> str:
    """Path and query of a target. Some clients' base addresses end with a slash: two at the start are one."""
    if target == "*" and method == "OPTIONS":
        return "/"
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise _malformed("the target is not a path")
        target = target[absolute.end() :].partition("#")[0]
    # Raw bytes beyond ASCII as what a client should have made of them: a query must not be broken UTF-8.
    return "/" + _BEYOND_ASCII.sub(lambda found: f"%{ord(found[0]):02X}", target.lstrip("/"))


def _length(fields: dict[str, str], version: str) -> int | None:
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if coding is not None:
        if length is not None or coding.lower() != "chunked" or version == "HTTP/1.0":
            raise _malformed("a body with two lengths or an unknown coding")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise _malformed("the length is not a number")
    # The digits first: `int` takes quadratic time.
    if len(length) > 16 or int(length) > MAX_BODY_BYTES:
        raise RequestInvalid(413, "body-too-large", f"a body of more than {MAX_BODY_BYTES} bytes")
    return int(length)


class Chunks:
    """A body that comes in chunks: `take` what was received until it is `done`."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.done = False
        self._framing = 0
        # Of the chunk that is being read, with its CRLF; None between chunks.
        self._left: int | None = None
        self._last = False

    def take(self, received: bytearray) -> None:
        """Take what is there off the start of `received`. Raises RequestInvalid."""
        at = 0
        while not self.done:
            if self._left is not None:
                piece = received[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self.body += piece
                if self._left:
                    break
                if not self.body.endswith(b"\r\n"):
                    raise _bad_chunk()
                del self.body[-2:]
                self._left = None
            end = received.find(b"\r\n", at, at + MAX_CHUNK_LINE_BYTES)
            if end < 0:
                if len(received) - at >= MAX_CHUNK_LINE_BYTES:
                    raise _bad_chunk()
                break
            self._take_line(bytes(received[at:end]))
            at = end + 2
        del received[:at]

    def _take_line(self, line: bytes) -> None:
        self._framing += len(line) + CHUNK_COST
        if self._last:
            # A trailer, which nobody wants, or the empty line at the end.
            self.done = not line
        elif (found := _CHUNK_SIZE.fullmatch(line)) is None:
            raise _bad_chunk()
        elif size := int(found[1], 16):
            self._left = size + 2
        else:
            self._last = True
        if len(self.body) + (self._left or 0) > MAX_BODY_BYTES + 2 or self._framing > MAX_FRAMING_BYTES:
            raise RequestInvalid(
                413, "body-too-large", f"a body of more than {MAX_BODY_BYTES} bytes, or in too many small chunks"
            )


def _malformed(detail: str) -> RequestInvalid:
    return RequestInvalid(400, "head-malformed", detail)


def _bad_chunk() -> RequestInvalid:
    return RequestInvalid(400, "body-malformed", "a malformed chunk")

"""Shows a frame to people, also one that cannot be read: CBOR's diagnostic notation (RFC 8949, section 8).

Called for the pages that tell a host's operator what was rejected. Errors are shown where they occur, and reading
continues behind them as long as it is clear where the next item begins. Long texts and byte strings are shortened, so
that no record's content is shown. Must not know what a field means.
"""

from __future__ import annotations

import struct

from relay.atproto.cid import Cid
from relay.atproto.errors import CidError

MAX_DEPTH = 32
TEXT_SHOWN = 200
BYTES_SHOWN = 16

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_SIMPLE = {20: "false", 21: "true", 22: "null", 23: "undefined"}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}


class _End(Exception):
    """Nothing more can be shown, for the reason that the text gives."""


def show(frame: bytes, maximum: int = 2_000) -> str:
    """The objects of `frame`, one on a line and the fields of a map each on its own; at most `maximum` characters."""
    writer = _Writer(frame, maximum)
    try:
        while writer.at < len(frame):
            writer.item(0)
            writer.write("\n")
    except _End as end:
        writer.parts.append(f" {end}")
    return "".join(writer.parts).rstrip("\n")


class _Writer:
    """A place in the frame and the text so far."""

    def __init__(self, frame: bytes, room: int) -> None:
        self.parts: list[str] = []
        self.at = 0
        self._frame = frame
        self._room = room

    def write(self, text: str) -> None:
        """Add `text`. Raises _End when there is no room left."""
        self._room -= len(text)
        if self._room < 0:
            raise _End("...")
        self.parts.append(text)

    def item(self, depth: int) -> None:
        """Show one item and all that is in it."""
        if depth > MAX_DEPTH:
            raise _End(f"<nested over {MAX_DEPTH} levels>")
        start = self.at
        major, info, argument = self._head()
        if major == _UNSIGNED:
            self.write(str(argument))
        elif major == _NEGATIVE:
            self.write(str(-1 - argument))
        elif major in (_BYTES, _TEXT):
            self._string(major, self._take(argument, start))
        elif major == _ARRAY:
            self._sequence("[", "]", argument, depth)
        elif major == _MAP:
            self._map(argument, depth)
        elif major == _TAG:
            self._tagged(argument, depth)
        elif info in _FLOATS:
            self.write(str(struct.unpack(_FLOATS[info], self._frame[self.at - _WIDTHS[info] : self.at])[0]))
        else:
            self.write(_SIMPLE.get(argument, f"simple({argument})"))

    def _head(self) -> tuple[int, int, int]:
        """Major type, additional information, and the number that they and the bytes behind them come to."""
        start = self.at
        first = self._take(1, start)[0]
        major, info = first >> 5, first & 0x1F
        if info < 24:
            return major, info, info
        if info not in _WIDTHS:
            what = "of indefinite length" if info == 31 else "not well-formed"
            raise _End(f"<byte {start}: an item {what}>")
        return major, info, int.from_bytes(self._take(_WIDTHS[info], start))

    def _take(self, size: int, start: int) -> bytes:
        taken = self._frame[self.at : self.at + size]
        if len(taken) < size:
            raise _End(f"<byte {start}: the item ends {size - len(taken)} bytes too early>")
        self.at += size
        return taken

    def _string(self, major: int, value: bytes) -> None:
        if major == _BYTES:
            more = f"... {len(value)} bytes" if len(value) > BYTES_SHOWN else ""
            self.write(f"h'{value[:BYTES_SHOWN].hex()}{more}'")
            return
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            self.write(f"<text that is not UTF-8 at its byte {error.start}: {value[:TEXT_SHOWN]!r}>")
            return
        more = f"... {len(text)} characters" if len(text) > TEXT_SHOWN else ""
        # Quoted as ASCII: nothing in it can pretend to be a part of the page.
        self.write(ascii(text[:TEXT_SHOWN]) + more)

    def _sequence(self, opening: str, closing: str, count: int, depth: int) -> None:
        self.write(opening)
        for index in range(count):
            self.write(", " if index else "")
            self.item(depth + 1)
        self.write(closing)

    def _map(self, count: int, depth: int) -> None:
        self.write("{")
        for index in range(count):
            self.write(("," if index else "") + ("\n  " if depth == 0 else " "))
            self.item(depth + 1)
            self.write(": ")
            self.item(depth + 1)
        self.write("\n}" if depth == 0 and count else "}")

    def _tagged(self, tag: int, depth: int) -> None:
        link = self._frame[self.at : self.at + 39]
        if tag == 42 and link.startswith(b"\x58\x25\x00"):
            try:
                self.write(f"42({Cid.from_bytes(link[3:])})")
            except CidError:
                pass
            else:
                self.at += len(link)
                return
        self.write(f"{tag}(")
        self.item(depth + 1)
        self.write(")")

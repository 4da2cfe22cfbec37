"""What can be read of a map whose encoding may be broken: single fields, found without decoding what lies between.

Called by `frames` for frames that cannot be read as a whole, and where two or three fields of a frame are all that is
asked for. It walks over items by their heads, so text that is not UTF-8, tags, keys out of order and other forms than
the canonical one do not matter. Must not know what a field means.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from relay.atproto import drisl
from relay.atproto.errors import DrislError

_BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(2, 7)
_INDEFINITE = 31
# How many bytes behind the first one hold an item's length or number.
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
# What an array, map or string of indefinite length has: more than there is room for.
_NO_END = 1 << 64


class _Lost(Exception):
    """No item begins here, or more were passed over than are allowed."""


def skim(
    data: bytes, at: int, wanted: Collection[str], items: int, *, to_end: bool = False
) -> tuple[dict[str, Any], int]:
    """The fields of the map at `at` that are `wanted` and not null, and where the map ends.

    The end is 0 when it was not reached: `items` items were passed over, the encoding is broken beyond telling where
    the next item begins, or all that was wanted was found, unless it has to go on `to_end`. A field that is not
    well-formed is as good as missing.
    """
    fields: dict[str, Any] = {}
    walk = _Walk(data, at, items)
    try:
        major, pairs = walk.head()
        if major != _MAP:
            return {}, 0
        while pairs and not (pairs > len(data) and walk.ended()):
            pairs -= 1
            name = walk.name()
            start = walk.at
            walk.skip()
            if name in wanted and name not in fields:
                value = _load(data[start : walk.at])
                if value is not None:
                    fields[name] = value
                    if len(fields) == len(wanted) and not to_end:
                        return fields, 0
    except _Lost:
        return fields, 0
    return fields, walk.at


def _load(data: bytes) -> Any:
    try:
        return drisl.load(data)
    except DrislError:
        return None


class _Walk:
    """A place in the data; `items` more may be passed over."""

    def __init__(self, data: bytes, at: int, items: int) -> None:
        self.data = data
        self.at = at
        self._items = items

    def head(self) -> tuple[int, int]:
        """Pass over the head of an item: its major type and its length or number."""
        self._items -= 1
        if self._items < 0 or self.at >= len(self.data):
            raise _Lost
        first = self.data[self.at]
        self.at += 1
        major, argument = first >> 5, first & 0x1F
        if argument >= 24:
            if argument == _INDEFINITE and _BYTES <= major <= _MAP:
                return major, _NO_END
            width = _WIDTHS.get(argument)
            if width is None:
                raise _Lost
            argument = int.from_bytes(self.data[self.at : self.at + width])
            self.at += width
            if self.at > len(self.data):
                raise _Lost
        return major, argument

    def name(self) -> str:
        """Pass over the name of a field; nothing for what is not plain text."""
        major, length = self.head()
        start = self.at
        self._pass(major, length)
        return self.data[start : self.at].decode("ascii", "replace") if major == _TEXT else ""

    def skip(self) -> None:
        """Pass over one item and all that is in it."""
        self._pass(*self.head())

    def ended(self) -> bool:
        """Pass over the end of something of indefinite length, if this is one."""
        if self.data[self.at : self.at + 1] != b"\xff":
            return False
        self.at += 1
        return True

    def _pass(self, major: int, argument: int) -> None:
        # How many items are still to come, at each level that was entered.
        levels: list[int] = []
        while True:
            if argument == _NO_END or major == _ARRAY:
                levels.append(argument)
            elif major == _MAP:
                levels.append(2 * argument)
            elif major == _TAG:
                levels.append(1)
            elif major in (_BYTES, _TEXT):
                self.at += argument
            while levels and (not levels[-1] or (levels[-1] > _NO_END // 2 and self.ended())):
                levels.pop()
            if not levels:
                break
            levels[-1] -= 1
            major, argument = self.head()
        if self.at > len(self.data):
            raise _Lost

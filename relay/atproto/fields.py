"""Reading the fields of a lexicon object from a decoded frame, and trimming them to what the lexicon knows.

Called by `frames`. Each reader raises FrameError, not fatal, that names the field. Must not know of events.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from relay.atproto.cid import Cid
from relay.atproto.errors import FrameError
from relay.atproto.syntax import is_datetime

Fields = dict[str, Any]

MAX_SEQ = 2**53 - 1


class Shape:
    """The fields that one lexicon object may have on output, for hosts that send more or less."""

    def __init__(self, required: str, optional: str | None = None, **defaults: Any) -> None:
        self.required = frozenset(required.split())
        self.optional = optional
        self.every = self.required | {optional}
        self.defaults = defaults

    def trim(self, fields: Fields) -> Fields:
        """`fields` itself when nothing in it is unknown, null for no reason, or left out; else a corrected copy.

        What the lexicon requires and some hosts leave out gets the value that the reference relay fills in.
        """
        names = fields.keys()
        given = None if self.optional is None else fields.get(self.optional)
        if names == (self.required if given is None else self.every):
            return fields
        kept = {name: fields[name] for name in self.required if name in fields}
        if self.optional is not None and given is not None:
            kept[self.optional] = given
        return self.defaults | kept


def read_text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if type(value) is not str:
        raise FrameError("frame-field", name)
    return value


def read_text_or_none(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    if value is not None and type(value) is not str:
        raise FrameError("frame-field", name)
    return value


def read_link(fields: Fields, name: str) -> Cid:
    value = fields.get(name)
    if type(value) is not Cid:
        raise FrameError("frame-field", name)
    return value


def read_link_or_none(fields: Fields, name: str) -> Cid | None:
    value = fields.get(name)
    if value is not None and type(value) is not Cid:
        raise FrameError("frame-field", name)
    return value


def read_flag(fields: Fields, name: str) -> bool:
    value = fields.get(name)
    if type(value) is not bool:
        raise FrameError("frame-field", name)
    return value


def read_seq(fields: Fields) -> int:
    value = fields.get("seq")
    if not is_seq(value):
        raise FrameError("frame-seq", repr(value)[:40])
    return value


def is_seq(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value <= MAX_SEQ


def read_time(fields: Fields) -> str:
    value = read_text(fields, "time")
    if not is_datetime(value):
        raise FrameError("frame-time", repr(value[:80]))
    return value


def read_blocks(fields: Fields, limit: int) -> bytes:
    value = fields.get("blocks")
    if type(value) is not bytes:
        raise FrameError("frame-field", "blocks")
    if len(value) > limit:
        raise FrameError("frame-blocks-size", f"{len(value)} bytes")
    return value

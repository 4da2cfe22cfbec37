"""Reads of a relay's frame just what another relay needs that passes it on as it is.

Called by `edge` for every frame of its upstream, which has verified it. Must not know of CARs, keys or state.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.atproto import frames
from relay.atproto.fields import read_flag, read_seq, read_text, read_text_or_none
from relay.atproto.frames import Info, Kind, StreamError


@dataclass(slots=True)
class Passed:
    """An event to pass on. `status` is that of an #account event, None when the account is active or gives none."""

    kind: Kind
    did: str
    seq: int
    status: str | None


def peek(frame: bytes) -> Passed | Info | StreamError | None:
    """Read one frame; None when its `op` or `t` is unknown. Raises FrameError when what is asked for cannot be read."""
    op, name, start = frames.read_header(frame)
    kind = frames.KINDS.get(name) if op == 1 else None
    if kind is None:
        notice = frames.decode(frame)
        return notice if isinstance(notice, Info | StreamError) else None
    payload = frames.load_payload(frame[start:])
    did = read_text(payload, "repo" if kind is Kind.COMMIT else "did")
    inactive = kind is Kind.ACCOUNT and not read_flag(payload, "active")
    return Passed(kind, did, read_seq(payload), read_text_or_none(payload, "status") if inactive else None)

"""What was asked of a host, as the event that the host might have sent.

Used by `accounts`. Goes through the decoder like any other, so that the gate meets nothing that a host could not send.
"""

from __future__ import annotations

from relay.atproto import car, frames
from relay.atproto.cid import Cid
from relay.atproto.frames import Account, Sync
from relay.ingest.announcement import time_now

# Not the host's: the lanes take none from what was fetched.
SEQ = 1


def sync_event(did: str, rev: str, cid: Cid, block: bytes) -> Sync:
    """A `#sync` of the commit object `block`. Raises FrameError when it is too large for one."""
    head, tail = frames.sync_frame(did, rev, time_now(), car.of_root(cid, block))
    event = frames.decode(head + frames.uint(SEQ) + tail)
    assert isinstance(event, Sync)
    return event


def account_event(did: str, status: str) -> Account:
    """An `#account` of what the host said, `status` in the words of `events.host_status`."""
    active = status == "active"
    word = None if active or status == "inactive" else status
    head, tail = frames.account_frame(did, time_now(), active, word)
    event = frames.decode(head + frames.uint(SEQ) + tail)
    assert isinstance(event, Account)
    return event

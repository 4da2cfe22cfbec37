"""Verifies one event and says what came of it in a few plain values: the part of a judgement that needs no state.

Called by `verification` in-line and by `worker` in a process of its own, so this imports nothing but `relay.atproto`.
Must not know of accounts, queues or clocks.
"""

from __future__ import annotations

import traceback
from typing import NamedTuple

from relay.atproto.cid import Cid
from relay.atproto.collections import touched
from relay.atproto.commit import Unproven, verify_commit, verify_sync
from relay.atproto.crypto import PublicKey
from relay.atproto.errors import ProtocolError
from relay.atproto.frames import Commit, Sync

# The refusal that another key of the account might lift, and the one that is a fault of ours.
SIGNATURE_INVALID = "signature-invalid"
INTERNAL_ERROR = "internal-error"


class Verdict(NamedTuple):
    """What an event has proven: its commit and the root of the tree. It may be passed on as it came.

    `lenient` is the reason for which it would have been refused without leniency; `touched` is what the commit tells
    of collections (`atproto.collections.touched`).
    """

    commit: Cid
    data: Cid
    lenient: str | None
    touched: dict[str, bool | None]


class Refusal(NamedTuple):
    """Why an event is dropped: a stable reason and words for people."""

    reason: str
    detail: str


Outcome = Verdict | Unproven | Refusal
"""`Unproven` lies between the two others: the account has signed a commit, and that is all that the event proves.

Such an event must not be passed on as it came, but should not be lost. `frames.sync_frame(event.did, unproven.rev,
event.time, unproven.blocks)` is what consumers may be told instead, once authority and status are as they must be and
`unproven.rev` is after the last rev. A `#sync` may say another rev than its commit, so that is compared here, not the
event's. The repo's state follows `unproven.commit`, `unproven.data` and `unproven.rev`, as after any `#sync`.
"""


def verify(event: Commit | Sync, key: PublicKey, now_us: int, *, lenient: bool) -> Outcome:
    """Everything about `event` that the account's key can tell; `now_us` is microseconds since 1970."""
    try:
        if isinstance(event, Sync):
            stated = verify_sync(event, key, now_us)
            return stated if isinstance(stated, Unproven) else Verdict(stated.commit, stated.data, None, {})
        verified = verify_commit(event, key, now_us, lenient=lenient)
        if isinstance(verified, Unproven):
            return verified
        told = touched(event.ops, verified.data, verified.opened)
    except ProtocolError as error:
        return Refusal(error.reason, error.detail)
    except Exception:
        return Refusal(INTERNAL_ERROR, traceback.format_exc())
    return Verdict(verified.commit, verified.data, verified.lenient, told)

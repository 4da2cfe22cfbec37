"""Verifies one event against its account's key, and packs that for a worker process and back.

The gate calls `verify` in-line, a worker calls it in a process of its own; between the two, verifications travel as
batches of plain values (`kit.messages`). Imports nothing but `relay.atproto`, so that a worker process stays small.
Must not know of accounts, queues or clocks.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from relay.atproto.cid import Cid
from relay.atproto.commit import Unproven, touched, verify_commit, verify_sync
from relay.atproto.crypto import PublicKey
from relay.atproto.errors import ProtocolError
from relay.atproto.frames import Commit, Event, RepoOp, Sync

# The refusal that another key of the account might lift, and the one that is a bug of ours.
SIGNATURE_INVALID = "signature-invalid"
INTERNAL_ERROR = "internal-error"

# Not a union, which would be made anew for each event.
VERIFIED = (Commit, Sync)

# With no more bytes of blocks than this, a verification takes two milliseconds at worst.
LONG_BYTES = 32 << 10

# Only what the verifier reads is sent: decoding a frame twice would cost more than the crossing.
Task = tuple[Any, ...]
"""An event and its account's key. A commit has nine parts, a sync six."""


class Verdict(NamedTuple):
    """What an event has proven: its commit and the root of the tree. It may be passed on as it came.

    `lenient` is the reason for which it would have been refused without leniency; `touched` is what the commit says
    about collections (`atproto.commit.touched`).
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

Such an event must not be passed on as it came, but should not be lost. Consumers may be sent
`frames.sync_frame(event.did, unproven.rev, event.time, unproven.blocks)` instead, if authority and status allow it and
`unproven.rev` is after the last rev. The repo's state follows its `commit`, `data` and `rev`, as after any `#sync`.

The `rev` of a `#sync` event may be any text, or empty: only `unproven.rev` tells whether it is old. `event.time` is
empty when it could not be read. A verdict on a commit that must not pass for a reason of the gate's own, such as a
missing `prevData`, is turned into this by `atproto.commit.commit_alone`.
"""


def verify(
    event: Commit | Sync, key: PublicKey, now_us: int, *, lenient: bool, pause: Callable[[], None] | None = None
) -> Outcome:
    """Verify everything about `event` that its account's key can tell; `now_us` is microseconds since 1970.

    `pause` is called between pieces of the work, each of some milliseconds at most.
    """
    try:
        if isinstance(event, Sync):
            stated = verify_sync(event, key, now_us)
            return stated if isinstance(stated, Unproven) else Verdict(stated.commit, stated.data, None, {})
        verified = verify_commit(event, key, now_us, lenient=lenient, pause=pause)
        if isinstance(verified, Unproven):
            return verified
        told = touched(event.ops, verified.data, verified.opened)
    except ProtocolError as error:
        return Refusal(error.reason, error.detail)
    except MemoryError:
        # That says nothing about the event. A worker ends, and the next one tries.
        raise
    except Exception:
        return Refusal(INTERNAL_ERROR, traceback.format_exc())
    return Verdict(verified.commit, verified.data, verified.lenient, told)


def is_long(event: Event) -> bool:
    """Whether the event is large enough to be verified in pieces, beside the lane."""
    return isinstance(event, VERIFIED) and len(event.blocks) > LONG_BYTES


def pack_task(event: Commit | Sync, key: PublicKey) -> Task:
    """The task of verifying `event` against `key`."""
    if isinstance(event, Sync):
        return key.curve, key.compressed, event.did, event.rev, event.blocks, event.fault
    ops = tuple([(op.action, op.path, op.cid, op.prev) for op in event.ops])
    common = key.curve, key.compressed, event.did, event.rev, event.blocks, event.fault
    return *common, event.commit, event.prev_data, ops


def unpack_task(task: Task) -> tuple[Commit | Sync, PublicKey]:
    """The event, as far as the verifier reads it, and the key. Raises ValueError when `task` is not a task."""
    curve, compressed, did, rev, blocks, fault, *more = task
    key = PublicKey(curve, compressed)
    if not more:
        return Sync(did, 0, "", rev, blocks, b"", fault), key
    commit, prev_data, ops = more
    return (
        Commit(
            did=did,
            seq=0,
            time="",
            rev=rev,
            since=None,
            commit=Cid(commit),
            prev_data=_cid_or_none(prev_data),
            blocks=blocks,
            ops=tuple([RepoOp(action, path, _cid_or_none(cid), _cid_or_none(prev)) for action, path, cid, prev in ops]),
            too_big=False,
            rebase=False,
            frame=b"",
            fault=fault,
        ),
        key,
    )


def pack_outcome(outcome: Outcome) -> tuple[Any, ...]:
    """`outcome` as a plain tuple: two parts for a refusal, four for a verdict, six for what is unproven."""
    return tuple(outcome)


def unpack_outcome(packed: tuple[Any, ...]) -> Outcome:
    """The outcome that was packed."""
    if len(packed) == 2:
        return Refusal(*packed)
    if len(packed) == 6:
        reason, detail, commit, data, rev, blocks = packed
        return Unproven(reason, detail, Cid(commit), Cid(data), rev, blocks)
    commit, data, lenient, touched = packed
    return Verdict(Cid(commit), Cid(data), lenient, touched)


def _cid_or_none(data: bytes | None) -> Cid | None:
    return None if data is None else Cid(data)

"""How a verification crosses to a worker process and back: batches of plain values, marshalled, behind their length.

Used by `slot` in the relay and by `worker` in its processes, both always of one version of this code and of Python.
Only what the verifier reads is sent: decoding a frame twice would cost more than the crossing.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from typing import Any

from relay.atproto.cid import Cid
from relay.atproto.commit import Unproven
from relay.atproto.crypto import PublicKey
from relay.atproto.frames import Commit, RepoOp, Sync
from relay.ingest.verdict import Outcome, Refusal, Verdict

_LENGTH_BYTES = 4

Task = tuple[Any, ...]
"""An event and its account's key. A commit has nine parts, a sync six."""


def pack_task(event: Commit | Sync, key: PublicKey) -> Task:
    """The task of verifying `event` against `key`."""
    if isinstance(event, Sync):
        return key.curve, key.compressed, event.did, event.rev, event.blocks, event.fault
    ops = tuple([(op.action, op.path, op.cid, op.prev) for op in event.ops])
    common = key.curve, key.compressed, event.did, event.rev, event.blocks, event.fault
    return *common, event.commit, event.prev_data, ops


def unpack_task(task: Task) -> tuple[Commit | Sync, PublicKey]:
    """The event, as far as the verifier reads it, and the key. Raises ValueError when `task` is none."""
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


def encode(message: Any) -> bytes:
    """`message`, of numbers, text, bytes, lists, tuples and dicts, as it goes over the socket."""
    data = marshal.dumps(message)
    return len(data).to_bytes(_LENGTH_BYTES) + data


class Inbox:
    """Whole messages out of the pieces that a socket gives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The messages that are whole with `data`."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH_BYTES:
            end = start + _LENGTH_BYTES + int.from_bytes(buffer[start : start + _LENGTH_BYTES])
            if len(buffer) < end:
                break
            yield marshal.loads(buffer[start + _LENGTH_BYTES : end])
            start = end
        del buffer[:start]


def _cid_or_none(data: bytes | None) -> Cid | None:
    return None if data is None else Cid(data)

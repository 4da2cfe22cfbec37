"""What the frames of an event stream say, once read: one class for each kind of event and of notice.

Made by `frames`, used by whatever handles events. Their texts and links are those of the frame, checked only as far as
reading it takes. https://atproto.com/specs/event-stream and `com.atproto.sync.subscribeRepos`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

from relay.atproto.cid import Cid


class Kind(IntEnum):
    """The kinds of event, numbered as in the reference relay's log."""

    COMMIT = 1
    IDENTITY = 4
    ACCOUNT = 5
    SYNC = 6


# The index is the code in a log record: append only.
STATUSES = (
    "active",
    "deactivated",
    "deleted",
    "desynchronized",
    "suspended",
    "takendown",
    "throttled",
    "host-throttled",
    "inactive",
)

DESYNCHRONIZED = "desynchronized"
# The statuses, the relay's own and the host's, with which commits pass.
SERVED = frozenset({"active", DESYNCHRONIZED})

# What a consumer must no longer be able to read once it is announced (sync specification, account events).
HIDING_STATUSES = frozenset({"takendown", "deleted"})

# A status of a host's own making is kept up to this length.
MAX_STATUS = 64


@dataclass(slots=True)
class RepoOp:
    """One change of a record. `cid` is None for a delete, `prev` for a create (or when the host left it out)."""

    action: str
    path: str
    cid: Cid | None
    prev: Cid | None


@dataclass(slots=True)
class Commit:
    """A repository's new commit with the blocks that prove it."""

    kind: ClassVar[Kind] = Kind.COMMIT

    did: str
    seq: int
    time: str
    rev: str
    since: str | None
    commit: Cid
    prev_data: Cid | None
    blocks: bytes
    ops: tuple[RepoOp, ...]
    too_big: bool
    rebase: bool
    frame: bytes
    seq_at: int = field(default=0, compare=False)
    """Where the value of `seq` begins in the frame; 0 when that was not noticed."""
    fault: str | None = None
    """Why nothing of the frame counts but the signed commit in `blocks`. Such a frame is not passed on, and what could
    not be read of it is empty."""


@dataclass(slots=True)
class Sync:
    """A repository's current commit, without the way to it."""

    kind: ClassVar[Kind] = Kind.SYNC

    did: str
    seq: int
    time: str
    rev: str
    blocks: bytes
    frame: bytes
    fault: str | None = None
    """As that of a commit."""


@dataclass(slots=True)
class Identity:
    """A DID document or handle may have changed. `time` is empty when it cannot be read: then the frame is not passed
    on as it is.
    """

    kind: ClassVar[Kind] = Kind.IDENTITY

    did: str
    seq: int
    time: str
    handle: str | None
    frame: bytes


@dataclass(slots=True)
class Account:
    """An account's status at the host that sends this. `time` as that of an identity."""

    kind: ClassVar[Kind] = Kind.ACCOUNT

    did: str
    seq: int
    time: str
    active: bool
    status: str | None
    frame: bytes


Event = Commit | Sync | Identity | Account


@dataclass(slots=True)
class Peeked:
    """Whose event a frame holds. `status` is that of an #account event, None if the account is active or gives none."""

    kind: Kind
    did: str
    seq: int
    status: str | None


@dataclass(slots=True)
class Info:
    """A notice from the host, such as OutdatedCursor."""

    name: str
    message: str | None


@dataclass(slots=True)
class StreamError:
    """The host's reason for closing the stream."""

    error: str
    message: str | None


def host_status(active: bool, status: str | None) -> str:
    """What is kept of a host's word on an account: `active` decides, and words that nobody knows are kept.

    `inactive` when the host gives no reason, or none that could be kept.
    """
    if active:
        return "active"
    if not status or status == "active" or len(status) > MAX_STATUS or not status.isprintable():
        return "inactive"
    return status


def status_code(status: str) -> int:
    """The code of a status in a log record. A word that nobody knows has that of `inactive`; the frame has the word."""
    return _CODES.get(status, _CODES["inactive"])


_CODES = {status: code for code, status in enumerate(STATUSES)}


def effective_status(status: str, upstream_status: str) -> tuple[bool, str | None]:
    """(active, status) of an account at this relay, in the words of `#account`: the relay's own status wins, but over
    nothing that hides the account.

    `host-throttled` is a distinction of ours and is shown as `throttled`. The status is None when active.
    """
    gone = upstream_status in HIDING_STATUSES and status not in HIDING_STATUSES
    shown = upstream_status if gone or status == "active" else status
    if shown == "active":
        return True, None
    return False, "throttled" if shown == "host-throttled" else shown or "inactive"

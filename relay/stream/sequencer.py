"""Gives events their seq, has them logged, and tells the projector and the sender once they are durable and published.

Accepted events come from the lanes and from moderation. Must not know of hosts, consumers or files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from relay.atproto.events import STATUSES
from relay.atproto.frames import Kind, uint
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import FLAG_HIDES, FLAG_REVEALS, Record, own_flags
from relay.eventlog.writer import Block
from relay.store.accounts import AccountRow, RepoRow
from relay.stream.group_commit import GroupCommit, record_times
from relay.stream.projector import Projector
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail

WAIT_SECONDS = 1.0

log = logging.getLogger(__name__)


class Entry:
    """What the log takes: an accepted event of a host, or an announcement of the relay's own.

    Whoever submits it has set `uid`; `status`, the index in `events.STATUSES` of what the host says of the account; and
    `head` and `tail`, its frame around `seq` (`frames.split_at_seq`). `account` and `repo` are the rows that the event
    changes, `collections` is what it says about collections (`changes_of`). `hides`: this `#account` event makes
    the account's past unreadable; `reveals`: this one makes it readable again. `host_id` and `upstream_seq` are 0 for
    an announcement; `own_status` is the relay's own status that the event gives the account.
    """

    __slots__ = (
        "account",
        "collections",
        "head",
        "hides",
        "host_id",
        "kind",
        "own_status",
        "repo",
        "reveals",
        "status",
        "tail",
        "uid",
        "upstream_seq",
    )

    uid: int
    status: int
    head: bytes
    tail: bytes

    def __init__(self, kind: Kind, host_id: int = 0, upstream_seq: int = 0) -> None:
        self.kind = kind
        self.host_id = host_id
        self.upstream_seq = upstream_seq
        self.account: AccountRow | None = None
        self.repo: RepoRow | None = None
        self.collections: Mapping[str, bool | None] | None = None
        self.hides = False
        self.reveals = False
        self.own_status: str | None = None

    def logged(self) -> None:
        """Called once the event is durable and published."""


class Sequencer:
    """Owns the order of all events."""

    def __init__(self, log: SegmentLog, tail: Tail, projector: Projector, suppressions: Suppressions) -> None:
        self._log = log
        self._projector = projector
        self._pending = projector.pending
        self._commits: GroupCommit[Entry] = GroupCommit(
            "sequencer", log, tail, suppressions, self._number, self._published, self._wait_for_sql
        )

    def on_failure(self, make_room: Callable[[], None]) -> None:
        """Have `make_room` called when the log cannot be written, which may be for lack of room."""
        self._commits.make_room = make_room

    def replicate_with(self, replicate: Callable[[Block], None]) -> None:
        """Have each batch given to `replicate`, and written and published only once that returns."""
        self._commits.replicate = replicate

    @property
    def problem(self) -> str | None:
        """Why nothing can be logged now, in words, or None."""
        return self._commits.problem

    def submit(self, entry: Entry) -> None:
        """Take one event; blocks while the queue is full. Events come out in the order in which this returns."""
        self._commits.put(entry, len(entry.head) + len(entry.tail))

    def start(self) -> None:
        """Start logging."""
        self._commits.start()

    def stop(self, timeout: float) -> bool:
        """Log everything that was submitted, then stop. False when `timeout` seconds were not enough; the rest is
        dropped, unfinished, and comes again from its hosts.
        """
        return self._commits.stop(timeout)

    def close_log(self, timeout: float) -> None:
        """Close the log within `timeout` seconds; it is left as it is when the disk does not answer."""
        self._commits.close_log(timeout)

    def _wait_for_sql(self) -> None:
        while self._pending.full:
            self._projector.wait_for_room(WAIT_SECONDS)

    def _number(self, batch: list[Entry]) -> list[Record]:
        times = record_times(self._log, [entry.head for entry in batch])
        return [
            Record(
                seq,
                time_us,
                entry.uid,
                entry.host_id,
                entry.upstream_seq,
                entry.kind,
                entry.status,
                _flags(entry) if entry.kind == Kind.ACCOUNT else 0,
                b"".join((entry.head, uint(seq), entry.tail)),
            )
            for seq, (entry, time_us) in enumerate(zip(batch, times, strict=True), self._log.next_seq)
        ]

    def _published(self, batch: list[Entry], records: list[Record]) -> None:
        self._pending.add(
            records[-1].seq,
            [entry.account for entry in batch if entry.account is not None],
            [entry.repo for entry in batch if entry.repo is not None],
            [(entry.uid, entry.collections) for entry in batch if entry.collections],
            {entry.uid: entry.own_status for entry in batch if entry.own_status is not None},
        )
        for entry in batch:
            try:
                entry.logged()
            except Exception:
                log.exception("after logging an event of account %d, telling of it crashed", entry.uid)


def _flags(entry: Entry) -> int:
    own = 0 if entry.own_status is None else own_flags(STATUSES.index(entry.own_status))
    if entry.hides:
        return own | FLAG_HIDES
    return own | FLAG_REVEALS if entry.reveals else own

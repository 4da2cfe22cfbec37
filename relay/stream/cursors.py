"""Host cursors: up to which of the host's own seqs its events are settled, that is logged or rejected.

`ingest` begins and finishes events, the projector stores the positions, `hosts` reconnects from them. Events finish in
any order; a position only moves as far as nothing before it is outstanding. Must not know of hosts beyond their id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

NONE_YET = -1
_SETTLED = -1

# Finished events that wait for an earlier one. With more than this a host has to wait.
MAX_AHEAD = 65_536

# How many events back in the log are remembered because a host may send them again.
RESTORED_EVENTS = 200_000


class Log(Protocol):
    """What is asked of `eventlog.log.SegmentLog`."""

    @property
    def last_seq(self) -> int:
        """The log's newest seq."""

    @property
    def last_time_us(self) -> int:
        """The time of the log's newest record, in microseconds since the epoch; 0 without one."""


class HostCursor:
    """One host's cursor. `position` is the last contiguous settled upstream seq, -1 when there is none yet; `since` is
    the log's seq after which the host's records have numbers that it can be compared with.
    """

    __slots__ = (
        "_before_late",
        "_before_logged",
        "_begun",
        "_book",
        "_last_begun",
        "_last_logged",
        "_late",
        "_log",
        "_logged",
        "host_id",
        "position",
        "since",
    )

    def __init__(self, host_id: int, book: CursorBook, log: Log) -> None:
        self.host_id = host_id
        self.position = NONE_YET
        self.since = 0
        self._book = book
        self._log = log
        # Upstream seq -> the log's newest seq when it was begun, or _SETTLED; in the order of their beginning.
        self._begun: dict[int, int] = {}
        self._last_begun = NONE_YET
        # Those under way that were begun after a higher one, and what the oldest of all was begun at then. After a
        # reconnect a host may give numbers that it passed over before.
        self._late: set[int] = set()
        self._before_late = 0
        # What the log has above the position that was stored before the restart.
        self._logged: set[int] = set()
        # The log's seq before the first record of those, and the last of them.
        self._before_logged = 0
        self._last_logged = 0

    @property
    def outstanding(self) -> bool:
        """True while an event is under way."""
        return bool(self._begun)

    @property
    def highest(self) -> int:
        """The highest seq that was taken up, NONE_YET when none was."""
        return max(self.position, max(self._begun, default=NONE_YET))

    @property
    def full(self) -> bool:
        """True when no more may be begun until the oldest outstanding event is settled."""
        return len(self._begun) >= MAX_AHEAD

    def begin(self, seq: int) -> bool:
        """Take up the event `seq`. False when it is settled, outstanding, or in the log already."""
        if seq <= self.position or seq in self._begun:
            return False
        if self._logged and self._was_logged(seq):
            self._begun[seq] = _SETTLED
            self._last_begun = max(self._last_begun, seq)
            self._advance()
            return False
        # Until this one is settled the position cannot pass the logged events after it, and a restart must find their
        # records.
        self._begun[seq] = self._before_logged if self._logged else self._log.last_seq
        self._book.outstanding.add(self.host_id)
        if seq > self._last_begun:
            self._last_begun = seq
        else:
            self._before_late = self.oldest_begun()
            self._late.add(seq)
        return True

    def finish(self, seq: int) -> None:
        """The event `seq` is durable in the log, or rejected."""
        if seq in self._begun:
            self._begun[seq] = _SETTLED
            self._late.discard(seq)
            self._advance()

    def reset(self) -> None:
        """Forget everything: the host's seqs start again, or were left behind. Not while one is outstanding."""
        assert not self._begun
        self._logged.clear()
        self.position = self._last_begun = NONE_YET
        self._book.restored.discard(self.host_id)
        self._book.dirty.add(self.host_id)

    def start(self, position: int) -> None:
        """The first event is the one after `position`; what the log has of the host until now has other numbers.

        Until this is stored no event may be begun: a restart could not tell the old numbers from the new ones.
        """
        self.position = position
        self.since = self._book.started[self.host_id] = self._log.last_seq
        self._book.dirty.add(self.host_id)

    def restore(self, position: int, logged: Mapping[int, int], since: int = 0) -> None:
        """Take over what SQL and the log say, at the start: `logged` are the upstream seqs above `position` that the
        log has, with its seqs for them.
        """
        self.position = position
        self.since = since
        self._logged = set(logged)
        if logged:
            self._before_logged = min(logged.values()) - 1
            self._last_logged = max(logged)
            self._book.restored.add(self.host_id)

    def note_gap(self, reason: str) -> None:
        """Events of the host are missing, and it is not known of which accounts. Stored with the position."""
        self._book.gaps[self.host_id] = reason
        self._book.dirty.add(self.host_id)

    def oldest_begun(self) -> int:
        """The log's newest seq when the oldest outstanding event was begun. There must be one."""
        return self._before_late if self._late else next(iter(self._begun.values()))

    def oldest_logged(self) -> int:
        """The log's seq before the oldest restored event; valid while one of them has not come again."""
        return self._before_logged

    def _was_logged(self, seq: int) -> bool:
        found = seq in self._logged
        self._logged.discard(seq)
        # A host's seqs rise: once it is past these they will not come again.
        if not found and seq > self._last_logged:
            self._logged.clear()
        if not self._logged:
            self._book.restored.discard(self.host_id)
        return found

    def _advance(self) -> None:
        begun = self._begun
        moved = False
        # The position must not pass one of the late.
        while begun and not self._late:
            seq = next(iter(begun))
            if begun[seq] != _SETTLED:
                break
            del begun[seq]
            self.position = max(self.position, seq)
            moved = True
        if not begun:
            self._book.outstanding.discard(self.host_id)
        if moved:
            self._book.dirty.add(self.host_id)


class CursorBook:
    """The cursors of all hosts."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._cursors: dict[int, HostCursor] = {}
        # Host ids: whose position moved, who has events under way, whose logged events may yet come again.
        self.dirty: set[int] = set()
        self.outstanding: set[int] = set()
        self.restored: set[int] = set()
        # Host id -> the log's newest seq when the host's numbers started, for those that started since the last call.
        self.started: dict[int, int] = {}
        # Host id -> why events of it are missing, noted since the last call.
        self.gaps: dict[int, str] = {}

    @property
    def logged_until(self) -> float:
        """The time of the log's newest record, in Unix seconds; 0 without one."""
        return self._log.last_time_us / 1e6

    def get(self, host_id: int) -> HostCursor:
        """The cursor of a host; a new one for a new host."""
        cursor = self._cursors.get(host_id)
        if cursor is None:
            cursor = self._cursors[host_id] = HostCursor(host_id, self, self._log)
        return cursor

    def take_dirty(self) -> dict[int, int]:
        """host id -> position, of the cursors that moved since the last call."""
        moved, self.dirty = self.dirty, set()
        return {host_id: self._cursors[host_id].position for host_id in moved}

    def all(self) -> dict[int, tuple[int, int]]:
        """host id -> (position, since), of every host that has a position."""
        return {
            host_id: (cursor.position, cursor.since)
            for host_id, cursor in self._cursors.items()
            if cursor.position != NONE_YET or cursor.since
        }

    def take_started(self) -> dict[int, int]:
        """host id -> the log's seq before the first event of the host's present numbers, where they started anew."""
        started, self.started = self.started, {}
        return started

    def take_gaps(self) -> dict[int, str]:
        """host id -> why events of it are missing."""
        gaps, self.gaps = self.gaps, {}
        return gaps

    def give_back(self, moved: Mapping[int, int], started: Mapping[int, int], gaps: Mapping[int, str]) -> None:
        """What was taken could not be stored: the next call gives it again, unless there is something newer."""
        self.dirty.update(moved)
        self.started = {**started, **self.started}
        self.gaps = {**gaps, **self.gaps}

    def forget_stored(self) -> None:
        """SQL may have lost what it was given: have all of it taken again."""
        self.dirty = {
            host_id for host_id, cursor in self._cursors.items() if cursor.position != NONE_YET or cursor.since
        }
        self.started = {host_id: cursor.since for host_id, cursor in self._cursors.items() if cursor.since}

    def replay_from(self) -> int:
        """The first seq of the log that a restart must look at to know every record that is ahead of a cursor."""
        last_seq = self._log.last_seq
        begun = min((self._cursors[host_id].oldest_begun() for host_id in self.outstanding), default=last_seq)
        logged = min((self._cursors[host_id].oldest_logged() for host_id in self.restored), default=last_seq)
        # A host that never comes back must not make every later start read the log from here.
        return min(begun, max(logged, last_seq - RESTORED_EVENTS)) + 1

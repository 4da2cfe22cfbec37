"""One life of a relay's log, projection and moderation, step by step. What must be so after any crash: `crash_checks`.

life = Life(folder, url, ledger, told)     # opens what is there
life.play()                                # events, takedowns, rotation, trimming; it ends in order

Nothing runs by the clock: SQL is written and the log trimmed when `play` says so, so the steps are the same each time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gevent

from relay.atproto import frames
from relay.atproto.cid import Cid
from relay.atproto.events import STATUSES, status_code
from relay.atproto.frames import Account, Commit
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.record import FLAG_HIDES, FLAG_REVEALS, Record, own_code
from relay.eventlog.retention import Keep
from relay.hosts.host import Host
from relay.ingest import moderation
from relay.ingest.accounts import Accounts
from relay.ingest.moderation import Moderation
from relay.kit.clock import SteadyClock
from relay.kit.generations import RecordCache
from relay.store import hosts
from relay.store.accounts import RepoRow
from relay.store.open import open_database
from relay.stream import group_commit
from relay.stream.cursors import HostCursor
from relay.stream.stream import Stream
from tests.support.ledger import Entry, Ledger
from tests.support.stream import payloads
from tests.support.submission import Submission

SEGMENT_BYTES = 12_000
KEPT_BYTES = 30_000
WAIT_SECONDS = 20.0


@dataclass
class Told:
    """What the world outside was told: consumers by events, admins by answers. A crash takes none of it back.

    `seen` are all records published, by seq; `answered` is DID -> the status that an admin was told it has now;
    `asking` are accounts for which an answer is outstanding; `refused` are (host, upstream seq) not forwarded.
    """

    seen: dict[int, Record] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    asking: set[str] = field(default_factory=set)
    refused: set[tuple[str, int]] = field(default_factory=set)

    def copy(self) -> Told:
        """As it is now."""
        return Told(dict(self.seen), dict(self.answered), set(self.asking), set(self.refused))


class Life:
    """From one start to the next."""

    def __init__(self, folder: Path, url: str, ledger: Ledger, told: Told, clock: SteadyClock | None = None) -> None:
        self.told = told
        self.clock = clock
        self.ledger = ledger
        self.db = open_database(url, max_connections=2)
        try:
            self._open(folder)
        except BaseException:
            self.db.close()
            raise

    def _open(self, folder: Path) -> None:
        rows = {
            name: self.db.write(hosts.insert, name, no_ssl=False, account_limit=1000, trusted=False)
            for name in self.ledger
        }
        # Looked up when it is called, since whoever watches steps replaces it.
        self.log = SegmentLog(folder, segment_bytes=SEGMENT_BYTES, sync=lambda fd: os.fdatasync(fd), clock=self.clock)
        try:
            self.stream = Stream(self.log, self.db, Keep(3600.0, KEPT_BYTES))
        except BaseException:
            # The end of a process would let go of it.
            self.log._unlock()
            raise
        self.cursors = {name: self.stream.cursors.get(row.id) for name, row in rows.items()}
        self.host_ids = {name: row.id for name, row in rows.items()}
        memory = RecordCache(1000)
        self.accounts = Accounts(self.stream.projector.account, memory.accounts, self.stream.next_uid)
        self.moderation = Moderation(self.db, self.accounts, self.stream.sequencer, self.stream.projector)
        self._publish = self.stream.tail.publish
        self.stream.tail.publish = self._published  # type: ignore[method-assign]
        self.stream.sequencer._commits._ready = self._flush_if_full
        group_commit.NOTE_SECONDS = 0.0
        group_commit.RETRY_SECONDS = (0.001,) * 6
        moderation.PROJECTION_SECONDS = 0.0
        self.stream.sequencer.start()

    def _published(self, records: list[Record]) -> None:
        self.told.seen |= {record.seq: record for record in records}
        self._publish(records)

    def _flush_if_full(self) -> None:
        # The projector's loop, which would be woken, does not run. A gap of a million seqs is more than may be behind.
        if self.stream.projector.pending.full:
            self.flush()

    def play(self) -> None:
        """All that a relay does with an account, from the first event to an orderly end."""
        self.catch_up()
        self.feed(8)
        first, second, third = sorted(folded(in_order(self.told.seen)))[:3]
        self.takedown(first)
        self.flush()
        self.feed(6)
        self.takedown(second)
        self.feed(4)
        self.flush()
        self.restore(first)
        self.feed(6)
        self.stream.retention.trim()
        self.flush()
        self.takedown(third)
        self.restore(third)
        self.takedown(first)
        self.feed(6)
        self.flush()
        self.stream.retention.trim()
        self.stop()

    def catch_up(self) -> None:
        """Bring an older database up to the log, before events are taken and accounts taken down."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.stream.projector.behind:
            # As its loop would, which does not run.
            self.stream.projector._pass()
            assert time.monotonic() < deadline, "the database is not brought up to the log"
            gevent.sleep(0.01)

    def feed(self, count: int) -> None:
        """The next events of each host, as it would send them from its cursor; all of them settle."""
        for name, entries in self.ledger.items():
            cursor = self.cursors[name]
            for entry in [entry for entry in entries if entry.seq > cursor.position][:count]:
                if cursor.begin(entry.seq):
                    self._judge(name, cursor, entry)
        self._until_logged(lambda: not any(cursor.outstanding for cursor in self.cursors.values()))

    def _judge(self, name: str, cursor: HostCursor, entry: Entry) -> None:
        event = frames.decode(entry.frame)
        assert event is not None and not isinstance(event, frames.Info | frames.StreamError)
        host_id = self.host_ids[name]
        state = self.accounts.lookup(event.did)
        if state is None:
            host = cast(Host, SimpleNamespace(id=host_id, account_count=0, account_limit=1000))
            state = self.accounts.create(event.did, host)
        # What was refused comes again behind an older database: the gate knows it by its rev.
        old = isinstance(event, Commit) and state.repo is not None and event.rev <= state.repo.rev
        if entry.rejected or old or state.row.status != "active":
            self.told.refused.add((name, entry.seq))
            cursor.finish(entry.seq)
            return
        hides = False
        if isinstance(event, Account):
            state.set_row(replace(state.row, upstream_status=event.status or "active"))
            hides = event.status == "deleted"
        if isinstance(event, Commit) and entry.data is not None:
            state.set_repo(RepoRow(state.row.uid, event.rev, event.commit, Cid(entry.data)))
        head, tail = frames.split_at_seq(event)
        repo = state.repo if isinstance(event, Commit) else None
        row, code = state.row, status_code(state.row.upstream_status)
        done = lambda: cursor.finish(entry.seq)  # noqa: E731
        self.stream.sequencer.submit(
            Submission(event.kind, row.uid, host_id, entry.seq, code, head, tail, row, repo, done, hides)
        )

    def takedown(self, did: str) -> None:
        """As an admin asks for it, and what the answer is."""
        self._moderate(did, "takendown")

    def restore(self, did: str) -> None:
        """The reversal."""
        self._moderate(did, "active")

    def _moderate(self, did: str, status: str) -> None:
        self.told.asking.add(did)
        self.moderation.takedown(did) if status == "takendown" else self.moderation.restore(did)
        self.told.answered[did] = status
        self.told.asking.discard(did)
        self._until_logged(lambda: True)

    def flush(self) -> None:
        """SQL follows the log."""
        self.stream.projector.flush()

    def stop(self) -> None:
        """An orderly end."""
        self.stream.stop(10.0)
        self.db.close()

    def abandon(self) -> None:
        """An end without any order: nothing more is written, and the lock is free."""
        commits = self.stream.sequencer._commits
        if commits._greenlet is not None:
            commits._greenlet.kill()
        self.stream.firehose.close()
        self.log._unlock()
        self.db.close()

    def readable(self) -> list[int]:
        """The seqs that a consumer gets from the start of the window."""
        feed, found = self.stream.firehose.attach(0), []
        while feed.position < self.stream.firehose.last_seq:
            if (data := feed.next(0.01)) is not None:
                found += [event.seq for event in map(frames.decode, payloads(data)) if isinstance(event, frames.Event)]
        return found

    def logged(self) -> list[Record]:
        """All records that are in the log."""
        reader, found, seq = LogReader(self.log), [], self.log.first_seq - 1
        while records := reader.read(seq):
            seq = records[-1].seq
            found += records
        return found

    def _until_logged(self, settled: Any) -> None:
        # The group commit is idle once it has also noted what was given out.
        deadline = time.monotonic() + WAIT_SECONDS
        while not (settled() and self.stream.sequencer._commits._idle.is_set()):
            assert time.monotonic() < deadline, "waited in vain"
            gevent.sleep(0.0005)


@dataclass
class Expected:
    """What the log's records say of accounts, in order: uid, own status, host's status, rev, and the mark."""

    uid: int
    own: str = "active"
    upstream: str = "active"
    rev: str | None = None
    hidden_below: int = 0


def folded(history: Iterable[Record]) -> dict[str, Expected]:
    """DID -> what follows from the records."""
    found: dict[str, Expected] = {}
    for record in history:
        event = frames.decode(record.frame)
        assert isinstance(event, frames.Event) and event.seq == record.seq
        account = found.setdefault(event.did, Expected(record.uid))
        assert account.uid == record.uid, f"{event.did} has two uids"
        account.upstream = STATUSES[record.status]
        if (code := own_code(record.flags)) is not None:
            account.own = STATUSES[code]
        if isinstance(event, Commit):
            assert account.rev is None or event.rev > account.rev, "a rev went back"
            account.rev = event.rev
        if record.flags & FLAG_HIDES:
            account.hidden_below = record.seq
        elif record.flags & FLAG_REVEALS:
            account.hidden_below = 0
    return found


def in_order(seen: dict[int, Record]) -> list[Record]:
    """The records by their seqs."""
    return [seen[seq] for seq in sorted(seen)]

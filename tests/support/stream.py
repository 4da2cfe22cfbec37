"""The stream room as a whole, on real files and a real database, and submissions to feed it with.

room = Room(tmp_path, database_url)        # opens log and database; one host is stored
room.start()
room.submit(uid=1)                         # an #account event of account 1, begun and finished on its host's cursor
room.wait_until(lambda: room.stream.firehose.last_seq == 1)
room.stop()
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent

from relay.atproto.events import STATUSES
from relay.atproto.frames import Commit, Event, Kind, account_frame, decode, split_at_seq
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import Record
from relay.eventlog.retention import Keep
from relay.eventlog.writer import encode_block
from relay.store import hosts
from relay.store.accounts import AccountRow, RepoRow
from relay.store.open import open_database
from relay.stream.stream import Stream
from tests.support.repo import RepoBuilder, account_did, create
from tests.support.submission import Submission
from tests.support.wait import PATIENCE

TIME = "2026-01-01T00:00:00.000Z"


def account_event(uid: int, seq: int, status: str = "active") -> bytes:
    """The frame of an #account event."""
    active = status == "active"
    head, tail = account_frame(account_did(uid), TIME, active, None if active else status)
    return head + seq_bytes(seq) + tail


def seq_bytes(seq: int) -> bytes:
    """`seq` in CBOR, said here a second time so that tests do not rest on the relay's own."""
    for limit, head, size in ((24, 0, 0), (1 << 8, 24, 1), (1 << 16, 25, 2), (1 << 32, 26, 4)):
        if seq < limit:
            return bytes((seq,)) if size == 0 else bytes((head,)) + seq.to_bytes(size)
    return b"\x1b" + seq.to_bytes(8)


def record(seq: int, *, frame: bytes = b"", uid: int = 0, kind: Kind = Kind.COMMIT, flags: int = 0) -> Record:
    """A record whose frame, unless given, is a few bytes of its own."""
    frame = frame or b"frame %d " % seq * (seq % 5 + 1)
    return Record(seq, 1_700_000_000_000_000 + seq, uid or seq % 7 + 1, 1, seq + 100, kind, 0, flags, frame)


def append(log: SegmentLog, records: list[Record]) -> None:
    """Write `records` into `log` as one batch."""
    log.write(encode_block(records))


def payloads(data: bytes) -> list[bytes]:
    """The payloads of joined WebSocket frames, read by RFC 6455's own rules."""
    found, at = [], 0
    while at < len(data):
        assert data[at] == 0x82
        length, at = data[at + 1], at + 2
        assert length < 128, "servers do not mask"
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(data[at : at + size]), at + size
        assert at + length <= len(data)
        found.append(data[at : at + length])
        at += length
    return found


def whole_frames(buffer: bytes | bytearray) -> int:
    """The length of the whole WebSocket frames at the start of `buffer`."""
    end = 0
    while len(buffer) - end >= 10:
        length, header = buffer[end + 1], 2
        if length >= 126:
            header = 4 if length == 126 else 10
            length = int.from_bytes(buffer[end + 2 : end + header])
        if end + header + length > len(buffer):
            break
        end += header + length
    return end


class Room:
    """An opened stream with its database, in `folder` and at `url`, which may have been used before."""

    def __init__(self, folder: Path, url: str, *, keep: Keep | None = None, **log_options: Any) -> None:
        self.db = open_database(url, max_connections=4)
        self.host = self.db.write(hosts.insert, "pds.test", no_ssl=False, account_limit=100, trusted=False)
        self.log = SegmentLog(folder / "persist", **log_options)
        self.stream = Stream(self.log, self.db, keep or Keep(3600.0, 0))
        self.cursor = self.stream.cursors.get(self.host.id)
        self.finished: list[int] = []
        self.upstream_seq = max(self.cursor.position, 0)

    def start(self) -> None:
        self.stream.start()

    def stop(self) -> None:
        self.stream.stop(10.0)
        self.db.close()

    def abandon(self) -> None:
        """End without any order, as far as that goes in one process: nothing is flushed, only the lock is let go."""
        commits = self.stream.sequencer._commits
        if commits._greenlet is not None:
            commits._greenlet.kill()
        self.stream.projector._loop.stop()
        self.stream.retention.stop()
        self.log._unlock()
        self.db.close()

    def submit(
        self,
        uid: int,
        *,
        status: str = "active",
        own: bool = False,
        hides: bool = False,
        reveals: bool = False,
        own_status: str | None = None,
        host_status: str = "active",
        kind: Kind = Kind.ACCOUNT,
        parts: tuple[bytes, bytes] | None = None,
        repo: RepoRow | None = None,
    ) -> None:
        """Submit one event of account `uid`; `own`: it is the relay's own, else the next of the host.

        `own_status` is the status of the relay's own that it gives the account, `host_status` what the host says.
        """
        active = status == "active"
        head, tail = parts or account_frame(account_did(uid), TIME, active, None if active else status)
        upstream_seq = 0
        if not own:
            self.upstream_seq += 1
            upstream_seq = self.upstream_seq
            assert self.cursor.begin(upstream_seq)

        def finished() -> None:
            self.finished.append(upstream_seq)
            if not own:
                self.cursor.finish(upstream_seq)

        row = AccountRow(uid, account_did(uid), self.host.id, own_status or "active", host_status if own else status)
        host_id = 0 if own else self.host.id
        code = STATUSES.index(row.upstream_status)
        entry = Submission(kind, uid, host_id, upstream_seq, code, head, tail, row, repo, finished, hides)
        entry.reveals, entry.own_status = reveals, own_status
        self.stream.sequencer.submit(entry)

    def wait_until(self, condition: Callable[[], bool], timeout: float = 20.0) -> None:
        deadline = time.monotonic() + timeout * PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            gevent.sleep(0.002)

    def wait_for(self, seq: int) -> None:
        """Until `seq` is published."""
        self.wait_until(lambda: self.stream.firehose.last_seq >= seq)

    def read(self, cursor: int | None = 0, until: int | None = None) -> list[int]:
        """The seqs that a feed from `cursor` gives, up to the newest now."""
        return [event.seq for event in self.events(cursor, until)]

    def events(self, cursor: int | None = 0, until: int | None = None) -> list[Event]:
        feed = self.stream.firehose.attach(cursor)
        until = self.stream.firehose.last_seq if until is None else until
        found: list[Event] = []
        while feed.position < until:
            data = feed.next(0.01)
            if data is not None:
                found += [event for event in map(decode, payloads(data)) if isinstance(event, Event)]
        return found


def commit_parts(repo: RepoBuilder) -> tuple[Commit, tuple[bytes, bytes]]:
    """The next commit of `repo`, with a post, and its frame around `seq`."""
    event = decode(repo.commit(create(f"app.bsky.feed.post/{random.randbytes(6).hex()}", {"text": "hi"})).frame(1))
    assert isinstance(event, Commit)
    return event, split_at_seq(event)


def submit_commit(room: Room, uid: int, repo: RepoBuilder) -> RepoRow:
    """Submit the next commit of `repo`, account `uid`; the row that it leaves."""
    event, parts = commit_parts(repo)
    row = RepoRow(uid, event.rev, event.commit, type(event.commit)(repo.data))
    room.submit(uid, kind=Kind.COMMIT, parts=parts, repo=row)
    return row

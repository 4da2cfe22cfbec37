"""The room as a whole on real files and both databases: durable before visible, once, in order."""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest

from relay.atproto.frames import Account, Commit, Kind, decode, split_at_seq
from relay.eventlog.reader import LogReader
from relay.eventlog.retention import Keep
from relay.kit.errors import StoreError
from relay.store import accounts, hosts, projection
from relay.stream.cursors import HostCursor
from relay.stream.feed import ConsumerTooSlow
from relay.stream.firehose import FutureCursor
from relay.stream.tail import Tail
from tests.support.present import present
from tests.support.repo import RepoBuilder, SigningKey, account_did, create
from tests.support.stream import Room, append, payloads, record, submit_commit
from tests.support.tables import by_uid

KEY = SigningKey.create("k256")


class Disk:
    """fdatasync that fails, or blocks, when told to."""

    def __init__(self) -> None:
        self.failing = False
        self.calls = 0

    def __call__(self, fd: int) -> None:
        self.calls += 1
        if self.failing:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(fd)


# The way of an event


def test_events_come_out_in_order_and_are_finished(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    live = room.stream.firehose.attach(None)
    room.start()
    for number in range(1000):
        room.submit(number % 10 + 1)
    room.wait_for(1000)
    assert room.finished == list(range(1, 1001)) and room.cursor.position == 1000
    found: list[int] = []
    while live.position < 1000:
        data = live.next(1.0)
        assert data
        found += [event.seq for event in map(decode, payloads(data)) if isinstance(event, Account)]
    assert found == list(range(1, 1001))
    assert room.read(0) == room.read(0) == found
    assert room.read(500) == found[500:]
    room.stop()


def test_nothing_is_visible_or_finished_before_it_is_durable(tmp_path: Path, database_url: str) -> None:
    disk = Disk()
    room = Room(tmp_path, database_url, sync=disk)
    room.start()
    room.submit(1)
    room.wait_for(1)
    disk.failing = True
    for _ in range(50):
        room.submit(2)
    room.wait_until(lambda: room.stream.problem is not None)
    gevent.sleep(0.3)
    assert "Input/output error" in str(room.stream.problem)
    assert room.finished == [1] and room.cursor.position == 1 and room.stream.firehose.last_seq == 1
    assert room.read(0) == [1], "what is there is still served"
    disk.failing = False
    room.wait_for(51)
    assert room.stream.problem is None
    assert room.read(0) == list(range(1, 52)) and room.finished == list(range(1, 52))
    room.stop()
    again = Room(tmp_path, database_url)
    assert again.read(0) == list(range(1, 52)) and again.log.next_seq == 52
    again.stop()


def test_a_full_queue_blocks_the_submitter(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.stream.group_commit.QUEUE_EVENTS", 10)
    disk = Disk()
    room = Room(tmp_path, database_url, sync=disk)
    disk.failing = True
    room.start()
    submitted: list[int] = []

    def submit() -> None:
        for number in range(100):
            room.submit(1)
            submitted.append(number)

    submitter = gevent.spawn(submit)
    gevent.sleep(0.3)
    assert len(submitted) <= 21, "the queue and one batch"
    disk.failing = False
    submitter.join(10)
    room.wait_for(100)
    assert room.finished == list(range(1, 101))
    room.stop()


def test_a_sequencer_that_died_is_seen(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    monkeypatch.setattr(room.stream.tail, "publish", None)
    room.submit(1)
    room.wait_until(lambda: room.stream.problem is not None)
    assert room.finished == [] and "sequencer" in str(room.stream.problem)
    monkeypatch.undo()
    room.abandon()


def test_one_that_cannot_be_told_that_it_is_logged_stops_nothing(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = HostCursor.finish

    def finished(cursor: HostCursor, seq: int) -> None:
        if seq == 2:
            raise ZeroDivisionError
        finish(cursor, seq)

    monkeypatch.setattr(HostCursor, "finish", finished)
    room = Room(tmp_path, database_url)
    for _ in range(4):
        room.submit(1)
    room.start()
    room.wait_until(lambda: room.finished == [1, 2, 3, 4])
    assert room.stream.problem is None and room.read(0) == [1, 2, 3, 4]
    assert room.cursor.position == 1, "the second comes again"
    room.stop()


def test_stop_logs_what_was_submitted(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    for _ in range(500):
        room.submit(1)
    room.stop()
    assert room.stream.projector.pending.stored_position == 500
    again = Room(tmp_path, database_url)
    assert again.read(0) == list(range(1, 501))
    assert again.cursor.position == 500 and again.stream.projector.pending.position == 500
    again.stop()


def test_time_never_goes_back(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(1)
    room.wait_for(1)
    monkeypatch.setattr("relay.kit.clock.time.time_ns", lambda: 1_000_000_000)
    room.submit(1)
    room.wait_for(2)
    first, second = LogReader(room.log).read(0)
    assert second.time_us >= first.time_us > 1_700_000_000_000_000
    room.stop()


def test_each_operation_has_a_time_of_its_own(tmp_path: Path, database_url: str) -> None:
    """The JSON stream's messages are known by their times, so these rise strictly, within a batch and over restarts."""
    times: list[int] = []
    for _ in range(2):
        room = Room(tmp_path, database_url)
        first = room.log.next_seq
        for count in (3, 200, 1):
            repo = RepoBuilder(account_did(1), KEY)
            event = decode(repo.commit(*(create(f"app.bsky.feed.post/{n}", {}) for n in range(count))).frame(1))
            assert isinstance(event, Commit)
            room.submit(1, kind=Kind.COMMIT, parts=split_at_seq(event))
        room.start()
        room.wait_for(first + 2)
        times += [record.time_us for record in LogReader(room.log).read(first - 1)]
        room.stop()
    assert [later - earlier for earlier, later in itertools.pairwise(times[:3])] == [3, 200]
    assert times == sorted(set(times))


# Feeds


def test_a_cursor_begins_within_the_window(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url, segment_bytes=3000, keep=Keep(3600.0, 10_000))
    firehose = room.stream.firehose
    assert firehose.attach(0).position == firehose.attach(None).position == 0
    room.start()
    for number in range(200):
        room.submit(1)
        if number % 10 == 0:
            room.wait_for(number + 1)
    room.wait_for(200)
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 200)
    room.stream.retention.trim()
    first = firehose.first_seq
    assert 1 < first < 200
    whole = firehose.attach(0)
    assert (whole.position, whole.outdated) == (first - 1, False)
    old = firehose.attach(1)
    assert (old.position, old.outdated) == (first - 1, True)
    edge = firehose.attach(first - 1)
    assert (edge.position, edge.outdated) == (first - 1, False)
    assert firehose.attach(200).next(0.01) is None
    with pytest.raises(FutureCursor):
        firehose.attach(201)
    room.stop()


def test_retention_keeps_what_a_restart_needs(tmp_path: Path, database_url: str) -> None:
    """One event of a host is under way: the records after it are how a restart knows that they need not come again."""
    room = Room(tmp_path, database_url, segment_bytes=3000, keep=Keep(3600.0, 3000))
    room.start()
    room.submit(1)
    room.wait_for(1)
    room.upstream_seq += 1
    slow = room.upstream_seq
    assert room.cursor.begin(slow)
    for number in range(100):
        room.submit(1)
        if number % 10 == 0:
            room.wait_for(number + 2)
    room.wait_for(101)
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 101)
    room.stream.retention.trim()
    assert room.log.first_seq <= 2
    room.abandon()
    room = Room(tmp_path, database_url, segment_bytes=3000, keep=Keep(3600.0, 3000))
    assert [seq for seq in range(1, 104) if room.cursor.begin(seq)] == [slow, 103]
    room.cursor.finish(slow)
    room.cursor.finish(103)
    room.start()
    room.wait_until(lambda: min(room.stream.projector.unstored_from, room.stream.projector.stored_replay_from) > 100)
    room.stream.retention.trim()
    assert room.log.first_seq > 50
    room.stop()


def test_a_feed_at_the_head_holds_no_file(tmp_path: Path, database_url: str) -> None:
    """A segment that was deleted takes its room for as long as somebody has it open."""

    def open_segments() -> int:
        found = 0
        for fd in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                found += str(tmp_path) in (name := os.readlink(f"/proc/self/fd/{fd}")) and ".seg" in name
        return found

    room = Room(tmp_path, database_url)
    room.start()
    for _ in range(50):
        room.submit(1)
    room.wait_for(50)
    room.stop()
    room = Room(tmp_path, database_url)
    room.start()
    before = open_segments()
    feeds = [room.stream.firehose.attach(0) for _ in range(5)]
    for feed in feeds:
        while feed.position < 50:
            feed.next(1.0)
    assert open_segments() == before + 5
    room.submit(1)
    room.wait_for(51)
    writing = 1
    for feed in feeds:
        assert feed.next(1.0)
    assert open_segments() == before + writing
    room.stop()


def test_a_disk_that_hangs_is_told(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.stream.group_commit.HUNG_SECONDS", 0.1)
    hangs = threading.Event()
    room = Room(tmp_path, database_url)
    write = room.log.write
    monkeypatch.setattr(room.log, "write", lambda block: hangs.wait(20) and write(block))
    room.start()
    assert room.stream.problem is None
    room.submit(1)
    room.wait_until(lambda: "has not answered" in (room.stream.problem or ""))
    hangs.set()
    room.wait_for(1)
    assert room.stream.problem is None
    room.stop()


def test_a_full_disk_wakes_retention(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.stream.group_commit.RETRY_SECONDS", (0.05,))
    disk = Disk()
    room = Room(tmp_path, database_url, sync=disk, segment_bytes=3000)
    room.start()
    for seq in range(1, 101):
        room.submit(1)
        if seq % 10 == 0:
            room.wait_for(seq)
    room.wait_until(lambda: min(room.stream.projector.unstored_from, room.stream.projector.stored_replay_from) > 100)
    room.stream.retention._keep = Keep(3600.0, 3000)
    disk.failing = True
    room.submit(1)
    room.wait_until(lambda: room.log.first_seq > 50)
    disk.failing = False
    room.wait_for(101)
    room.stop()


def test_catching_up_hands_over_to_live_without_gap_or_repeat(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feeds start anywhere, at any time, over a memory tail of a few events and small segments."""
    monkeypatch.setattr(Tail.__init__, "__defaults__", (3000,))
    room = Room(tmp_path, database_url, segment_bytes=20_000)
    room.start()
    total, chance = 4000, random.Random(1)
    wrong: list[object] = []

    def follow(cursor: int) -> None:
        feed = room.stream.firehose.attach(cursor)
        expected = cursor + 1
        while feed.position < total:
            data = feed.next(1.0)
            for payload in payloads(data or b""):
                event = decode(payload)
                if not isinstance(event, Account) or event.seq != expected:
                    wrong.append((cursor, expected, event))
                    return
                expected += 1
            if chance.random() < 0.2:
                gevent.sleep(chance.random() * 0.05)
        if expected != total + 1:
            wrong.append((cursor, expected))

    followers = []
    for number in range(total):
        room.submit(1)
        if number % 100 == 0:
            followers.append(gevent.spawn(follow, chance.randint(0, room.stream.firehose.last_seq)))
            gevent.sleep(0.005)
    gevent.joinall(followers, timeout=30, raise_error=True)
    assert all(follower.ready() for follower in followers) and wrong == []
    room.stop()


def test_a_feed_on_disk_stops_at_what_is_published(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is on the disk a moment before it is published, and only then is known what it hides."""
    monkeypatch.setattr(Tail.__init__, "__defaults__", (1,))
    room = Room(tmp_path, database_url)
    room.start()
    for seq in range(1, 6):
        room.submit(1)
        room.wait_for(seq)
    append(room.log, [record(6), record(7)])
    feed = room.stream.firehose.attach(0)
    assert len(payloads(feed.next(0.01) or b"")) == 5 and feed.position == 5
    assert feed.next(0.01) is None
    room.stream.tail.publish([record(6), record(7)])
    assert payloads(feed.next(0.01) or b"") == [record(6).frame, record(7).frame]
    room.abandon()


def test_falling_out_of_the_window(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tail.__init__, "__defaults__", (3000,))
    room = Room(tmp_path, database_url, segment_bytes=3000, keep=Keep(3600.0, 9000))
    room.start()
    feed = room.stream.firehose.attach(0)
    for number in range(300):
        room.submit(1)
        if number % 10 == 0:
            room.wait_for(number + 1)
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 300)
    room.stream.retention.trim()
    with pytest.raises(ConsumerTooSlow):
        feed.next(1.0)
    room.stop()


def test_what_is_hidden_is_forgotten_with_what_it_hid(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tail.__init__, "__defaults__", (3000,))
    room = Room(tmp_path, database_url, segment_bytes=3000, keep=Keep(3600.0, 9000))
    room.start()
    for number in range(1, 301):
        uid = 2 if number in (100, 290) else 1
        room.submit(uid + number // 200, status="deleted" if uid == 2 else "active", hides=uid == 2)
        if number % 10 == 0:
            room.wait_for(number)
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 300)
    assert room.db.read(projection.suppressions) == {2: 100, 3: 290}
    room.stream.retention.tidy()
    assert 100 < room.log.first_seq < 290
    assert room.stream.suppressions.hides(2, 99, Kind.COMMIT), "a feed may still hold it"
    room.stream.retention.tidy()
    assert not room.stream.suppressions.hides(2, 99, Kind.COMMIT)
    assert room.stream.suppressions.hides(3, 289, Kind.COMMIT)
    room.stop()
    room = Room(tmp_path, database_url)
    assert room.db.read(projection.suppressions) == {3: 290}
    assert room.stream.suppressions.hides(3, 289, Kind.COMMIT)
    room.stop()


# A database that is away


def test_a_database_outage_stops_the_log_at_a_bound(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.stream.pending.MAX_EVENTS", 600)
    monkeypatch.setattr("relay.stream.projector.RETRY_SECONDS", 0.05)
    room = Room(tmp_path, database_url)
    write = room.db.write
    away = True

    def unsteady(*args: object) -> object:
        if away:
            raise StoreError("store-unavailable", "away")
        return write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(room.db, "write", unsteady)
    room.start()

    def submit() -> None:
        for number in range(20_000):
            room.submit(number % 50 + 1)

    submitter = gevent.spawn(submit)
    room.wait_until(lambda: room.stream.projector.pending.full)
    gevent.sleep(0.3)
    assert room.stream.firehose.last_seq <= 600 + 512
    assert "away" in str(room.stream.problem)
    assert room.stream.projector.account(account_did(7)) is not None, "found although SQL does not have it"
    away = False
    submitter.join(30)
    room.wait_for(20_000)
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 20_000)
    assert room.stream.problem is None and room.read(0) == list(range(1, 20_001))
    assert present(room.db.read(hosts.by_id, room.host.id)).account_count == 50
    room.stop()


def test_a_failed_write_is_made_up_for(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, suppressions and cursors of a batch that SQL refused are all in the next, also when nothing new came."""
    room = Room(tmp_path, database_url)
    room.start()
    room.stream.projector._loop.stop()
    room.submit(1, status="deleted", hides=True)
    room.wait_for(1)

    def away(*_args: object) -> None:
        raise StoreError("store-unavailable", "away")

    with monkeypatch.context() as outage:
        outage.setattr(room.db, "write", away)
        assert not room.stream.projector.flush()
    assert room.stream.projector.flush()
    assert present(room.db.read(hosts.by_id, room.host.id)).last_seq == 1
    assert room.db.read(projection.suppressions) == {1: 1} and room.db.read(projection.position)[0] == 1
    assert present(room.db.read(by_uid, 1))[0].upstream_status == "deleted"
    room.stop()


def test_one_flush_waits_for_another(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the last one at the stop may for one that is under way."""
    room = Room(tmp_path, database_url)
    write, steps = room.db.write, list[str]()

    def slow(work: Any, *args: object) -> object:
        steps.append("begun")
        gevent.sleep(0.05)
        answer = write(work, *args)
        steps.append("ended")
        return answer

    room.start()
    room.stream.projector._loop.stop()
    room.submit(1)
    room.wait_for(1)
    with monkeypatch.context() as watched:
        watched.setattr(room.db, "write", slow)
        flushes = [gevent.spawn(room.stream.projector.flush) for _ in range(3)]
        gevent.joinall(flushes, timeout=60)
    assert [flush.value for flush in flushes] == [True] * 3
    assert steps == ["begun", "ended"] * 3
    assert room.db.read(projection.position)[0] == 1
    room.stop()


def test_what_comes_while_sql_is_written_is_stored_by_the_next_write(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, database_url)
    projector, write = room.stream.projector, room.db.write
    waiting: list[gevent.Greenlet[..., bool]] = []

    def slow(work: Any, *args: object) -> object:
        if work is projection.write and not waiting:
            assert projector.unstored_from == 1
            room.submit(2)
            room.wait_for(2)
            waiting.append(gevent.spawn(projector.wait_until_stored, 60.0))
            gevent.sleep(0)
        return write(work, *args)

    room.start()
    projector._loop.stop()
    room.submit(1)
    room.wait_for(1)
    monkeypatch.setattr(room.db, "write", slow)
    assert projector.flush()
    gevent.sleep(0.01)
    assert (projector.pending.stored_position, projector.unstored_from) == (1, 2) and not waiting[0].ready()
    assert projector.flush()
    assert waiting[0].get(timeout=60) and projector.unstored_from == 3
    room.stop()


def test_after_an_outage_what_waited_is_written_in_pieces(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that takes few rows in its time gets them few at a time, and none of them twice."""
    monkeypatch.setattr("relay.stream.projector.PIECE_ROWS", 400)
    monkeypatch.setattr("relay.stream.projector.SMALLEST_PIECE", 10)
    room = Room(tmp_path, database_url)
    write, taken = room.db.write, []

    def slow(work: Any, batch: Any, *args: object) -> object:
        if work is projection.write:
            if len(batch.accounts) > 60:
                raise StoreError("store-unavailable", "no answer in time")
            taken.append(batch)
        return write(work, batch, *args)

    room.start()
    room.stream.projector._loop.stop()
    for uid in range(1, 1001):
        room.submit(uid, status="deleted" if uid == 700 else "active", hides=uid == 700)
    room.wait_for(1000)
    monkeypatch.setattr(room.db, "write", slow)
    room.wait_until(room.stream.projector.flush)
    assert [batch.position for batch in taken] == [0] * (len(taken) - 1) + [1000], "the position comes last"
    assert sum(len(batch.accounts) for batch in taken) == 1000 and len(taken) < 40
    assert present(room.db.read(hosts.by_id, room.host.id)).account_count == 999
    assert room.db.read(projection.suppressions) == {700: 700}
    assert present(room.db.read(hosts.by_id, room.host.id)).last_seq == 1000
    room.stop()


def test_a_crash_between_pieces_costs_nothing(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.stream.projector.PIECE_ROWS", 100)
    room = Room(tmp_path, database_url)
    write, pieces = room.db.write, 0

    def ends(*args: Any) -> object:
        nonlocal pieces
        pieces += 1
        if pieces > 3:
            raise StoreError("store-unavailable", "away")
        return write(*args)

    room.start()
    room.stream.projector._loop.stop()
    for uid in (*range(1, 501), *range(1, 501)):
        room.submit(uid, status="deactivated" if uid % 2 else "active")
    room.wait_for(1000)
    with monkeypatch.context() as outage:
        outage.setattr(room.db, "write", ends)
        assert not room.stream.projector.flush()
        assert room.stream.projector.account(account_did(1)) is not None, "it is stored, and still found"
    assert room.db.read(accounts.max_uid) == 300 and room.db.read(projection.position)[0] == 0
    room.abandon()
    room = Room(tmp_path, database_url)
    assert present(room.db.read(hosts.by_id, room.host.id)).account_count == 500
    assert [present(room.db.read(by_uid, uid))[0].upstream_status for uid in (1, 2, 499)] == [
        "deactivated",
        "active",
        "deactivated",
    ]
    assert not any(room.cursor.begin(seq) for seq in range(1, 1001)) and room.cursor.begin(1001)
    room.stop()


def test_an_account_is_never_older_than_what_was_published(tmp_path: Path, database_url: str) -> None:
    """While batches are written all the time, every lookup gives the newest rev."""
    room = Room(tmp_path, database_url)
    room.start()
    repo = RepoBuilder(account_did(1), KEY)
    stop = False

    def flush() -> None:
        while not stop:
            room.stream.projector.flush()

    flusher = gevent.spawn(flush)
    for seq in range(1, 60):
        row = submit_commit(room, 1, repo)
        room.wait_for(seq)
        found = room.stream.projector.account(account_did(1))
        assert found is not None and found[1] == row
    stop = True
    flusher.join()
    room.stop()


def test_an_account_that_is_stored_while_sql_is_asked_is_in_the_answer(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, database_url)
    projector, read = room.stream.projector, room.db.read

    def slow(work: Any, *args: object) -> object:
        found = read(work, *args)
        if work == projector._find:
            assert projector.flush()
        return found

    room.start()
    projector._loop.stop()
    monkeypatch.setattr(room.db, "read", slow)
    for uid in (1, 2):
        room.submit(uid)
        room.wait_for(uid)
        did = account_did(uid)
        found = projector.account(did) if uid == 1 else projector.accounts([did])[did]
        assert found is not None and found[0].uid == uid
    room.stop()


def test_who_waits_for_sql_goes_on_where_nothing_is_left_to_write(tmp_path: Path, database_url: str) -> None:
    """As when a write took longer than one wait, and the next wait began while it was under way."""
    room = Room(tmp_path, database_url)
    room.start()
    for _ in range(2):
        assert room.stream.projector.wait_until_stored(10.0)
    room.stop()

"""The pace of the log's writer: how far apart batches are, and that what came meanwhile is in one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from gevent.monkey import get_original

from relay.atproto.events import Kind
from relay.atproto.frames import MAX_OPS
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import Record
from relay.eventlog.writer import Block
from relay.stream import group_commit as module
from relay.stream.group_commit import GroupCommit, record_times
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail
from tests.support.wait import until

# In a native thread, which has no hub.
pause = get_original("time", "sleep")


class NoDisk:
    """Where a log is written, at once."""

    def write(self, block: Block) -> None:
        pass

    def note_given_out(self) -> None:
        pass


class Written:
    """A group commit of numbers, and the batches that it made."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        suppressions = Suppressions()
        self.commits: GroupCommit[int] = GroupCommit(
            "test",
            cast(SegmentLog, NoDisk()),
            Tail(0, suppressions),
            suppressions,
            lambda batch: [Record(seq, 0, 1, 1, seq, Kind.COMMIT, 0, 0, b"frame") for seq in batch],
            lambda batch, records: self.batches.append(batch),
        )

    def put(self, numbers: range, size: int = 1) -> None:
        for number in numbers:
            self.commits.put(number, size)

    @property
    def numbers(self) -> list[int]:
        return [number for batch in self.batches for number in batch]

    def wait_for(self, number: int) -> None:
        with gevent.Timeout(60):
            while not self.batches or self.batches[-1][-1] < number:
                gevent.sleep(0.01)


def test_a_disk_that_hangs_while_the_newest_seq_is_noted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    over: list[bool] = []

    def hang(_: NoDisk) -> None:
        while not over:
            pause(0.01)

    monkeypatch.setattr(NoDisk, "note_given_out", hang)
    monkeypatch.setattr(module, "HUNG_SECONDS", 0.1)
    written = Written()
    written.commits.start()
    written.put(range(1, 2))
    written.wait_for(1)
    try:
        until(lambda: (written.commits.problem or "").startswith("log: the disk has not answered for"))
    finally:
        over.append(True)
    until(lambda: written.commits.problem is None)
    assert written.commits.stop(30)


@pytest.mark.parametrize("first", [1, module.LARGE_BATCH_EVENTS])
def test_what_comes_while_a_batch_is_written_waits_for_the_rest(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    monkeypatch.setattr(module, "BATCH_SECONDS" if first == 1 else "LARGE_BATCH_SECONDS", 1.0)
    written = Written()
    written.commits.start()
    written.put(range(1, first + 1))
    written.wait_for(first)
    for number in range(first + 1, first + 4):
        written.put(range(number, number + 1))
        gevent.sleep(0.01)
    written.wait_for(first + 3)
    assert written.commits.stop(30)
    assert [len(batch) for batch in written.batches] == [first, 3]


def test_a_batch_that_is_full_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE_BATCH_SECONDS", 60.0)
    written = Written()
    written.put(range(1, 2 * module.BATCH_EVENTS + 1))
    written.commits.start()
    written.wait_for(2 * module.BATCH_EVENTS)
    assert [len(batch) for batch in written.batches] == [module.BATCH_EVENTS] * 2
    written.commits.stop(0)


def test_a_batch_that_becomes_full_in_the_pause_waits_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_SECONDS", 3600.0)
    written = Written()
    written.commits.start()
    written.put(range(1, 2))
    written.wait_for(1)
    gevent.sleep(0.05)
    written.put(range(2, module.BATCH_EVENTS + 2))
    written.wait_for(module.BATCH_EVENTS + 1)
    assert [len(batch) for batch in written.batches] == [1, module.BATCH_EVENTS]
    written.commits.stop(0)


@pytest.mark.parametrize(("bound", "room", "size"), [("QUEUE_EVENTS", 4, 1), ("QUEUE_BYTES", 400, 100)])
def test_the_queue_is_bounded_in_events_and_in_bytes(
    monkeypatch: pytest.MonkeyPatch, bound: str, room: int, size: int
) -> None:
    monkeypatch.setattr(module, bound, room)
    written = Written()
    putting = gevent.spawn(written.put, range(1, 11), size)
    gevent.sleep(0.05)
    assert len(written.commits._queue) == 4
    written.commits.start()
    putting.join(60)
    written.wait_for(10)
    assert written.numbers == list(range(1, 11)) and written.commits.bytes == 0
    written.commits.stop(0)


def test_a_batch_is_bounded_in_bytes() -> None:
    written = Written()
    written.put(range(1, 6), module.BATCH_BYTES // 2)
    written.commits.start()
    written.wait_for(5)
    assert written.batches == [[1, 2], [3, 4], [5]]
    written.commits.stop(0)


def test_those_who_wait_for_room_go_on_in_order_and_nobody_overtakes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was judged before a takedown is in the log before it."""
    monkeypatch.setattr(module, "QUEUE_EVENTS", 2)
    monkeypatch.setattr(module, "WAIT_SECONDS", 600.0)
    written = Written()
    written.put(range(1, 3))
    waiting = [gevent.spawn(written.put, range(number, number + 1)) for number in range(3, 9)]
    gevent.sleep(0)
    waiting[0].kill()
    # There is room, and the next one has been called.
    assert written.commits._take() == [1, 2]
    late = gevent.spawn(written.put, range(9, 10))
    gevent.sleep(0.05)
    assert len(written.commits._queue) == 2, "whoever has taken a place calls the next one"
    waiting[3].kill()
    written.commits.start()
    gevent.joinall([*waiting, late], timeout=60)
    written.wait_for(9)
    assert written.numbers == [4, 5, 7, 8, 9]
    written.commits.stop(0)


def test_times_rise_past_all_operations_of_the_last_event_though_the_clock_stands() -> None:
    log: Any = SimpleNamespace(time_us=lambda: 1_000, last_time_us=1_000)
    assert record_times(log, [b"", b""]) == [1_000 + MAX_OPS, 1_001 + MAX_OPS]

"""Feeds over a log that is trimmed while they read it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from relay.atproto.frames import Kind
from relay.eventlog import reader
from relay.eventlog.log import SegmentLog
from relay.eventlog.record import FLAG_HIDES, Record
from relay.eventlog.retention import Keep, Retention
from relay.stream import feed as feeds
from relay.stream.feed import ConsumerTooSlow, LogSource
from relay.stream.firehose import Firehose
from relay.stream.pieces import CONVERTED_EVENTS
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Chunk, Tail
from tests.support.stream import append, payloads, record

SEGMENT_BYTES = 2 << 20
COUNT, HIDDEN = 200, 7


def as_it_is(chunk: Chunk, position: int) -> bytes:
    return chunk.after(position)


def multiplied(times: int, chunk: Chunk, _: int) -> bytes:
    return times * chunk.data


def test_what_is_converted_counts_as_long_as_it_is(tmp_path: Path) -> None:
    """It is in memory until its consumer has taken it, in the place of what was read."""
    log = SegmentLog(tmp_path)
    append(log, [record(seq, frame=bytes(1000)) for seq in range(1, COUNT + 1)])
    suppressions = Suppressions()
    firehose = Firehose(log, Tail(COUNT, suppressions), suppressions)
    for times in (0, 1, 20):
        feed = firehose.attach(0)
        feed.convert = partial(multiplied, times)
        data = feed.next(60.0) or b""
        assert firehose._budget.taken == len(data) >= times * COUNT * 1000
        feed.next(0.0)
        assert firehose._budget.taken == 0
        feed.close()
    firehose.close()
    log.close()


def test_what_is_published_while_the_log_is_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has nothing up to the head: those seqs were passed over."""
    log, suppressions = SegmentLog(tmp_path), Suppressions()
    tail = Tail(5, suppressions)
    firehose = Firehose(log, tail, suppressions)
    feed = firehose.attach(0)

    def read(_source: LogSource, _after_seq: int) -> list[Record]:
        tail.publish([record(6)])
        return []

    monkeypatch.setattr(LogSource, "read", read)
    assert payloads(feed.next(60.0) or b"") == [record(6).frame] and feed.position == 6
    firehose.close()
    log.close()


def test_a_large_chunk_is_converted_in_pieces_that_all_share(tmp_path: Path) -> None:
    """Whoever begins in the middle of one, and while a part of it is hidden."""
    log, suppressions = SegmentLog(tmp_path), Suppressions()
    tail = Tail(0, suppressions)
    firehose = Firehose(log, tail, suppressions)
    records = [record(seq, uid=HIDDEN if seq % 50 == 0 else 1) for seq in range(1, 501)]
    tail.publish(records[:20])
    tail.publish(records[20:])

    def read(after: int) -> tuple[list[bytes], list[Chunk]]:
        feed, made, data = firehose.attach(after), list[Chunk](), b""

        def kept(chunk: Chunk, position: int) -> bytes:
            made.append(chunk)
            return chunk.after(position)

        feed.convert = kept
        while feed.behind:
            data += feed.next(60.0) or b""
        return payloads(data), made

    for _ in ("all of it", "without what is hidden"):
        _, pieces = read(0)
        assert len(pieces) == 9 and all(len(piece.events) <= CONVERTED_EVENTS for piece in pieces)
        for after in (0, 10, 20, 21, 83, 84, 85, 300, 499):
            found, made = read(after)
            shown = [one for one in records[after:] if one.seq >= suppressions.before.get(one.uid, 0)]
            assert found == [one.frame for one in shown]
            assert all(one is other for one, other in zip(made[::-1], pieces[::-1], strict=False))
        suppressions.apply(record(501, uid=HIDDEN, kind=Kind.ACCOUNT, flags=FLAG_HIDES))
    firehose.close()
    log.close()


def test_of_a_large_chunk_what_is_not_wanted_takes_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "PIECES_SECONDS", 60.0)
    log, suppressions = SegmentLog(tmp_path), Suppressions()
    tail = Tail(0, suppressions)
    firehose = Firehose(log, tail, suppressions)
    tail.publish([record(seq) for seq in range(1, 401)])
    consumer = firehose.attach(0)
    consumer.convert = partial(multiplied, 0)
    assert consumer.next(60.0) == b"" and consumer.position == 400
    firehose.close()
    log.close()


@pytest.mark.parametrize("converts", [False, True], ids=["as it is", "converted"])
def test_what_is_hidden_stays_so_for_who_still_reads_it(tmp_path: Path, converts: bool) -> None:
    """A segment is readable for who has it open, for as long as that takes; its marks must be there as long."""
    log = SegmentLog(tmp_path, segment_bytes=SEGMENT_BYTES)
    for seq in range(1, COUNT + 1):
        append(log, [record(seq, frame=b"%d" % seq * 10_000, uid=HIDDEN if seq % 2 else 1)])
    first, second = (segment.first_seq for segment in log.segments[:2])
    suppressions = Suppressions()
    suppressions.apply(record(second - 1, uid=HIDDEN, kind=Kind.ACCOUNT, flags=FLAG_HIDES))
    firehose = Firehose(log, Tail(COUNT, suppressions), suppressions)
    retention = Retention(log, Keep(1e9, SEGMENT_BYTES), lambda: log.next_seq, firehose.trimmed)
    feed = firehose.attach(0)
    feed.convert = as_it_is if converts else None
    data = feed.next(60.0) or b""
    assert first <= feed.position < second - 10
    for _ in range(3):
        retention.tidy()
    assert log.first_seq >= second
    while feed.position < second - 1:
        data += feed.next(60.0) or b""
    assert payloads(data)[: second // 2 - 1] == [b"%d" % seq * 10_000 for seq in range(2, second - 1, 2)]
    feed.close()
    retention.tidy()
    assert not suppressions.before
    firehose.close()
    log.close()


@pytest.mark.parametrize("converts", [False, True], ids=["as it is", "converted"])
def test_who_takes_little_has_a_deleted_segment_for_a_while_only(
    tmp_path: Path, converts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SegmentLog(tmp_path, segment_bytes=SEGMENT_BYTES)
    for seq in range(1, COUNT + 1):
        append(log, [record(seq, frame=b"%d" % seq * 10_000)])
    suppressions = Suppressions()
    firehose = Firehose(log, Tail(COUNT, suppressions), suppressions)
    feed = firehose.attach(0)
    feed.convert = as_it_is if converts else None
    assert feed.next(60.0)
    log.trim(1e9, SEGMENT_BYTES, log.next_seq)
    assert feed.position < log.first_seq - 50 and feed.next(60.0), "it may go on"
    monkeypatch.setattr(reader, "DELETED_SECONDS", 0.0)
    with pytest.raises(ConsumerTooSlow):
        feed.next(60.0)
    firehose.close()
    log.close()


def test_what_is_hidden_stays_so_in_memory_that_begins_before_the_log(tmp_path: Path) -> None:
    """The disk may be so full that the log has less than the memory; and a slow consumer may have all of that left."""
    log = SegmentLog(tmp_path, segment_bytes=1000)
    suppressions = Suppressions()
    tail = Tail(0, suppressions)
    firehose = Firehose(log, tail, suppressions)
    retention = Retention(log, Keep(1e9, 1), lambda: log.next_seq, firehose.trimmed)
    feed = firehose.attach(0)
    for seq in range(1, 101):
        hides = seq == 50
        found = record(
            seq, uid=seq % 2 + 1, kind=Kind.ACCOUNT if hides else Kind.COMMIT, flags=FLAG_HIDES if hides else 0
        )
        append(log, [found])
        suppressions.apply(found)
        tail.publish([found])
    for _ in range(3):
        retention.tidy()
    assert log.first_seq > 50
    data = b""
    while feed.position < 100:
        data += feed.next(60.0) or b""
    shown = [seq for seq in range(1, 101) if seq % 2 or seq >= 50]
    assert payloads(data) == [record(seq).frame for seq in shown]
    firehose.close()
    log.close()
